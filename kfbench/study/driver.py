"""What `kfbench study` and `kfbench search` do, step by step."""

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from kfbench import registry
from kfbench.errors import KfbenchError, near
from kfbench.run import records
from kfbench.run.device import torch_device
from kfbench.spec import RunSpec, Setting
from kfbench.study import definition, plan, queue, runner, search, trials, worker
from kfbench.study.definition import Study
from kfbench.study.plan import Planned
from kfbench.study.runner import Place
from kfbench.study.search import Search

PATIENCE = 60.0  # seconds in which a dry run times what has no recorded like


def full(folder: Path, place: Place, *, row: str | None, column: str | None, console: Console) -> int:
    """Tune if the study says so and run what is missing; return how many runs failed."""
    torch_device(place.device)
    made = definition.load(folder)
    _known(made, row, column)
    tuned = tune_all(folder, made, place, console=console) if made.search is not None else {}
    cells = plan.make(made, tuned)
    plan.write(folder, made, cells)
    runs = runner.wanted(made, cells, row=row, column=column)
    left = runner.missing(runs, place.results)
    storage = runner.open_storage(place)
    there = {*storage_names(storage)}
    if made.name in there:  # records that workers elsewhere have made since
        brought = worker.collect(queue.load(storage, made.name), place.results)
        left = runner.missing(runs, place.results) if brought else left
    for cell in cells:
        if cell.spec is None:
            console.print(f"{cell.row} on {cell.column}: n/a, because {cell.reason}", soft_wrap=True)
    console.print(f"{len(runs)} runs, {len(runs) - len(left)} recorded already, {len(left)} to make")
    bad = {}
    if left:
        ended = runner.run(
            made.name, runner.fill(storage, made.name, left, results=place.results), place, console=console
        )
        names = {trials.name_of(spec) for _, spec in left}
        bad = {key: t for key, t in ended.items() if key.partition(".")[0] in names and t.user_attrs.get("outcome")}
        for trial in bad.values():
            label, why = trial.user_attrs.get("label"), trial.user_attrs.get("why", "its workers died")
            console.print(f"{label}: {trial.user_attrs['outcome']}: {why}", soft_wrap=True, markup=False)
    now = definition.load(folder)
    if now != made:
        console.print("study.toml was changed meanwhile; the report will follow it, another run makes what it adds")
        plan.write(folder, now, plan.make(now, plan.tuned(folder)))
    return len(bad)


def storage_names(storage: Any) -> list[str]:
    """Return the names of all studies in a storage."""
    import optuna

    return optuna.get_all_study_names(storage)


def _known(made: Study, row: str | None, column: str | None) -> None:
    for word, asked, there in (
        ("row", row, [r.label for r in made.methods]),
        ("column", column, [c.label for c in made.tasks]),
    ):
        if asked is not None and asked not in there:
            raise KfbenchError(f"study '{made.name}' has no {word} '{asked}'; {near(asked, there)}")


def dry(folder: Path, *, results: Path, row: str | None, column: str | None, console: Console) -> None:
    """Write the plan; list missing runs and teachers with what they are expected to take here on one thread."""
    import torch

    torch.set_num_threads(1)  # as the workers do
    made = definition.load(folder)
    _known(made, row, column)
    cells = plan.make(made, plan.tuned(folder))
    plan.write(folder, made, cells)
    runs = runner.wanted(made, cells, row=row, column=column)
    left = runner.missing(runs, results)
    known, until = _known_seconds(results), time.monotonic() + PATIENCE
    total, unknown = 0.0, 0
    for job in runner.teacher_jobs([spec for _, spec in left], results):
        seconds = _seconds(registry.read_spec(job.attrs["spec"]), known, until)
        total, unknown = total + (seconds or 0.0), unknown + (seconds is None)
        console.print(f"{job.attrs['label']}: {_spoken(seconds)}", soft_wrap=True, markup=False)
    for cell in cells:
        own = [spec for planned, spec in left if planned is cell]
        if cell.spec is None and row in (None, cell.row) and column in (None, cell.column):
            console.print(f"{cell.row} · {cell.column}: n/a, because {cell.reason}", soft_wrap=True, markup=False)
        if own:
            seconds = _seconds(own[0], known, until)
            total, unknown = total + (seconds or 0.0) * len(own), unknown + (seconds is None) * len(own)
            seeds = ", ".join(str(spec.seed) for spec in own)
            text = f"{cell.row} · {cell.column}: seeds {seeds}: {_spoken(seconds)} a run"
            console.print(text, soft_wrap=True, markup=False)
    beside = f", {unknown} of them and of their teachers not counted" if total and unknown else ""
    console.print(f"{len(runs)} runs, {len(left)} to make: {_spoken(total or None)} for one job here{beside}")


def _known_seconds(results: Path) -> dict[tuple[str, str, str], float]:
    """Return what recorded runs took, by method, task and recipe."""
    found: dict[tuple[str, str, str], float] = {}
    for folder in (results, results / "teachers"):
        for record in records.records(folder) if folder.is_dir() else ():
            if record.status == "done" and "seconds" in record.cost:
                found[_kind(record.run_spec())] = record.cost["seconds"]
    return found


def _kind(spec: RunSpec) -> tuple[str, str, str]:
    return spec.method, spec.task, json.dumps(spec.to_json()["recipe"], sort_keys=True)


def _seconds(spec: RunSpec, known: dict[tuple[str, str, str], float], until: float) -> float | None:
    """Return what a run will take: what its like took, else measured over a few steps before the clock says `until`.

    None if that cannot be had.
    """
    from kfbench.run import estimate

    if _kind(spec) not in known and time.monotonic() < until:
        try:
            known[_kind(spec)] = estimate.seconds(spec, tried=2)
        except KfbenchError:
            return None
    return known.get(_kind(spec))


def _spoken(seconds: float | None) -> str:
    from kfbench.run import estimate

    return "time unknown" if seconds is None else f"about {estimate.spoken(seconds)}"


def tune_all(folder: Path, made: Study, place: Place, *, console: Console) -> dict[str, dict[str, Setting]]:
    """Search every row that has a space, with the same number of trials, and keep what was chosen in tuned.json."""
    assert made.search is not None
    column = made.search.column or made.tasks[0].label
    untuned = {(cell.row, cell.column): cell.spec for cell in plan.make(made, {})}
    chosen: dict[str, dict[str, Any]] = {}
    for row in made.methods:
        spec = untuned.get((row.label, column))
        if spec is None or not search.has_space(row.method):
            continue
        asked = Search(spec, made.search.trials, made.search.seeds_per_trial)
        trials, best = _search(asked, place, console=console)
        chosen[row.label] = {
            "settings": search.settings(best),
            "validation": best.value,
            "started": search.started(trials, spec),
            "trials": asked.trials,
            "column": column,
        }
        plan.write_chosen(folder, chosen)
    return plan.tuned(folder)


def _search(asked: Search, place: Place, *, console: Console) -> tuple[Any, Any]:
    """Make a search's trials, and return its Optuna study and the best trial."""
    storage = runner.open_storage(place)
    made = search.fill(storage, asked)
    jobs = runner.teacher_jobs([asked.spec], place.results)
    studies = [*runner.teacher_queue(storage, made.study_name, jobs), made]
    if any(state in queue.OPEN for each in studies for state in queue.states(each).values()):
        console.print(f"searching {asked.spec.method} on {asked.spec.task}: {asked.trials} trials", soft_wrap=True)
        runner.run(made.study_name, studies, place, console=console)
    return made, search.best(made)


def tune(asked: Search, place: Place, *, seeds: list[int], console: Console) -> str:
    """Search, run the best settings on fresh seeds, and return what was found in a few lines."""
    torch_device(place.device)
    if not search.has_space(asked.spec.method):
        search.space(asked.spec.method)
    _, trial = _search(asked, place, console=console)
    lines = [f"{asked.spec.method} on {asked.spec.task}: best of {asked.trials} trials, trial {trial.number}"]
    lines += [f"  {name} = {value}" for name, value in trial.params.items()]
    lines.append(f"  validation  {trial.value:.2f} (accuracy in %, or return)")
    specs = search.fresh(asked, search.settings(trial), seeds)
    cells = [(Planned("best settings", asked.spec.task, spec), spec) for spec in specs]
    left = runner.missing(cells, place.results)
    if left:
        name = f"{asked.name}-fresh"
        studies = runner.fill(runner.open_storage(place), name, left, results=place.results)
        runner.run(name, studies, place, console=console)
    wanted = {trials.name_of(spec) for spec in specs}
    for record in records.records(place.results):
        if trials.name_of(record.run_spec()) in wanted and record.status == "done":
            scores = ", ".join(f"{name} {value:.2f}" for name, value in record.scores["last"].items())
            lines.append(f"  seed {record.spec['seed']}: {scores}  [{record.key}]")
    where = place.storage.rpartition("@")[2] if "@" in place.storage else place.storage
    lines.append(f"  study       {asked.name} in {where}; see it with optuna-dashboard")
    return "\n".join(lines)
