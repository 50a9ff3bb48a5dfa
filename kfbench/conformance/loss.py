"""Rules about a method's loss: finite means, whatever the batch and the temperature, and no wait for a GPU."""

import dataclasses
from typing import Any, cast

import torch
from torch import Tensor

from kfbench.batch import Batch
from kfbench.conformance import fake_gpu
from kfbench.conformance.tiny import BATCH, STEPS, Broken, live, state, trained
from kfbench.networks.network import Output
from kfbench.spec import RunSpec
from kfbench.train.setup import Setup


def losses_are_finite_means(spec: RunSpec) -> None:
    """Each part of the loss is a finite scalar, and twice the rows do not give twice the loss."""
    setup = live(spec)
    loop = trained(setup, STEPS // 3)
    batch = loop.batch()
    before, rng = state(setup.student), setup.rng.get_state()
    progress = loop.position / loop.total

    def parts(repeated: int) -> dict[str, float]:
        setup.student.load_state_dict(before)
        setup.rng.set_state(rng)
        again = _repeated(batch, repeated)
        torch.manual_seed(0)  # the same dropout, where there is any
        _, named = setup.method.losses(setup.student, setup.teachers, again, setup.task, progress)
        for name, part in named.items():
            if not bool(part.isfinite()):
                raise Broken(f"loss part '{name}' is {part.detach()}, not a finite scalar")
        return {name: float(part.detach()) for name, part in named.items()}

    with torch.random.fork_rng():
        once, twice = parts(1), parts(2)
    for name, value in once.items():
        if abs(value) > 1e-4 and not 0.67 < twice[name] / value < 1.5:
            raise Broken(
                f"loss part '{name}' is {value:.4g} for {BATCH} rows and {twice[name]:.4g} for the same rows twice: "
                "take a mean over the batch, not a sum"
            )


def _repeated(batch: Batch, times: int) -> Batch:
    """Return a batch with all its rows so many times, and nothing remembered."""

    def more(value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.cat([value] * times)
        if isinstance(value, Output):
            return Output(*(more(part) for part in value))
        return {name: more(part) for name, part in value.items()} if isinstance(value, dict) else value

    rows = {field.name: more(getattr(batch, field.name)) for field in dataclasses.fields(batch)}
    return Batch(**{**rows, "memo": {}})


def soft_targets_keep_their_size(spec: RunSpec) -> None:
    """Twice a high temperature leaves the gradient's size: the loss has its T², or the method says `has_t2 = False`."""
    method = live(spec).method
    if not hasattr(method, "temperature") or not method.has_t2:
        return
    for steps in (STEPS // 2, STEPS - 1):  # a teacher may have left before the end
        _soft_targets(live(spec), steps)


def _soft_targets(setup: Setup, steps: int) -> None:
    loop = trained(setup, steps)
    batch, before = loop.batch(), state(setup.student)
    weights = [weight for weight in setup.student.parameters() if weight.requires_grad]

    def sizes(temperature: float) -> dict[str, float]:
        setup.student.load_state_dict(before)
        hot = dataclasses.replace(cast(Any, setup.method), temperature=temperature)
        progress = loop.position / loop.total
        _, parts = hot.losses(setup.student, setup.teachers, dataclasses.replace(batch, memo={}), setup.task, progress)
        gradients = {}
        for name, part in parts.items():
            slopes = torch.autograd.grad(part, weights, retain_graph=True, allow_unused=True)
            gradients[name] = sum(float(slope.square().sum()) for slope in slopes if slope is not None) ** 0.5
        return gradients

    once, twice = sizes(20.0), sizes(40.0)
    for name, size in once.items():
        if size > 1e-7 and not 0.5 < twice[name] / size < 2:
            raise Broken(
                f"the gradient of '{name}' is {size:.3g} at temperature 20 and {twice[name]:.3g} at 40: multiply the "
                "loss by T², or say has_t2 = False if its source has none"
            )


def waits_for_no_gpu(spec: RunSpec) -> None:
    """On a GPU a step mixes no devices and never waits: no value is read, nothing copied to or from the device."""
    for steps in (1, STEPS - 1):
        setup = live(spec)
        staying = fake_gpu.own_tensors(setup.student)
        loop = trained(setup, steps)
        if found := fake_gpu.complaint(setup, loop.batch(), loop.position / loop.total, staying=staying):
            raise Broken(f"{found}; make tensors on the device of the images, and read values in metrics or observe")
