"""What `kfbench study` and `kfbench search` do, step by step."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from kfbench.errors import KfbenchError, near
from kfbench.running import estimate, records
from kfbench.spec import RunSpec, Setting
from kfbench.studies import definition, missing, picks, plan, promises, search, trials
from kfbench.studies.definition import Study
from kfbench.studies.driver import drive
from kfbench.studies.place import Place
from kfbench.studies.plan import Planned
from kfbench.studies.search import Search
from kfbench.studies.trials import Job, name_of

PATIENCE = 60.0  # seconds in which a dry run times what has no recorded like


def full(folder: Path, place: Place, *, row: str | None, column: str | None, console: Console) -> int:
    """Tune if the study says so and run what is missing; return how many runs failed."""
    study = definition.load(folder)
    _known(study, row, column)
    picked = picks.settle(folder, study, results=place.results, say=console.print)
    tuned = tune_all(folder, study, place, picked, console=console) if study.search is not None else {}
    cells = plan.make(study, tuned, picked)
    plan.write(folder, study, cells)
    promises.require(study, cells)
    runs = missing.wanted(study, cells, row=row, column=column)
    left = missing.missing(runs, place.results)
    for cell in cells:
        if cell.spec is None:
            console.print(f"{cell.row} on {cell.column}: n/a, because {cell.reason}", soft_wrap=True)
    console.print(f"{len(runs)} runs, {len(runs) - len(left)} recorded already, {len(left)} to make")
    bad = _make(left, place, name=study.name, console=console) if left else {}
    now = definition.load(folder)
    if now != study:
        console.print("study.toml was changed meanwhile; the report will follow it, another run makes what it adds")
        picked = picks.settle(folder, now, results=place.results, say=console.print)
        cells = plan.make(now, plan.tuned(folder), picked)
        plan.write(folder, now, cells)
    if now.rank:
        promises.settle(folder, cells, results=place.results, say=console.print)
    return len(bad.keys() & {job.name for job in left})


def _make(jobs: list[Job], place: Place, *, name: str, console: Console) -> dict[str, str]:
    grid = trials.Grid(trials.open_storage(place.url), name, jobs)
    teachers = missing.missing_teachers([job.spec for job in jobs], place.results)
    return drive(grid, teachers, place, name=name, console=console)


def _known(study: Study, row: str | None, column: str | None) -> None:
    for word, asked, there in (
        ("row", row, [r.label for r in study.methods]),
        ("column", column, [c.label for c in study.tasks]),
    ):
        if asked is not None and asked not in there:
            raise KfbenchError(f"study '{study.name}' has no {word} '{asked}'; {near(asked, there)}")


def dry(folder: Path, *, results: Path, row: str | None, column: str | None, console: Console) -> None:
    """Write the plan; list missing runs and teachers with what they are expected to take here on one thread."""
    torch.set_num_threads(1)  # as runs have
    study = definition.load(folder)
    _known(study, row, column)
    picked = picks.settle(folder, study, results=results, say=console.print)
    cells = plan.make(study, plan.tuned(folder), picked)
    plan.write(folder, study, cells)
    promises.require(study, cells)
    runs = missing.wanted(study, cells, row=row, column=column)
    left = {job.name for job in missing.missing(runs, results)}
    known, until = _known_seconds(results), time.monotonic() + PATIENCE
    total, unknown = 0.0, 0
    for job in missing.missing_teachers([spec for _, spec in runs if name_of(spec) in left], results):
        seconds = _seconds(job.spec, known, until)
        total, unknown = total + (seconds or 0.0), unknown + (seconds is None)
        console.print(f"{job.label}: {_spoken(seconds)}", soft_wrap=True, markup=False)
    for cell in cells:
        own = [spec for planned, spec in runs if planned is cell and name_of(spec) in left]
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
    seconds: dict[tuple[str, str, str], float] = {}
    for folder in (results, results / "teachers"):
        for record in records.records(folder) if folder.is_dir() else ():
            if record.status == "done" and "seconds" in record.cost:
                seconds[_kind(record.run_spec())] = record.cost["seconds"]
    return seconds


def _kind(spec: RunSpec) -> tuple[str, str, str]:
    return spec.method, spec.task, json.dumps(spec.to_json()["recipe"], sort_keys=True)


def _seconds(spec: RunSpec, known: dict[tuple[str, str, str], float], until: float) -> float | None:
    """Return what a run will take: what its like took, else measured over a few steps before the clock says `until`.

    None if that cannot be had.
    """
    if _kind(spec) not in known and time.monotonic() < until:
        try:
            known[_kind(spec)] = estimate.seconds(spec, tried=2)
        except KfbenchError:
            return None
    return known.get(_kind(spec))


def _spoken(seconds: float | None) -> str:
    return "time unknown" if seconds is None else f"about {estimate.spoken(seconds)}"


def tune_all(
    folder: Path, study: Study, place: Place, picked: dict[str, dict[str, Any]], *, console: Console
) -> dict[str, dict[str, Setting]]:
    """Search every row that has a space, with the same number of trials, and keep what was chosen in tuned.json."""
    assert study.search is not None
    column = study.search.column or study.tasks[0].label
    untuned = {(cell.row, cell.column): cell.spec for cell in plan.make(study, {}, picked)}
    chosen: dict[str, dict[str, Any]] = {}
    for row in study.methods:
        spec = untuned.get((row.label, column))
        if spec is None or not search.has_space(row.method):
            continue
        asked = Search(spec, study.search.trials, study.search.seeds_per_trial)
        optuna_study = _search(asked, place, console=console)
        best = search.best(optuna_study)
        chosen[row.label] = {
            "settings": dict(best.params),
            "validation": best.value,
            "started": search.started(optuna_study, spec),
            "trials": asked.trials,
            "column": column,
        }
        plan.write_chosen(folder, chosen)
    return plan.tuned(folder)


def _search(asked: Search, place: Place, *, console: Console) -> Any:
    """Make a search's trials, and return its Optuna study."""
    source = search.Trials(trials.open_storage(place.url), asked)
    if source.total:
        console.print(f"searching {asked.spec.method} on {asked.spec.task}: {asked.trials} trials", soft_wrap=True)
        drive(source, missing.missing_teachers([asked.spec], place.results), place, name=asked.name, console=console)
    return source.study


def tune(asked: Search, place: Place, *, seeds: list[int], console: Console) -> str:
    """Search, run the best settings on fresh seeds, and return what was found in a few lines."""
    search.space(asked.spec.method)
    trial = search.best(_search(asked, place, console=console))
    lines = [f"{asked.spec.method} on {asked.spec.task}: best of {asked.trials} trials, trial {trial.number}"]
    lines += [f"  {name} = {value}" for name, value in trial.params.items()]
    lines.append(f"  validation  {trial.value:.2f} (accuracy in %, or return)")
    runs = [
        (Planned("best settings", asked.spec.task, spec), spec) for spec in search.fresh(asked, trial.params, seeds)
    ]
    left = missing.missing(runs, place.results)
    if left:
        _make(left, place, name=f"{asked.name}-fresh", console=console)
    done = missing.recorded(place.results)
    for record in (records.read(done[name_of(spec)]) for _, spec in runs if name_of(spec) in done):
        scores = ", ".join(f"{name} {value:.2f}" for name, value in record.scores["last"].items())
        lines.append(f"  seed {record.spec['seed']}: {scores}  [{record.key}]")
    lines.append(f"  study       {asked.name} in {trials.public(place.url)}; see it with optuna-dashboard")
    return "\n".join(lines)
