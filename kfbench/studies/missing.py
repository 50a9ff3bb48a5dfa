"""What a study has and what it lacks: recorded runs by name, missing runs, the teachers they need first."""

import json
from collections import Counter
from collections.abc import Callable, Container, Mapping
from pathlib import Path

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.running import identity, prepare, records, teacher_names, teacher_store
from kfbench.running.files import record_files
from kfbench.spec import RunSpec, digest
from kfbench.studies.definition import Study
from kfbench.studies.plan import Planned
from kfbench.studies.trials import Job, name_of


def recorded(results: Path, *, is_store: bool = False) -> dict[str, Path]:
    """Return {name: its record's path} of finished runs that today's code, data and teachers would make the same.

    In a teacher store only those whose weights are there count.
    """
    found, present = {}, Present(results, is_store=is_store)
    for path in record_files(results) if results.is_dir() else ():
        record = records.read(path)
        if present.counts(record, path):
            found[digest(record.spec)] = path
    return found


class Present:
    """The data sets, teachers and code of this machine, each looked at once; see `identity.of`."""

    def __init__(self, results: Path, *, is_store: bool) -> None:
        self._results, self._is_store = results, is_store
        self._known: dict[tuple[str, str], str | None] = {}

    def counts(self, record: records.RunRecord, path: Path) -> bool:
        """Say whether a record of the folder counts for its run; in a teacher store it must have its weights."""
        whole = not self._is_store or path.with_suffix(".safetensors").is_file()
        return whole and is_current(record) and self.fits(record)

    def fits(self, record: records.RunRecord) -> bool:
        """Say whether none is here as another than a record's run had: what is not here now may be the same."""
        spec, then = record.run_spec(), record.identity
        pairs = [(self._data(spec.task), then.get("data"))]
        pairs += [(self._data(name), data) for name, data in then.get("stages", {}).items()]
        weights = zip(spec.teachers, then["teachers"], strict=True)
        pairs += [(self._teacher(name, spec), digest) for name, digest in weights]
        return all(now in (None, before) for now, before in pairs) and self._code(spec) == {
            name: value for name, value in then.items() if name.endswith("_file")
        }

    def _data(self, task: str) -> str | None:
        return self._once("data", task, lambda: registry.load_task(task).checksum())

    def _code(self, spec: RunSpec) -> dict[str, str]:
        place = f"{spec.method} {spec.recipe.network} {spec.task} {spec.settings.get('source')}"
        found: dict[str, str] = json.loads(
            self._once("code", place, lambda: json.dumps(identity.own_files(spec))) or "{}"
        )
        return found

    def _teacher(self, name: str, spec: RunSpec) -> str | None:
        def find() -> str | None:
            if teacher_names.read(name, budget=spec.budget).kind not in ("trained", "run", "file", "imported"):
                return None  # always the same by its name, or asked of the net
            return teacher_store.find(name, spec=spec, index=0, results=self._results).digest

        return self._once(f"teacher at {spec.budget}", name, find)

    def _once(self, kind: str, name: str, look: Callable[[], str | None]) -> str | None:
        if (kind, name) not in self._known:
            try:
                self._known[kind, name] = look()
            except KfbenchError:
                self._known[kind, name] = None
        return self._known[kind, name]


def is_current(record: records.RunRecord) -> bool:
    """Say whether a record is finished and of the present revisions of method and harness."""
    if record.status != "done" or record.identity.get("harness_revision") != identity.HARNESS:
        return False
    try:
        registry.kind_of(record.spec["task"])
        method = registry.recorded_method(record.spec["method"], record.spec["settings"])
    except KfbenchError:  # of a task or method that is not here
        return False
    return bool(record.identity.get("method_revision") == method.revision)


def wanted(study: Study, cells: list[Planned], *, row: str | None, column: str | None) -> list[tuple[Planned, RunSpec]]:
    """Return every run of a study, of one row or one column if asked, with its cell."""
    chosen = [c for c in cells if row in (None, c.row) and column in (None, c.column)]
    return [(cell, spec) for cell in chosen for spec in cell.runs(study.seeds)]


def missing(runs: list[tuple[Planned, RunSpec]], done: Container[str]) -> list[Job]:
    """Return the runs that are not among the recorded ones, each spec once."""
    jobs = {
        name_of(spec): Job(spec, f"{cell.row} · {cell.column} · seed {spec.seed}", chosen=cell.chosen)
        for cell, spec in reversed(runs)
    }
    return [job for name, job in reversed(jobs.items()) if name not in done]


def edited(runs: list[tuple[Planned, RunSpec]], done: Mapping[str, Path]) -> list[str]:
    """Say of each method and network how many recorded runs were made when its file was other code.

    They count: of a checkout's own files a `revision` says what changes numbers. Files elsewhere are in the key.
    """
    found = Counter[str]()
    for name in {name_of(spec) for _, spec in runs} & done.keys():
        record = records.read(done[name])
        found.update(identity.changed(record.run_spec(), record.provenance.get("code", {})))
    return [
        f"note: {name} changed since {count} of the recorded runs; kfbench verify KEY says whether it matters, "
        "and a raised `revision` makes all of them anew"
        for name, count in sorted(found.items())
    ]


def missing_teachers(specs: list[RunSpec], results: Path) -> list[Job]:
    """Return the teachers that runs need and the store lacks, as jobs."""
    wanted = prepare.missing_teachers(*specs, results=results)
    return [Job(spec, f"teacher {prepare.called(spec)}", is_teacher=True) for spec in wanted]
