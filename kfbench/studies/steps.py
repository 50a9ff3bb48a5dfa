"""What `kfbench study` and `kfbench search` do, step by step."""

import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.running import equal_cost, estimate, records, teacher_names
from kfbench.spec import RunSpec, Setting
from kfbench.studies import definition, missing, picks, plan, promises, search, trials
from kfbench.studies.definition import Study
from kfbench.studies.driver import drive
from kfbench.studies.place import Place
from kfbench.studies.plan import Planned
from kfbench.studies.search import Search
from kfbench.studies.trials import Job, name_of
from kfbench.tasks import IMAGES

# an H100, not measured: a tenth of its 989 TFLOP/s in dense bf16, two operations a multiply-add; and what it takes to
# launch the kernels of a step, which decides for small networks
GPU, LAUNCH = 5e13, 0.003
PATIENCE = 60.0  # seconds in which a dry run times what has no recorded like


def full(folder: Path, place: Place, *, row: str | None, column: str | None, console: Console) -> int:
    """Tune if the study says so and run what is missing; return how many runs failed."""
    say = _speaker(console)
    study = definition.load(folder)
    definition.require(study, row=row, column=column)
    picked = picks.settle(folder, study, results=place.results, say=say)
    tuned = tune_all(folder, study, place, picked, row=row, console=console) if study.search is not None else {}
    cells = plan.make(study, tuned, picked)
    plan.write(folder, study, cells)
    promises.require(study, cells)
    runs = missing.wanted(study, cells, row=row, column=column)
    left = missing.missing(runs, place.results)
    for cell in cells:
        if cell.spec is None:
            say(f"{cell.row} on {cell.column}: n/a, because {cell.reason}")
    say(f"{len(runs)} runs, {len(runs) - len(left)} recorded already, {len(left)} to make")
    bad = _make(left, place, name=study.name, console=console) if left else {}
    now = definition.load(folder)
    if now != study:
        say("study.toml was changed meanwhile; the report will follow it, another run makes what it adds")
        picked = picks.settle(folder, now, results=place.results, say=say)
        cells = plan.make(now, plan.tuned(folder), picked)
        plan.write(folder, now, cells)
    if now.rank:
        promises.settle(folder, cells, results=place.results, say=say)
    return len(bad.keys() & {job.name for job in left})


def _speaker(console: Console) -> Callable[[str], None]:
    """Return what prints a line whole: not wrapped on a pipe, brackets not read as markup."""
    return functools.partial(console.print, markup=False, soft_wrap=True)


def _make(jobs: list[Job], place: Place, *, name: str, console: Console) -> dict[str, str]:
    with trials.storage(place.url) as storage:
        grid = trials.Grid(storage, place.queue(name), jobs)
        teachers = missing.missing_teachers([job.spec for job in jobs], place.results)
        return drive(grid, teachers, place, name=name, console=console)


def dry(folder: Path, *, results: Path, row: str | None, column: str | None, console: Console) -> None:
    """Write the plan; list missing runs and teachers with what they are expected to take here on one thread."""
    torch.set_num_threads(1)  # as runs have
    say = _speaker(console)
    study = definition.load(folder)
    definition.require(study, row=row, column=column)
    picked = picks.settle(folder, study, results=results, say=say)
    cells = plan.make(study, plan.tuned(folder), picked)
    plan.write(folder, study, cells)
    promises.require(study, cells)
    runs = missing.wanted(study, cells, row=row, column=column)
    left = {job.name for job in missing.missing(runs, results)}
    known, until = _known_seconds(results), time.monotonic() + PATIENCE
    total, unknown = 0.0, 0
    students = [spec for _, spec in runs if name_of(spec) in left]
    searches = _to_search(_searches(study, picked), plan.chosen(folder), row=row)
    tried = [asked.spec for asked in searches.values() for _ in range(asked.trials * asked.seeds_per_trial)]
    teachers = missing.missing_teachers([*students, *tried], results)
    for job in teachers:
        seconds = _seconds(job.spec, known, until)
        total, unknown = total + (seconds or 0.0), unknown + (seconds is None)
        say(f"{job.label}: {_spoken(seconds)}")
    for label, asked in searches.items():
        seconds, count = _seconds(asked.spec, known, until), asked.trials * asked.seeds_per_trial
        total, unknown = total + (seconds or 0.0) * count, unknown + (seconds is None) * count
        seeds = f" of {asked.seeds_per_trial} seeds" if asked.seeds_per_trial > 1 else ""
        say(f"search {label}: {asked.trials} trials{seeds}, less those made already: {_spoken(seconds)} a run")
    for cell in cells:
        own = [spec for planned, spec in runs if planned is cell and name_of(spec) in left]
        if cell.spec is None and row in (None, cell.row) and column in (None, cell.column):
            say(f"{cell.row} · {cell.column}: n/a, because {cell.reason}")
        if own:
            seconds = _seconds(own[0], known, until)
            total, unknown = total + (seconds or 0.0) * len(own), unknown + (seconds is None) * len(own)
            seeds = ", ".join(str(spec.seed) for spec in own)
            text = f"{cell.row} · {cell.column}: seeds {seeds}: {_spoken(seconds)} a run"
            say(text)
    beside = f", {unknown} of them and of their teachers not counted" if total and unknown else ""
    told = f"{len(runs)} runs, {len(left)} to make" + (f", {len(tried)} of searches" if tried else "")
    if not left and not tried:
        say(told)
    else:
        say(f"{told}: {_spoken(total or None)} for one job here{beside}")
        say(_work([*(job.spec for job in teachers), *tried, *students]))


def _work(specs: list[RunSpec]) -> str:
    """Say how much the networks of all runs have to multiply, and what a GPU takes at best where that decides."""
    costs: dict[int, int] = {}
    for index, spec in enumerate(specs):
        with contextlib.suppress(KfbenchError):
            costs[index] = equal_cost.run_cost(spec)
    work, lacking = sum(costs.values()) / 1e15, len(specs) - len(costs)
    told = f"{f'{work:,.2f}' if work >= 0.01 else 'less than 0.01'} · 10¹⁵ multiply-adds in the networks' passes"
    told += f", {lacking} run{'s' if lacking != 1 else ''} not counted" if lacking else ""
    if all(registry.kind_of(spec.task) is IMAGES for spec in specs):
        seconds = sum(max(cost / GPU, equal_cost.steps(specs[index]) * LAUNCH) for index, cost in costs.items())
        told += f"; an H100 takes {estimate.spoken(seconds)} or more, one run after another"
    return told


def _known_seconds(results: Path) -> dict[tuple[str, str, str], float]:
    """Return what recorded runs took, by method, task and recipe."""
    seconds: dict[tuple[str, str, str], float] = {}
    for folder in (results, results / "teachers"):
        for record in records.records(folder) if folder.is_dir() else ():
            if record.status == "done" and "seconds" in record.cost:
                seconds[_kind(record.spec)] = record.cost["seconds"]
    return seconds


def _kind(spec: Mapping[str, Any]) -> tuple[str, str, str]:
    return spec["method"], spec["task"], json.dumps(spec["recipe"], sort_keys=True)


def _alike(spec: RunSpec) -> tuple[str, str, str]:
    """Return what runs on other tasks have in common that take about as long."""
    method, _, recipe = _kind(spec.to_json())
    networks = [teacher_names.read(name, budget=spec.budget).network or name for name in spec.teachers]
    return method, f"like {','.join(networks)}", recipe


def _seconds(spec: RunSpec, known: dict[tuple[str, str, str], float], until: float) -> float | None:
    """Return what a run will take: what its like took, else measured over a few steps before the clock says `until`.

    What is measured serves the same method on other tasks too. None if it cannot be had.
    """
    for kind in (_kind(spec.to_json()), _alike(spec)):
        if kind in known:
            return known[kind]
    if time.monotonic() < until:
        with contextlib.suppress(KfbenchError):
            known[_alike(spec)] = estimate.seconds(spec, tried=2)
    return known.get(_alike(spec))


def _spoken(seconds: float | None) -> str:
    return "time unknown" if seconds is None else f"about {estimate.spoken(seconds)}"


def tune_all(
    folder: Path,
    study: Study,
    place: Place,
    picked: dict[str, dict[str, Any]],
    *,
    row: str | None = None,
    console: Console,
) -> dict[str, dict[str, Setting]]:
    """Search every row that has a space, or one, with the same number of trials; keep what was chosen in tuned.json.

    What that file has of the same search is not searched again, whether its trials are in the database or not.
    """
    assert study.search is not None
    every, there = _searches(study, picked), plan.chosen(folder)
    chosen = {label: there[label] for label in every if label in there}
    if chosen != there:
        plan.write_chosen(folder, chosen)
    for label, asked in _to_search(every, there, row=row).items():
        with _search(asked, place, console=console) as found:
            best = search.best(found)
            chosen[label] = {
                "settings": dict(best.params),
                "validation": best.value,
                "started": search.started(found, asked.spec),
                "trials": asked.trials,
                "column": study.search.column or study.tasks[0].label,
                "search": asked.name,
            }
        plan.write_chosen(folder, {label: chosen[label] for label in every if label in chosen})
    return plan.tuned(folder)


def _to_search(
    every: Mapping[str, Search], kept: Mapping[str, Mapping[str, Any]], *, row: str | None
) -> dict[str, Search]:
    """Return the searches, all or one row's, whose choice is not kept, or is one of fewer trials."""
    return {
        label: asked
        for label, asked in every.items()
        if row in (None, label)
        and (kept.get(label, {}).get("search") != asked.name or kept[label]["trials"] < asked.trials)
    }


def _searches(study: Study, picked: dict[str, dict[str, Any]]) -> dict[str, Search]:
    """Return what a study searches, by row: its runs with untuned settings, where the method has a space."""
    if study.search is None:
        return {}
    column, methods = study.search.column or study.tasks[0].label, {row.label: row.method for row in study.methods}
    return {
        cell.row: Search(cell.spec, study.search.trials, study.search.seeds_per_trial)
        for cell in plan.make(study, {}, picked)
        if cell.column == column and cell.spec is not None and search.has_space(methods[cell.row])
    }


@contextlib.contextmanager
def _search(asked: Search, place: Place, *, console: Console) -> Iterator[Any]:
    """Make a search's trials, and give its Optuna study while the database is open."""
    with trials.storage(place.url) as storage:
        source = search.Trials(storage, asked)
        if source.total:
            _speaker(console)(f"searching {asked.spec.method} on {asked.spec.task}: {asked.trials} trials")
            teachers = missing.missing_teachers([asked.spec], place.results)
            drive(source, teachers, place, name=asked.name, console=console)
        yield source.study


def tune(asked: Search, place: Place, *, seeds: list[int], console: Console) -> tuple[str, int]:
    """Search, run the best settings on fresh seeds; return what was found in a few lines, and how many runs failed."""
    search.space(asked.spec.method)
    with _search(asked, place, console=console) as found:
        trial = search.best(found)
    lines = [f"{asked.spec.method} on {asked.spec.task}: best of {asked.trials} trials, trial {trial.number}"]
    lines += [f"  {name} = {value}" for name, value in trial.params.items()]
    lines.append(f"  validation  {trial.value:.2f} (accuracy in %, or return)")
    runs = [
        (Planned("best settings", asked.spec.task, spec), spec) for spec in search.fresh(asked, trial.params, seeds)
    ]
    left = missing.missing(runs, place.results)
    bad = _make(left, place, name=f"{asked.name}-fresh", console=console) if left else {}
    done = missing.recorded(place.results)
    for record in (records.read(done[name_of(spec)]) for _, spec in runs if name_of(spec) in done):
        scores = ", ".join(f"{name} {value:.2f}" for name, value in record.scores["last"].items())
        lines.append(f"  seed {record.spec['seed']}: {scores}  [{record.key}]")
    lines += [f"  seed {job.spec.seed}: not made: {bad[job.name]}" for job in left if job.name in bad]
    lines.append(f"  study       {asked.name} in {trials.public(place.url)}; see it with optuna-dashboard")
    return "\n".join(lines), len(bad.keys() & {job.name for job in left})
