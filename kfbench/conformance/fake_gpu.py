"""A GPU that is not there: torch's fake tensors have a device and a shape, but no values.

What a method's step would do on a GPU shows on any machine: an operation that mixes devices fails, and one that has to
wait for the device fails or is noted, because there is no value to wait for. Autograd does not run on such tensors, so
only forward passes are looked at.
"""

import dataclasses
import traceback
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kfbench.batch import Batch
from kfbench.train.setup import Setup

COPIES = {torch.ops.aten._to_copy.default: 0, torch.ops.aten.copy_.default: 1}  # which argument is copied
PUTS = (torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default)


def own_tensors(student: nn.Module) -> set[int]:
    """Return the ids of tensors that are plain attributes of modules: no `.to(device)` moves them off the CPU."""
    return {id(value) for module in student.modules() for value in vars(module).values() if isinstance(value, Tensor)}


def complaint(setup: Setup, batch: Batch, progress: float, *, staying: set[int]) -> str | None:
    """Return why a step's forward passes cannot run on a GPU, or where they wait for it; None if all is well.

    Student, teachers and batch [B, …] are turned into fake ones in place: nothing can be computed with them afterwards.
    `staying`: tensors of the student that no `.to(device)` moves (`own_tensors` of it when it was new).
    """
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for module in (setup.student, *(teacher.network for teacher in setup.teachers)):
            move(module, mode, staying)
        given = {field.name: moved(getattr(batch, field.name), mode) for field in dataclasses.fields(batch)}
        watch = Watch()
        for look in (_losses, _act):
            here = Batch(**{**given, "memo": {}, "past": None})
            try:
                with watch:
                    look(setup, here, progress)
            except (DataDependentOutputException, DynamicOutputShapeException) as error:
                return f"{look.__name__[1:]} waits for the GPU, whose values it reads, at {_place(error)}"
            except RuntimeError as error:
                if not watch.waits:
                    return f"{look.__name__[1:]} fails on a GPU at {_place(error)}: {str(error).splitlines()[0]}"
            if watch.waits:
                return f"{look.__name__[1:]} waits for the GPU, {watch.waits[0]}"
    return None


def _losses(setup: Setup, batch: Batch, progress: float) -> None:
    setup.student.train()
    setup.method.losses(setup.student, setup.teachers, batch, setup.task, progress)


def _act(setup: Setup, batch: Batch, progress: float) -> None:
    setup.student.eval()
    with torch.no_grad():
        setup.method.act(setup.student, setup.teachers, Batch(batch.images, batch.rng, labels=batch.labels), progress)


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Note copies between devices, and operations that copy an argument over: each waits for all before it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in COPIES:
            here, there = args[COPIES[func]].device.type, result.device.type
            if here != there and not kwargs.get("non_blocking"):
                self.waits.append(f"for a copy from {here} to {there} of shape {list(result.shape)}, at {_place()}")
            return result
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        puts = func in PUTS and not any(at is not None and at.dtype == torch.bool for at in args[1])
        carried = any(value.device.type == "cpu" and (value.dim() or puts) for value in given)  # a number goes as such
        if len({value.device.type for value in given}) > 1 and carried:
            self.waits.append(f"for an argument of {func.overloadpacket} that is on the CPU, at {_place()}")
        return result


def _fake(value: Tensor, mode: Any, device: str) -> Tensor:
    with torch.no_grad():
        fake: Tensor = torch.empty_like(mode.from_tensor(value, static_shapes=True), device=device)
    if isinstance(value, nn.Parameter):
        return nn.Parameter(fake, requires_grad=value.requires_grad)
    return fake


def move(module: nn.Module, mode: Any, staying: set[int]) -> None:
    """Replace every tensor of a module in place, one for one, also where several modules share it."""
    met: dict[int, tuple[Tensor, Tensor]] = {}  # holds the old ones, so that no id is used twice
    for part in module.modules():
        stores: tuple[Any, ...] = (part._parameters, part._buffers, vars(part))
        for store in stores:
            for name, value in store.items():
                if isinstance(value, Tensor) and id(value) not in staying:
                    met.setdefault(id(value), (value, _fake(value, mode, "cuda")))
                    store[name] = met[id(value)][1]


def moved(value: Any, mode: Any) -> Any:
    """Return a value of a batch with fake tensors on the GPU for its own."""
    if isinstance(value, Tensor):
        return _fake(value, mode, "cuda")
    if isinstance(value, dict):
        return {name: moved(part, mode) for name, part in value.items()}
    if isinstance(value, tuple):
        return type(value)(*(moved(part, mode) for part in value))
    return value


def _place(error: BaseException | None = None) -> str:
    """Return FILE:LINE of the innermost call that is neither torch's nor this file's."""
    frames = traceback.extract_tb(error.__traceback__) if error else traceback.extract_stack()
    library = str(Path(torch.__file__).parent)
    ours = [f for f in frames if not f.filename.startswith((library, __file__)) and "<" not in f.filename]
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "an unknown place"
