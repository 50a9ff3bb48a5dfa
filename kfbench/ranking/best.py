"""`best:K[:SCORE][,A,B,…]` in the place of teachers: the K that promise most for the task.

Candidates are the teachers named after it, which all have to suit; else those in the store that suit the method: of
other data than the task's, or, where the method copies outputs, of its classes. SCORE is `logme` if it is not said.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kfbench.errors import KfbenchError
from kfbench.ranking import names, ranking, store
from kfbench.ranking.names import WORD
from kfbench.running import files, resolve, suitability, teacher_names, teacher_store
from kfbench.running.suitability import Student
from kfbench.spec import RunSpec
from kfbench.tasks import IMAGES


class Choice(NamedTuple):
    """The teachers that were chosen, and what a record says of it."""

    teachers: list[str]
    told: dict[str, Any]  # what was asked, the score, {candidate: its value}


def choose(
    asked: Sequence[str],
    student: Student,
    *,
    budget: str,
    results: Path,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> Choice:
    """Return the teachers that promise most for a student, the best first.

    Raises KfbenchError if it cannot be read, a named candidate is missing or does not suit, or too few suit.
    """
    count, score = _read(asked)
    if student.task.kind is not IMAGES:
        raise KfbenchError(
            f"teachers are ranked for images, and '{student.task.name}' is not of them; name them instead"
        )
    named = list(dict.fromkeys(str(teacher_names.read(name, budget=budget)) for name in asked[1:] if name))
    candidates = _suitable(named or _stored(student, results, say), student, budget, results, skip=not named)
    if len(candidates) < count:
        where = "named" if named else f"in '{files.store(results)}'"
        raise KfbenchError(
            f"'{asked[0]}' asks for {count} teachers, but {len(candidates)} of those {where} suit method "
            f"'{student.name}' on '{student.task.name}'; name more after it: {asked[0]},A,B,…"
        )
    ranked = ranking.rank(
        spec_of(student, budget),
        candidates,
        by=score,
        only=[score],
        results=results,
        device=device,
        say=say,
    )
    values = {row.teacher: round(row.scores[score], 6) for row in ranked}
    chosen = [row.teacher for row in ranked[:count]]
    say(f"{asked[0]}: {', '.join(chosen)}")
    return Choice(chosen, {"asked": ",".join(asked), "score": score, "candidates": values})


def spec_of(student: Student, budget: str) -> RunSpec:
    """Return what a student's teachers are ranked for: a run without them, of seed 0."""
    return RunSpec(student.name, student.task.name, budget, recipe=student.recipe)


def _read(asked: Sequence[str]) -> tuple[int, str]:
    """Return how many teachers are asked for, by which score."""
    if not asked[0].startswith(WORD) or any(name.startswith(WORD) for name in asked[1:]):
        raise KfbenchError(f"--teachers '{','.join(asked)}': write best:K or best:K:SCORE once, candidates after it")
    number, _, score = asked[0].removeprefix(WORD).partition(":")
    if not number.isdecimal() or int(number) < 1 or ":" in score:
        raise KfbenchError(f"teachers '{asked[0]}': write best:K or best:K:SCORE, as best:3 or best:3:parc")
    ranking.require_score(score or names.DEFAULT)
    return int(number), score or names.DEFAULT


def _stored(student: Student, results: Path, say: Callable[[str], None]) -> list[str]:
    """Return the names in the store among which the suitable ones are candidates."""
    if student.method.needs == "outputs":
        return list(store.names(results, say))
    return store.others(student.task.name, results, say)


def _suitable(there: Sequence[str], student: Student, budget: str, results: Path, *, skip: bool) -> list[str]:
    """Return the teachers that suit a student; with `skip` others are left out, else they are an error."""
    student = dataclasses.replace(student, classes=student.task.labels(student.recipe))
    spec = spec_of(student, budget)
    suitable = []
    for name in there:
        try:
            suitability.require(student, resolve.candidate(student, teacher_names.read(name, budget=budget)))
            found = teacher_store.find(name, spec=spec, index=0, results=results)
            suitability.require(student, found.known)
        except KfbenchError:
            if not skip:
                raise
            continue
        suitable.append(name)
    return suitable
