"""What a study would run, the commands for it, and how long that takes here: `kfbench study --dry-run`."""

import contextlib
import json
import shlex
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kfbench import machine, registry
from kfbench.errors import KfbenchError
from kfbench.running import command, equal_cost, estimate, records, teacher_names
from kfbench.running.files import both
from kfbench.spec import RunSpec
from kfbench.studies import definition, missing, picks, plan, promises, steps
from kfbench.studies.plan import Planned
from kfbench.studies.search import Search
from kfbench.studies.trials import Job, name_of
from kfbench.tasks import IMAGES

# an H100, not measured: a tenth of its 989 TFLOP/s in dense bf16, two operations a multiply-add; and what it takes to
# launch the kernels of a step, which decides for small networks
GPU, LAUNCH = 5e13, 0.003
PATIENCE = 60.0  # seconds in which what has no like that was recorded here is timed
THREADS = 1  # as runs have


def tell(
    folder: Path,
    *,
    results: Path,
    row: str | None,
    column: str | None,
    say: Callable[[str], None],
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Write the plan; `say` missing teachers, searches and runs line by line, and return all as plain values.

    Seconds are of one thread here, None where they cannot be had. Commands make single runs, teachers first: whoever
    has a cluster that kfbench does not know hands them to it.
    """
    torch.set_num_threads(THREADS)
    study = definition.load(folder)
    definition.require(study, row=row, column=column)
    picked = picks.settle(folder, study, results=results, say=note)
    done = missing.recorded(results)
    cells = plan.make(study, plan.tuned(folder, study), picked, results=results, done=done)
    every, kept = steps.searches(study, picked, results), plan.chosen(folder)
    waiting = steps.unsearched(every, kept)
    plan.write(folder, study, steps.without(cells, waiting))
    promises.require(study, cells)
    runs = missing.wanted(study, cells, row=row, column=column)
    now, later = ({name_of(s) for cell, s in runs if (cell.row in waiting) is wait} for wait in (False, True))
    students = missing.missing(runs, done.keys() - (later - now))  # what is tuned first is another run than the record
    searches = steps.to_search(every, kept, row=row)
    tuned = [Job(asked.spec, label) for label, asked in searches.items()]
    bad = steps.refused([*students, *tuned], results, is_plan=True)
    searches = {job.label: searches[job.label] for job in tuned if job.name not in bad}
    able = [job for job in students if job.name not in bad]
    tried = [asked.spec for asked in searches.values() for _ in range(asked.trials * asked.seeds_per_trial)]
    teachers = missing.missing_teachers([*(job.spec for job in able), *tried], results)
    teller = _Teller(results, say)
    count = len({name_of(spec) for _, spec in runs})  # two cells may share a run
    found: dict[str, Any] = {"study": study.name, "runs": count, "recorded": count - len(students)}
    found["teachers"] = teller.teachers(teachers)
    found["searches"] = teller.searches(searches)
    asked = [cell for cell in cells if row in (None, cell.row) and column in (None, cell.column)]
    found["to_make"], found["refused"] = teller.cells(asked, runs, {job.name for job in able}, waiting)
    found["refused"] += teller.refused(students, bad, runs)
    _sum_up(found, [*(job.spec for job in [*teachers, *able]), *tried], say)
    for line in missing.edited(runs, done):
        note(line)
    for jobs in (students, teachers):
        if few := estimate.too_few((job.spec for job in jobs), are_teachers=jobs is teachers):
            note(f"note: {few}")
    return found


def refused_runs(found: Mapping[str, Any]) -> int:
    """Return how many runs would be refused; a cell that is n/a has none."""
    return sum("seed" in entry for entry in found["refused"])


class _Teller:
    """Says what is to be made, line by line, and returns the same as plain values."""

    def __init__(self, results: Path, say: Callable[[str], None]) -> None:
        self._results, self._say = results, say
        self._clock = _Clock(results)

    def teachers(self, jobs: Iterable[Job]) -> list[dict[str, Any]]:
        """Return the commands for teachers that are to be trained first."""
        entries = []
        for job in jobs:
            seconds = self._clock.seconds(job.spec)
            entries.append({"command": self._typed(command.teacher(job.spec)), "seconds": seconds})
            self._say(f"{job.label}: {_spoken(seconds)}")
        return entries

    def searches(self, searches: Mapping[str, Search]) -> list[dict[str, Any]]:
        """Return how many runs the searches of rows have, at the most."""
        entries = []
        for label, asked in searches.items():
            seconds, count = self._clock.seconds(asked.spec), asked.trials * asked.seeds_per_trial
            entries.append({"row": label, "runs": count, "seconds": seconds})
            seeds = f" of {asked.seeds_per_trial} seeds" if asked.seeds_per_trial > 1 else ""
            told = f"search {label}: {asked.trials} trials{seeds}, less those made already"
            self._say(f"{told}: {_spoken(seconds)} a run")
        return entries

    def cells(
        self,
        cells: Iterable[Planned],
        runs: Sequence[tuple[Planned, RunSpec]],
        left: set[str],
        waiting: Container[str],
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the commands for runs whose name is `left` to make, and the cells that have none, with the reason.

        Rows that are `waiting` for their search have no commands yet: None.
        """
        to_make, refused = [], []
        for cell in cells:
            place = {"row": cell.row, "column": cell.column}
            if cell.spec is None:
                refused.append({**place, "reason": cell.reason})
                self._say(f"{cell.row} · {cell.column}: n/a, because {cell.reason}")
            own = [spec for planned, spec in runs if planned is cell and name_of(spec) in left]
            left = left - {name_of(spec) for spec in own}  # a run that serves two cells is listed at the first
            if own:
                seconds = self._clock.seconds(own[0])
                trouble = self._clock.troubles.get(_alike(own[0]))
                waits = cell.row in waiting
                entries = [{"seed": s.seed, "command": None if waits else self._typed(command.run(s))} for s in own]
                told = {"seconds": seconds} | ({"trouble": trouble} if trouble else {})
                to_make += [{**place, **entry, **told} for entry in entries]
                seeds = f"seed{'s' if len(own) > 1 else ''} {', '.join(str(spec.seed) for spec in own)}"
                why = f"; its first steps failed here: {trouble}" if trouble else ""
                after = ", once its search is made" if waits else ""
                self._say(f"{cell.row} · {cell.column}: {seeds}{after}: {_spoken(seconds)} a run{why}")
        return to_make, refused

    def refused(
        self, jobs: Iterable[Job], bad: Mapping[str, str], runs: Sequence[tuple[Planned, RunSpec]]
    ) -> list[dict[str, Any]]:
        """Return the runs that would be refused, with the reason."""
        of = {name_of(spec): cell for cell, spec in reversed(runs)}
        entries = []
        for job in (job for job in jobs if job.name in bad):
            cell = of[job.name]
            entries.append({"row": cell.row, "column": cell.column, "seed": job.spec.seed, "reason": bad[job.name]})
            self._say(f"{job.label}: refused: {bad[job.name]}")
        return entries

    def _typed(self, words: list[str]) -> str:
        own = [] if self._results == Path("results") else ["--results", str(self._results)]
        return shlex.join([*words, "--threads", str(THREADS), *own])


def _sum_up(found: dict[str, Any], specs: list[RunSpec], say: Callable[[str], None]) -> None:
    """Add and say how long all takes for one job here, how much its networks multiply, and what a GPU takes at best."""
    tried = sum(search["runs"] for search in found["searches"])
    each = [entry["seconds"] for kind in ("teachers", "to_make") for entry in found[kind]]
    each += [search["seconds"] for search in found["searches"] for _ in range(search["runs"])]
    known = [seconds for seconds in each if seconds is not None]
    found["seconds"] = sum(known) if known or not each else None
    found["not_counted"] = len(each) - len(known)
    told = f"{steps.counted(found['runs'])}, {len(found['to_make'])} to make"
    told += f", {tried} of searches" if tried else ""
    refused = refused_runs(found)
    told += f", {refused} refused" if refused else ""
    if not found["to_make"] and not tried:
        say(told)
        return
    beside = f", {found['not_counted']} of them and of their teachers not counted" if len(known) < len(each) else ""
    say(f"{told}: {_spoken(found['seconds'])} for one job here{beside if known else ''}")
    costs: dict[int, int] = {}
    for index, spec in enumerate(specs):
        with contextlib.suppress(KfbenchError):
            costs[index] = equal_cost.run_cost(spec)
    found["multiply_adds"], lacking = sum(costs.values()), len(specs) - len(costs)
    found["multiply_adds_not_counted"], work = lacking, found["multiply_adds"] / 1e15
    told = f"{f'{work:,.2f}' if work >= 0.01 else 'less than 0.01'} · 10¹⁵ multiply-adds in the networks' passes"
    told += f", {steps.counted(lacking)} not counted" if lacking else ""
    if all(registry.kind_of(spec.task) is IMAGES for spec in specs):
        found["h100_seconds"] = sum(
            max(cost / GPU, equal_cost.steps(specs[index]) * LAUNCH) for index, cost in costs.items()
        )
        told += f"; an H100 takes {estimate.spoken(found['h100_seconds'])} or more, one run after another"
    say(told)


class _Clock:
    """What a run will take: what its like took here, else measured over a few steps while there is patience.

    What is measured serves the same method on other tasks too. After that, what its like took anywhere has to do.
    """

    def __init__(self, results: Path) -> None:
        self.troubles: dict[tuple[str, str, str], str] = {}  # why a method's steps failed, as it may be someone's own
        self._until = time.monotonic() + PATIENCE
        self._here: dict[tuple[str, str, str], float] = {}
        self._elsewhere: dict[tuple[str, str, str], float] = {}
        place = {"processor": machine.processor(), "device": "cpu", "threads": THREADS}
        for folder in both(results):
            for record in records.records(folder) if folder.is_dir() else ():
                if record.status == "done" and "seconds" in record.cost:
                    is_here = place.items() <= record.provenance.items()
                    (self._here if is_here else self._elsewhere)[_kind(record.spec)] = record.cost["seconds"]

    def seconds(self, spec: RunSpec) -> float | None:
        """Return seconds on one thread, here if they can be had; None if nothing is known."""
        exact, alike = _kind(spec.to_json()), _alike(spec)
        if not {exact, alike} & self._here.keys() and time.monotonic() < self._until:
            try:
                self._here[alike] = estimate.seconds(spec, tried=2)
            except KfbenchError:  # data or teachers are not here
                pass
            except Exception as error:  # the rest of the study is told of all the same
                self.troubles[alike] = f"{type(error).__name__}: {error}".splitlines()[0]
        found = [known[kind] for known in (self._here, self._elsewhere) for kind in (exact, alike) if kind in known]
        return found[0] if found else None


def _kind(spec: Mapping[str, Any]) -> tuple[str, str, str]:
    return spec["method"], spec["task"], json.dumps(spec["recipe"], sort_keys=True)


def _alike(spec: RunSpec) -> tuple[str, str, str]:
    """Return what runs on other tasks have in common that take about as long."""
    method, _, recipe = _kind(spec.to_json())
    networks = [teacher_names.read(name, budget=spec.budget).network or name for name in spec.teachers]
    return method, f"like {','.join(networks)}", recipe


def _spoken(seconds: float | None) -> str:
    return "time unknown" if seconds is None else f"about {estimate.spoken(seconds)}"
