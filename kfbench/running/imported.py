"""Teachers that others trained: a file of their weights becomes `imported:NAME` in the teacher store, with its score.

A teacher is one file, results/teachers/imported/NAME.safetensors, that holds its description: network, task, classes,
where it came from, and its error on the task's validation images.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kfbench import registry
from kfbench.data import images
from kfbench.errors import KfbenchError, near, warn_once
from kfbench.kinds import FEATURES
from kfbench.networks import header, outputs, saved, weights
from kfbench.networks.fitting import DESCRIPTION
from kfbench.networks.network import Network
from kfbench.networks.saved import Damaged, Saved
from kfbench.running import files
from kfbench.tasks import ImageTask


class Origin(NamedTuple):
    """A public code base whose checkpoints are taken: the data set it trains on, and how it normalises its images."""

    dataset: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


# dataset/cifar100.py of HobbitLong/RepDistiller, mdistiller/dataset/cifar100.py of megvii-research/mdistiller
DISTILLERS = Origin("cifar100", (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
ORIGINS = {"repdistiller": DISTILLERS, "mdistiller": DISTILLERS}


def path_of(results: Path, name: str) -> Path:
    """Return where an imported teacher lies."""
    return files.imported(results) / f"{name}.safetensors"


def take_in(
    file: Path,
    *,
    network: str,
    task: str,
    results: Path,
    name: str = "",
    part: str = "",
    origin: str = "",
    mean: float | Sequence[float] = (),
    std: float | Sequence[float] = (),
    classes: Sequence[str] = (),
    device: str = "cpu",
    force: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[str, dict[str, Any]]:
    """Store a file of weights as a teacher; return its name and its description, `val_error` in % among it.

    What is left open is taken from `<file>.json`. Without statistics of the input, here, there or in the file, they are
    those of the task's training images. `classes` are those of its outputs, in their order, where the file does not
    state them; outputs in another order than the task's are put into that, which `say` tells. Raises KfbenchError for
    weights of another network, a name that is taken by other weights, a task without classes, or a file that states
    other classes.
    """
    declared = registry.load_task(task)
    if not isinstance(declared, ImageTask):
        raise KfbenchError(f"task '{task}' is a game; teachers are imported for image tasks only")
    name = name or re.sub(r"[^a-z0-9_.-]+", "-", file.stem.lower()).strip("-.")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise KfbenchError(f"'{name}' cannot be a teacher's name; give --name with letters, digits, '-', '_' and '.'")
    data = images.load(declared)
    beside = weights.beside(file)
    if not (origin or mean or std):
        origin, mean, std = str(beside.get("from") or ""), beside.get("mean", ()), beside.get("std", ())
    kept = saved.read(file, part or str(beside.get("part") or ""))
    order = _order(file, declared.name, data.classes, _stated(file, kept, classes))
    asked = {"network": network, "shape": data.shape, "outputs": len(data.classes)}
    asked |= statistics(origin, declared, mean, std)
    if "mean" not in asked and not {"mean", "std"} <= kept.tensors.keys():
        asked |= {"mean": data.mean.tolist(), "std": data.std.tolist()}
    made, _, _ = weights.build(kept, asked, file)
    _put_in_order(made, order, file, declared.name, say)
    about = {
        "task": declared.name,
        "classes": list(data.classes),
        "from": origin or None,
        "file": file.name,
        "file_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "mean": made.mean.flatten().tolist(),
        "std": made.std.flatten().tolist(),
        "digest": weights.digest(made.state_dict()),
        "val_error": error(made, data, device),
        "val_error_guessing": guessing(data),
        "data": data.checksum,
    }
    path = path_of(results, name)
    there = header.read(path)
    if path.is_file() and there.get("digest") != about["digest"] and not force:
        raise KfbenchError(f"there is a teacher 'imported:{name}' with other weights; give another --name, or --force")
    weights.save(made, path, about)
    return name, {"network": network, **about}


def statistics(
    origin: str, task: ImageTask, mean: float | Sequence[float], std: float | Sequence[float]
) -> dict[str, float | Sequence[float]]:
    """Return {"mean", "std"} of the input as a user or a code base states them; empty where nobody does."""
    if origin and origin not in ORIGINS:
        raise KfbenchError(f"no code base '{origin}' is known; {near(origin, ORIGINS)}")
    given = [value not in (None, (), []) for value in (mean, std)]  # 0 is a mean
    if any(given) and not all(given):
        raise KfbenchError("mean and std go together; give both, a number a channel in units of the 0..1 range")
    if any(given):
        return {"mean": mean, "std": std}
    if not origin:
        return {}
    known = ORIGINS[origin]
    if task.dataset != known.dataset:
        raise KfbenchError(f"'{origin}' normalises images of {known.dataset}, not of {task.dataset}; give mean and std")
    return {"mean": known.mean, "std": known.std}


class _Stated(NamedTuple):
    """The classes that a file of weights has, by whom they are told, and what to do where a task has others."""

    classes: Sequence[str] | None  # in the order of the outputs; None: nobody says
    remedy: str
    task: str  # that the file says it is of; "": it does not
    by: str


def _stated(file: Path, kept: Saved, asked: Sequence[str]) -> _Stated:
    """Return the classes of a file: by its own word if it is one of ours, else as asked, or as beside it, or in it."""
    own, beside = kept.about or {}, weights.beside(file)
    task = str({**beside, **own}.get("task", ""))
    if "classes" in own:
        if asked and [*asked] != [*own["classes"]]:
            raise KfbenchError(f"'{file}' states other classes than --classes; leave --classes out")
        return _Stated(own["classes"], f"--teachers file:{file} with {FEATURES}", task, f"'{file}'")
    if asked or "classes" in beside:
        where = "--classes" if asked else f"'{file.name}.json'"
        return _Stated(asked or beside["classes"], f"correct {where}", task, "--classes" if asked else f"'{file}'")
    return _Stated(kept.classes, f"state them in '{file.name}.json', which is believed first", task, f"'{file}'")


def _order(file: Path, task: str, classes: Sequence[str], stated: _Stated) -> list[int]:
    """Return which output of a file is each of a task's classes. Raises KfbenchError if it states other classes."""
    theirs = stated.classes
    if theirs is None or tuple(theirs) == tuple(classes):
        return list(range(len(classes)))
    if sorted(theirs) == sorted(classes):
        place = {name: output for output, name in enumerate(theirs)}
        return [place[name] for name in classes]
    if len(theirs) != len(classes):
        differs = f"it has {len(theirs)} classes, and '{task}' has {len(classes)}"
    else:
        first = next(i for i, (its, here) in enumerate(zip(theirs, classes, strict=True)) if its != here)
        differs = f"its class {first + 1} is '{theirs[first]}', and that of '{task}' is '{classes[first]}'"
    right = "use the task whose classes it has" + (f", '{stated.task}'" if stated.task not in ("", task) else "")
    raise KfbenchError(f"{stated.by} says that {differs}; {right}, or {stated.remedy}")


def _put_in_order(network: Network, order: list[int], file: Path, task: str, say: Callable[[str], None]) -> bool:
    """Put the outputs into the order of a task's classes, and say so; return whether anything was to do."""
    if order == sorted(order):
        return False
    if not outputs.reorder(network, order):
        raise KfbenchError(
            f"'{file}' has the classes of '{task}' in another order, and it is not known which layer puts them out; "
            f"save it with its outputs in that of '{task}', or write {DESCRIPTION} into '{file.name}.json', without "
            f'"task", for {FEATURES}'
        )
    say(f"'{file}' has the classes of '{task}' in another order; its outputs are put into the task's")
    return True


def load(name: str, results: Path) -> tuple[Network, dict[str, Any]]:
    """Return an imported teacher and its description. Raises KfbenchError if there is none, or it was changed."""
    path = path_of(results, name)
    if not path.is_file():
        there = [each["name"].removeprefix("imported:") for each in listed(results)]
        raise KfbenchError(
            f"no teacher 'imported:{name}' in '{results}'; {near(name, there)}; see: kfbench teacher import"
        )
    try:
        network, about, digest = weights.load(path)
    except Damaged as error:
        raise KfbenchError(f"{error.what}; import it again: kfbench teacher import FILE --name {name} …") from error
    if digest != about.get("digest"):
        raise KfbenchError(f"'{path}' was changed since it was imported; import it again with --force")
    return network, about


def of_file(path: Path) -> tuple[Network, dict[str, Any], str]:
    """Return the network of a file anywhere, its description and digest, as the teacher `file:PATH` wants them.

    Beside a file of other people's weights lies `<path>.json`: {"network": NAME, "task": TASK}, and "from", or "mean"
    and "std", and "part".
    """
    told = weights.beside(path)
    declared = registry.load_task(str(told["task"])) if {"network", "task"} <= told.keys() else None
    if "shape" in told or not isinstance(declared, ImageTask):
        return weights.load(path)
    classes = images.classes(declared)  # no image is read for that
    if told.get("outputs", len(classes)) != len(classes):
        raise KfbenchError(
            f"'{path.name}.json' says {told['outputs']} outputs, and '{declared.name}' has {len(classes)}; write "
            f'{DESCRIPTION} into it, without "task", for {FEATURES}'
        )
    kept = saved.read(path, str(told.get("part") or ""))
    order = _order(path, declared.name, classes, _stated(path, kept, ()))
    extra = {"shape": declared.shape, "outputs": len(classes), "classes": list(classes)}
    extra |= statistics(str(told.get("from") or ""), declared, told.get("mean", ()), told.get("std", ()))
    network, about, digest = weights.build(kept, {**(kept.about or {}), **told, **extra}, path)
    moved = _put_in_order(network, order, path, declared.name, warn_once)
    return network, about, weights.digest(network.state_dict()) if moved else digest


def listed(results: Path) -> list[dict[str, Any]]:
    """Return the imported teachers of a results folder, by their names; nothing but their headers is read."""
    found = []
    for path in sorted(path_of(results, "x").parent.glob("*.safetensors")):
        found.append({"name": f"imported:{path.stem}", **header.read(path)})
    return found


def error(network: Network, data: images.Images, device: str = "cpu") -> float:
    """Return the share in % of a task's validation images that a network takes for another class.

    Raises KfbenchError if an output is not finite.
    """
    place = torch.device(device)
    network = network.to(place).eval()
    wrong = 0
    with torch.no_grad():
        for taken, labels in data.val.chunks():
            logits = network(taken.to(place)).logits.cpu()
            if not logits.isfinite().all():
                raise KfbenchError(
                    f"the outputs of '{network.name}' for validation images are not finite; its weights, or --mean and "
                    "--std, are not those of its training"
                )
            wrong += int((logits.argmax(1) != labels).sum())
    network.cpu()
    return 100 * wrong / len(data.val)


def guessing(data: images.Images) -> float:
    """Return the error in % on validation images of whoever always says the class that is commonest among them."""
    return 100 - 100 * int(data.val.labels.bincount().max()) / len(data.val)


def changed(about: Mapping[str, Any], network: Network, *, device: str = "cpu") -> str:
    """Score an imported teacher again; say in what it differs from its description, "" if in nothing."""
    declared = registry.load_task(str(about["task"]))
    assert isinstance(declared, ImageTask)
    data = images.load(declared)
    if data.checksum != about["data"]:
        return f"the data of '{declared.name}' are others than when it was imported"
    now = error(network, data, device)
    return "" if now == about["val_error"] else f"val_error: {about['val_error']} before, {now} now"
