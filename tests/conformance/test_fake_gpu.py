"""Neither training loop waits for a GPU between looks at the loss: seen on one that is not there."""

import dataclasses
from typing import Any

import pytest
import torch
from playing import make_setup, trained
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from kfbench.conformance import fake_gpu, tiny
from kfbench.data import augment
from kfbench.running import stand_in
from kfbench.train import optimizer
from kfbench.train.actor_critic import ActorCritic
from kfbench.train.meter import Meter
from kfbench.train.supervised import Supervised


def move(loop: Any, mode: Any, patch: pytest.MonkeyPatch) -> None:
    """Bring what a loop trains to the GPU, with a fresh optimiser; as autograd cannot run there, gradients are 0."""
    setup = loop.setup
    fake_gpu.move(setup.student, mode, set())
    setup.device = loop.device = torch.device("cuda")
    loop._optimizer, loop.meter = optimizer.make(setup.method, setup.student, loop.recipe), Meter()

    def backward(loss: Tensor) -> None:
        assert loss.device.type == "cuda"
        for weight in setup.student.parameters():
            weight.grad = torch.zeros_like(weight)

    patch.setattr(Tensor, "backward", backward)


def there(value: Any, mode: Any) -> Any:
    """Return a dataclass with its tensors on the GPU."""
    return type(value)(**{f.name: fake_gpu.moved(getattr(value, f.name), mode) for f in dataclasses.fields(value)})


@pytest.mark.parametrize("augmentation", [{"pad": 4}, {"crop": 0.08}])
def test_steps_on_images(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, augmentation: dict[str, float]
) -> None:
    request.addfinalizer(augment._sides_on.cache_clear)  # what is no tensor must not be found by others
    spec = tiny.spec_of("scratch")
    recipe = dataclasses.replace(spec.recipe, **{"pad": 0, "flip": True, **augmentation})
    loop = Supervised(stand_in.setup(dataclasses.replace(spec, recipe=recipe), rows=tiny.ROWS))
    for _ in zip(range(loop.per_epoch), loop, strict=False):
        pass
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        move(loop, mode, monkeypatch)
        loop.train = there(loop.train, mode)
        loop._rows = loop._from(loop.position)
        loop._step()  # the epoch's order of rows goes over
        loop.position += 1
        with fake_gpu.Watch() as watch:
            loop._step()
    assert watch.waits == []


@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
def test_steps_on_a_rollout(monkeypatch: pytest.MonkeyPatch, algorithm: str) -> None:
    """The minibatches' rows are copied over together, before the first step."""
    plain = {"optimizer": "rmsprop", "minibatches": 1, "passes": 1} if algorithm == "a2c" else {}
    loop = ActorCritic(make_setup(algorithm=algorithm, **plain))
    trained(loop)
    rollout = loop._play(0)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        move(loop, mode, monkeypatch)
        rollout = there(dataclasses.replace(rollout, scores=()), mode)
        with fake_gpu.Watch() as watch:
            loop._learn(rollout, 0.5)
    shape = [loop.recipe.passes, loop.rows]
    wanted = [f"for a copy from cpu to cuda of shape {shape}, at actor_critic.py"] if algorithm == "ppo" else []
    assert [wait.rpartition(":")[0] for wait in watch.waits] == wanted


@pytest.mark.parametrize("method", ["kd", "pathnet"])
def test_a_stand_ins_examples_are_where_its_student_is(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Else the time that is told before a run on a GPU, and `bench` there, end in an error; pathnet's stages too."""
    monkeypatch.setattr(stand_in, "torch_device", torch.device)  # torch's meta device is on every machine
    loop = Supervised(stand_in.setup(tiny.spec_of(method), rows=tiny.ROWS, device="meta"))
    for stage, _, _ in loop.stages:
        loop._enter(stage)
        batch = loop.batch()
        assert {batch.images.device.type, batch.labels.device.type, batch.index.device.type} == {"meta"}
        assert all(weight.is_meta for weight in loop.setup.student.parameters())
    assert loop.data.val.labels.is_meta
