"""What `kfbench study` and `kfbench search` do, step by step."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.running import prepare, records, stand_in
from kfbench.studies import board, definition, locks, missing, picks, plan, promises, search, trials
from kfbench.studies.definition import Study
from kfbench.studies.driver import drive
from kfbench.studies.place import Place
from kfbench.studies.plan import Planned
from kfbench.studies.search import Search
from kfbench.studies.trials import Job, name_of


def full(folder: Path, place: Place, *, row: str | None, column: str | None, console: Console) -> int:
    """Tune if the study says so and run what is missing; return how many runs failed.

    Raises Busy, and writes nothing, if another driver has the study.
    """
    study = definition.load(folder)
    definition.require(study, row=row, column=column)
    with locks.alone(place, study.name):
        return _full(folder, study, place, row=row, column=column, console=console)


def _full(folder: Path, study: Study, place: Place, *, row: str | None, column: str | None, console: Console) -> int:
    say = _speaker(console)
    picked = picks.settle(folder, study, results=place.results, say=say)
    every = searches(study, picked, place.results)
    untuned = tune_all(folder, study, place, every, row=row, console=console)
    done = missing.recorded(place.results)
    waiting = {**unsearched(every, plan.chosen(folder)), **untuned}
    cells = _plan(folder, study, picked, waiting, place, done)
    promises.require(study, cells)
    runs = missing.wanted(study, cells, row=row, column=column)
    left = missing.missing(runs, done)
    for cell in cells:
        if cell.spec is None and row in (None, cell.row) and column in (None, cell.column):
            say(f"{cell.row} on {cell.column}: n/a, because {cell.reason}")
    count = len({name_of(spec) for _, spec in runs})  # two cells may share a run
    unable = refused(left, place.results)
    told = f"{counted(count)}, {count - len(left)} recorded already, {len(left) - len(unable)} to make"
    say(told + (f", {len(unable)} refused" if unable else ""))
    for line in missing.edited(runs, done):
        say(line)
    if not left and row is None and column is None:  # it may have been stopped, and what it lacked made elsewhere
        board.forget(study.name, place.cache)
    bad = _make(left, unable, place, name=study.name, console=console)
    now = definition.load(folder)
    if now != study:
        say("study.toml was changed meanwhile; the report will follow it, another run makes what it adds")
        picked = picks.settle(folder, now, results=place.results, say=say)
        waiting = {**unsearched(searches(now, picked, place.results), plan.chosen(folder)), **untuned}
        cells = _plan(folder, now, picked, waiting, place, missing.recorded(place.results))
    if now.rank:
        promises.settle(folder, cells, results=place.results, say=say)
    return len(bad.keys() & {job.name for job in left}) + len(untuned)


def _plan(
    folder: Path,
    study: Study,
    picked: dict[str, dict[str, Any]],
    waiting: Mapping[str, str],
    place: Place,
    done: Container[str],
) -> list[Planned]:
    """Plan every cell and keep the plan; rows whose search chose nothing, {row: why}, have no runs in it."""
    made = plan.make(study, plan.tuned(folder, study), picked, results=place.results, done=done)
    cells = without(made, waiting)
    plan.write(folder, study, cells)
    return cells


def unsearched(every: Mapping[str, Search], kept: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return {row: why it has no settings yet} of rows whose search has chosen nothing, in as many trials as may be."""
    waiting = [label for label, asked in every.items() if kept.get(label, {}).get("search") != asked.name]
    return dict.fromkeys(waiting, "its search has not been made yet")


def without(cells: list[Planned], rows: Mapping[str, str]) -> list[Planned]:
    """Return a plan in which rows have no runs, for a reason each: records with other settings must not fill them."""
    return [
        dataclasses.replace(cell, spec=None, reason=rows[cell.row]) if cell.spec and cell.row in rows else cell
        for cell in cells
    ]


def counted(runs: int) -> str:
    """Return "1 run", "2 runs"."""
    return f"{runs} run{'' if runs == 1 else 's'}"


def _speaker(console: Console) -> Callable[[str], None]:
    """Return what prints a line whole: not wrapped on a pipe, brackets not read as markup."""
    return functools.partial(console.print, markup=False, soft_wrap=True)


def _make(jobs: list[Job], unable: Mapping[str, str], place: Place, *, name: str, console: Console) -> dict[str, str]:
    """Make the runs that are not refused, {name: why}; return these and those that failed. The caller has the lock."""
    for job in jobs:
        if job.name in unable:
            _speaker(console)(f"{job.label}: refused: {unable[job.name]}")
    able = [job for job in jobs if job.name not in unable]
    if not able:
        return {**unable}
    with trials.storage(place.url) as storage:
        grid = trials.Grid(storage, place.queue(name), able)
        teachers = missing.missing_teachers([job.spec for job in able], place.results)
        return {**unable, **drive(grid, teachers, place, name=name, console=console)}


def refused(jobs: list[Job], results: Path, *, is_plan: bool = False) -> dict[str, str]:
    """Return {name: why} of runs whose teachers that are here as weights cannot be used, before anything is made.

    Of those with others to train, what would be downloaded is had first, unless this `is_plan` alone: none is trained
    for nothing.
    """
    bad, whys = dict[str, str](), dict[tuple[str, ...], str]()  # whys by what is looked for
    for job in jobs:
        wanted = (job.spec.task, job.spec.budget, job.spec.recipe.network, *job.spec.teachers)
        if wanted not in whys:
            whys[wanted] = ""
            trains = prepare.missing_teachers(job.spec, results=results)
            try:
                prepare.require_others(job.spec, results=results, downloads=bool(trains) and not is_plan)
            except KfbenchError as error:
                whys[wanted] = str(error)
        if whys[wanted]:
            bad[job.name] = whys[wanted]
    return bad


def tune_all(
    folder: Path,
    study: Study,
    place: Place,
    every: Mapping[str, Search],
    *,
    row: str | None = None,
    console: Console,
) -> dict[str, str]:
    """Search every row that has a space, or one, with the same number of trials; keep what was chosen in tuned.json.

    `every` are the study's searches. What that file has of the same search is not searched again, whether its trials
    are in the database or not. Return {row: why} of searches in which no trial finished, or that another study makes
    now: the others go on.
    """
    if study.search is None:
        return {}
    there, untuned = plan.chosen(folder), dict[str, str]()
    chosen = {label: there[label] for label in every if label in there}
    if chosen != there:
        plan.write_chosen(folder, chosen)
    for label, asked in to_search(every, there, row=row).items():
        try:
            with _search(asked, place, console=console) as found:
                best, first = search.best(found, asked), search.started(found, asked)
        except search.Fruitless as error:
            untuned[label] = str(error)
            continue
        except locks.Busy as error:
            untuned[label] = f"{error}; once that is done, the same command takes what it finds"
            _speaker(console)(f"{label}: {untuned[label]}")
            continue
        chosen[label] = {
            "settings": dict(best.params),
            "validation": best.value,
            "started": first,
            "trials": asked.trials,
            "column": study.search.column or study.tasks[0].label,
            "search": asked.name,
        }
        plan.write_chosen(folder, {label: chosen[label] for label in every if label in chosen})
    return untuned


def to_search(
    every: Mapping[str, Search], kept: Mapping[str, Mapping[str, Any]], *, row: str | None
) -> dict[str, Search]:
    """Return the searches, all or one row's, whose choice is not kept, or is one of fewer trials."""
    return {
        label: asked
        for label, asked in every.items()
        if row in (None, label)
        and (kept.get(label, {}).get("search") != asked.name or kept[label]["trials"] < asked.trials)
    }


def searches(study: Study, picked: dict[str, dict[str, Any]], results: Path) -> dict[str, Search]:
    """Return what a study searches, by row: its runs with untuned settings, where the method has a space."""
    if study.search is None:
        return {}
    column, found = study.search.column or study.tasks[0].label, {}
    for cell in plan.make(study, {}, picked, results=results, done=()):
        if cell.column == column and cell.spec is not None:
            fixed = tuple(sorted(study.row(cell.row).settings))
            asked = Search(cell.spec, study.search.trials, study.search.seeds_per_trial, fixed)
            if asked.space:
                found[cell.row] = asked
    return found


@contextlib.contextmanager
def _search(asked: Search, place: Place, *, console: Console) -> Iterator[Any]:
    """Make a search's trials, and give its Optuna study while the database is open."""
    with locks.alone(place, asked.name), trials.storage(place.url) as storage:
        source = search.Trials(storage, asked, place.queue(asked.name))
        if source.total:
            _speaker(console)(f"searching {asked.spec.method} on {asked.spec.task}: {asked.trials} trials")
            teachers = missing.missing_teachers([asked.spec], place.results)
            if teachers:
                prepare.require_others(asked.spec, results=place.results)
                stand_in.require_student(asked.spec, results=place.results)
            drive(source, teachers, place, name=asked.name, console=console)
        yield source.study


def tune(asked: Search, place: Place, *, seeds: list[int], console: Console) -> dict[str, Any]:
    """Search, run the best settings on fresh seeds; return what was found as plain values."""
    search.space(asked.spec.method)
    with _search(asked, place, console=console) as found:
        trial = search.best(found, asked)
    runs = [
        (Planned("best settings", asked.spec.task, spec), spec) for spec in search.fresh(asked, trial.params, seeds)
    ]
    left = missing.missing(runs, missing.recorded(place.results))
    with locks.alone(place, f"{asked.name}-fresh"):
        bad = _make(left, refused(left, place.results), place, name=f"{asked.name}-fresh", console=console)
    done = missing.recorded(place.results)
    made = [records.read(done[name_of(spec)]) for _, spec in runs if name_of(spec) in done]
    return {
        "method": asked.spec.method,
        "task": asked.spec.task,
        "trials": asked.trials,
        "trial": trial.number,
        "settings": dict(trial.params),
        "validation": trial.value,
        "validation_is": registry.kind_of(asked.spec.task).aimed,
        "runs": [{"seed": record.spec["seed"], "key": record.key, "scores": record.scores} for record in made],
        "failed": [{"seed": job.spec.seed, "why": bad[job.name]} for job in left if job.name in bad],
        "study": place.queue(asked.name),
        "storage": trials.public(place.url),
    }


def told(found: Mapping[str, Any]) -> str:
    """Return what a search found in a few lines."""
    lines = [f"{found['method']} on {found['task']}: best of {found['trials']} trials, trial {found['trial']}"]
    lines += [f"  {name} = {value}" for name, value in found["settings"].items()]
    lines.append(f"  validation  {found['validation']:.2f} ({found['validation_is']})")
    for run in found["runs"]:
        scores = ", ".join(f"{name} {value:.2f}" for name, value in run["scores"]["last"].items())
        lines.append(f"  seed {run['seed']}: {scores}  [{run['key']}]")
    lines += [f"  seed {run['seed']}: not made: {run['why']}" for run in found["failed"]]
    lines.append(f"  study       {found['study']} in {found['storage']}; see it with optuna-dashboard")
    return "\n".join(lines)
