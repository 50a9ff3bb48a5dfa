"""The library: what the commands do, as functions for scripts and notebooks. `import kfbench` offers them, lazily.

Arguments are the commands' options; strings and paths are both taken. Errors are `kfbench.KfbenchError`, one line with
its remedy. Nothing here prints but progress, to standard error, and in a notebook as a bar.
"""

import functools
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from kfbench.errors import KfbenchError
from kfbench.studies.place import CHECKPOINT_MB

if TYPE_CHECKING:
    import pandas

    from kfbench.networks.network import Network
    from kfbench.reporting.page import Page
    from kfbench.running.records import RunRecord
    from kfbench.spec import Setting

Folder = str | Path
P = ParamSpec("P")
R = TypeVar("R")
TURN = threading.RLock()


def _in_turn(call: Callable[P, R]) -> Callable[P, R]:
    """Let one thread at a time make a call: torch's settings are the process's, as is how many threads MKL takes."""

    @functools.wraps(call)
    def waited(*args: P.args, **named: P.kwargs) -> R:
        with TURN:
            return call(*args, **named)

    return waited


@_in_turn
def run(
    method: str,
    task: str,
    *,
    teachers: str | Sequence[str] | None = None,
    budget: str = "small",
    seed: int = 0,
    settings: "Mapping[str, Setting] | None" = None,
    recipe: Mapping[str, Any] | None = None,
    results: Folder = "results",
    device: str = "cpu",
    threads: int | None = None,
    compile: bool = False,
    memory: bool = True,
    force: bool = False,
    checkpoint_seconds: float = 60.0,
    log: str | Sequence[str] = (),
    progress: bool = True,
    **fields: Any,
) -> "RunRecord":
    """Run one method on one task, as `kfbench run` does, and return its record: the recorded one if there is one.

    `teachers` are names as on the command line, by commas or as a sequence, "best:3" for those that promise most (see
    `kfbench/ranking/best.py`); None: the method's defaults. `settings` are the method's, `recipe` fields of the
    training recipe; the recipe's fields may also be given by name: `epochs=3, train_size="all"`. `threads` is the
    number of CPU threads (None: torch's own, and one in games); `device` is cpu, cuda, cuda:N, mps or auto. `compile`
    has torch compile the student; `memory` keeps what teachers say of an image where the recipe has fixed `views`.
    `force` runs again what is recorded. A run that is stopped goes on from its last checkpoint, of which there is one
    every `checkpoint_seconds`. `log` names where curves go as they come: "tensorboard", "wandb", "trackio". `progress`
    shows a bar, and news above it.

    Raises KfbenchError for anything that cannot work, before anything is trained; Diverged after a failed run.
    """
    import dataclasses
    import sys
    from functools import partial

    _require(str, "a name", method=method, task=task, budget=budget, device=device)
    _require((Mapping, NoneType), "names with their values, as {'epochs': 3}", settings=settings, recipe=recipe)
    _require((Integral, NoneType), "a whole number", threads=threads)
    _require(Real, "a number of seconds", checkpoint_seconds=checkpoint_seconds)
    _require(bool, "True or False", compile=compile, memory=memory, force=force, progress=progress)
    if twice := sorted(fields.keys() & (recipe or {}).keys()):
        raise KfbenchError(f"'{twice[0]}' is given by its name and in recipe; leave one out")
    from kfbench import registry
    from kfbench.ranking.names import is_asked
    from kfbench.running import curve_logs, execute, resolve, teacher_names, teacher_store
    from kfbench.running.announce import announce
    from kfbench.running.device import set_threads, torch_device
    from kfbench.running.progress import Bar
    from kfbench.train.loop import Watcher

    folder, names = _path(results), None if teachers is None else teacher_names.listed(teachers)
    known = {field.name for field in dataclasses.fields(registry.kind_of(task).recipe)}
    for name in fields.keys() - known:
        if name in {field.name for field in dataclasses.fields(registry.method_class(method))}:
            raise KfbenchError(f"'{name}' is a setting of method '{method}': settings={{'{name}': {fields[name]!r}}}")
    recipe = {**(recipe or {}), **fields}
    set_threads(threads, registry.kind_of(task))
    told = None
    if names is not None:
        names = [teacher_store.whole(name, folder) for name in names]
    if is_asked(names):
        from kfbench.ranking import best  # scipy

        names, told = best.choose(
            names,
            resolve.student_of(method, task, budget=budget, recipe=recipe, settings=settings),
            budget=budget,
            results=folder,
            device=device,
            say=partial(print, file=sys.stderr) if progress else lambda line: None,
        )
    spec = resolve.resolve(
        method,
        task,
        budget=budget,
        teachers=names,
        seed=seed,
        recipe=recipe,
        settings=settings,
    )
    device = str(torch_device(device))
    shown = Bar() if progress else Watcher()
    watcher = curve_logs.logging(_several(log, "log") or (), results=folder, then=shown)
    execute.check_room(folder)
    if progress:
        announce(spec, results=folder, device=device, say=shown.say, force=force)
    return execute.run(
        spec,
        results=folder,
        device=device,
        force=force,
        compiled=compile,
        remember=memory,
        checkpoint_seconds=checkpoint_seconds,
        watcher=watcher,
        chosen=told,
    )


def runs(results: Folder = "results", *, teachers: bool = False) -> "pandas.DataFrame":
    """Return one row a recorded run, settings and scores flat; see `kfbench/reporting/frames.py` for the columns."""
    from kfbench.reporting import frames

    return frames.runs(_there(results), teachers=teachers)


def curves(
    results: Folder = "results", *, keys: str | Iterable[str] | None = None, metrics: str | Iterable[str] | None = None
) -> "pandas.DataFrame":
    """Return learning curves as a long frame for seaborn: a row a run, point and metric.

    `keys` picks runs, by the beginnings of their keys; `metrics` picks metrics, such as "val_error". Raises
    KfbenchError for a key that fits no run, or several, and for a metric that no curve has.
    """
    from kfbench.reporting import frames

    return frames.curves(_there(results), keys=_several(keys, "keys"), metrics=_several(metrics, "metrics"))


def load(key: str, *, results: Folder = "results") -> "Network":
    """Return the network that a run kept, or a teacher's, in evaluation mode: images [B, C, H, W] in 0..1 to an Output.

    `key` is how the run's begins, or a teacher as a run names it: `cifar100/cnn-16@small` of the store, `run:KEY`,
    `imported:NAME`, `file:PATH`, `hf:ORG/NAME` for one that was pushed, `random:TASK`. `Output.logits` is [B, K];
    `.value` [B] in games, else None. Raises KfbenchError if there is no such run or teacher, or its weights are gone.
    """
    _require(str, "how a run's key begins", key=key)
    from kfbench.running import teacher_store

    return teacher_store.alone(key, _path(results)).network.requires_grad_(True)  # to train on with, if one likes


def predict(
    key: str,
    paths: Folder | Sequence[Folder],
    *,
    resized: str = "",
    probabilities: bool = False,
    results: Folder = "results",
    device: str = "cpu",
    progress: bool = True,
) -> "pandas.DataFrame":
    """Return what a kept network says of images, an image a row: file, class, probability.

    `key` is as `load` takes it. `paths` are images, or folders and zip or tar archives of them. `resized` says how
    images of another size come to the network's: "stretched", or "cropped", of which the middle stays; "": as the data
    were on which it was trained, cropped where that is not known. `probabilities` adds a column p(CLASS) a class.

    Images that cannot be read are warned of, have no row, and are in `frame.attrs["unreadable"]`. Raises KfbenchError
    if there is no such network, it is none for images, or no image can be read.
    """
    import sys
    import warnings

    _require(str, "how a run's key begins", key=key)
    _require(str, "a name", device=device)
    _require(bool, "True or False", probabilities=probabilities, progress=progress)
    if resized not in ("", "stretched", "cropped"):
        raise KfbenchError(f"resized cannot be {resized!r}; give 'stretched' or 'cropped'")
    import pandas

    from kfbench.errors import KfbenchWarning
    from kfbench.running import predict as predicting

    several = [paths] if isinstance(paths, str | os.PathLike) or not isinstance(paths, Sequence) else [*paths]
    if not several or not all(isinstance(each, str | os.PathLike) for each in several):
        raise KfbenchError(f"paths cannot be {_brief(paths)}; give the paths of images, or folders or archives of them")
    folders = [_path(path) for path in several]
    found = predicting.predict(key, folders, results=_path(results), resized=resized, device=device, quiet=not progress)
    for line in found.notes() if progress else ():
        print(f"note: {line}", file=sys.stderr)
    for line in found.faults:
        warnings.warn(line, KfbenchWarning, stacklevel=2)
    frame = pandas.DataFrame(found.rows(whole=probabilities))
    frame.attrs["unreadable"] = found.faults
    return frame


@_in_turn
def rank(
    task: str,
    teachers: str | Sequence[str] | None = None,
    *,
    train_size: int | str | None = None,
    by: str = "logme",
    budget: str = "small",
    results: Folder = "results",
    device: str = "cpu",
    threads: int | None = None,
    progress: bool = True,
) -> "pandas.DataFrame":
    """Return teachers with what they promise for a task, one a row, the best by the score `by` first; none is trained.

    Columns: teacher, network, trained_on, outputs, dimensions (of its features); logme, leep, nleep, h-score, h-shrunk,
    parc and probe (accuracy in % of a linear classifier on validation images): higher is better; seconds. `teachers`
    None: all in the store that were trained on other images than the task's. Raises KfbenchError for a teacher that is
    not there, or a task that is not of images.
    """
    _require(str, "a name", task=task, by=by, budget=budget, device=device)
    _require((Integral, str, NoneType), "a number of images, or all", train_size=train_size)
    _require((Integral, NoneType), "a whole number", threads=threads)
    import sys
    from functools import partial

    import pandas

    from kfbench import registry
    from kfbench.ranking import ranking, store
    from kfbench.running import resolve, teacher_names
    from kfbench.running.device import set_threads

    folder = _path(results)
    names = None if teachers is None else teacher_names.listed(teachers)
    ranking.require_score(by)
    ranking.require_images(task)
    set_threads(threads, registry.kind_of(task))
    spec = resolve.resolve(
        "scratch", task, budget=budget, recipe={} if train_size is None else {"train_size": train_size}
    )
    say = partial(print, file=sys.stderr) if progress else lambda line: None
    rows = ranking.rank(
        spec,
        store.others(task, folder, say) if names is None else names,
        by=by,
        results=folder,
        device=device,
        say=say,
    )
    return pandas.DataFrame([row.row() for row in rows])


def study(
    folder: Folder,
    *,
    row: str | None = None,
    column: str | None = None,
    on: str = "local",
    jobs: int | None = None,
    gpus_per_run: float = 0.0,
    memory: float = 0.0,
    slurm: Mapping[str, str] | None = None,
    device: str = "",
    threads: int = 1,
    storage: str = "",
    results: Folder = "results",
    checkpoint_seconds: float = 60.0,
    checkpoint_mb: float = CHECKPOINT_MB,
) -> "Page":
    """Run what a study lacks, teachers first, make its report, and return what the index says of it.

    `folder` has the study.toml; `row` and `column` pick by label. `on` is the engine, "local", "ray" or "slurm" (whose
    options `slurm` has), `jobs` how many runs at once; a run gets `threads` CPUs, `gpus_per_run` GPUs, of which it may
    be a part, and `memory` GB. `device` "" is cuda where GPUs are asked for, else cpu. `storage` is Optuna's database,
    as postgresql://…; "": a SQLite file beside the results. There is a checkpoint every `checkpoint_seconds`; one of
    more than `checkpoint_mb` MB stays on its node (ray). `Page.failed` counts runs that failed now: they are records
    too. Started again it goes on. A script that calls this needs `if __name__ == "__main__"`, for runs are processes.

    Raises KfbenchError for a study that is not sound, and for an option that the engine would not heed.
    """
    _require((str, NoneType), "a label", row=row, column=column)
    _require(str, "text", on=on, device=device, storage=storage)
    _require((Integral, NoneType), "a whole number", jobs=jobs)
    _require(Integral, "a whole number", threads=threads)
    numbers = {"gpus_per_run": gpus_per_run, "memory": memory, "checkpoint_mb": checkpoint_mb}
    _require(Real, "a number", **numbers, checkpoint_seconds=checkpoint_seconds)
    _require((Mapping, NoneType), "sbatch's options with their values, as {'partition': 'gpu'}", slurm=slurm)
    import dataclasses

    from rich.console import Console

    from kfbench.studies import steps
    from kfbench.studies.place import Place

    place = Place(
        results=_path(results),
        storage=storage,
        on=on,
        jobs=jobs,
        device=device,
        threads=threads,
        gpus_per_run=gpus_per_run,
        memory=memory,
        checkpoint_seconds=checkpoint_seconds,
        checkpoint_mb=checkpoint_mb,
        slurm=dict(slurm or {}),
    )
    console = Console(stderr=True, highlight=False)
    failed = steps.full(_path(folder), place, row=row, column=column, console=console)
    return dataclasses.replace(report(folder, results=results), failed=failed)


def report(study: Folder, *, results: Folder = "results") -> "Page":
    """Make a study's tables, plots and page from its records, and return what the index says of it.

    `study` is the folder with its study.toml; the index is that of the folder in which it lies. Raises KfbenchError if
    study, plan or a record is not sound, or there is no such folder of records; warns of another study at fault.
    """
    import warnings

    from kfbench.errors import KfbenchWarning
    from kfbench.reporting import page
    from kfbench.running.files import require_folder

    folder, records = _path(study).resolve(), _path(results)
    require_folder(records)
    made = page.make(_path(study), records)

    def say(line: str) -> None:
        warnings.warn(line, KfbenchWarning, stacklevel=2)

    page.index(folder.parent, records, {folder: made}, say)
    return made


def _path(folder: Folder) -> Path:
    """Return a folder that may begin with ~, as a shell would read it."""
    from kfbench.folders import at_home

    if not isinstance(folder, str | os.PathLike):
        raise KfbenchError(f"a folder cannot be {_brief(folder)}; give its path")
    return at_home(str(folder))


def _there(folder: Folder) -> Path:
    """Return a folder of records, as `_path` does. Raises KfbenchError if it is not there, but for the default one."""
    from kfbench.running.files import require_folder

    if (path := _path(folder)) != Path("results"):
        require_folder(path)
    return path


def _brief(value: object) -> str:
    """Return a value as Python writes it, in a part of a line."""
    return f"{' '.join(repr(value).split()):.60}"


def _several(names: str | Iterable[str] | None, what: str) -> list[str] | None:
    """Return one name or several as a list; None if none is given. Raises KfbenchError for what is no name."""
    if names is None:
        return None
    listed = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    if not all(isinstance(name, str) for name in listed):
        raise KfbenchError(f"{what} cannot be {names!r}; give a name, or a list of names")
    return listed


def _require(kind: type | tuple[type, ...], words: str, **given: object) -> None:
    """Raise KfbenchError for an argument that is of another kind than the words say."""
    for name, value in given.items():
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise KfbenchError(f"{name} cannot be {_brief(value)}; give {words}")
