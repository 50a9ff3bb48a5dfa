"""What a study has and what it lacks: recorded runs by name, missing runs, the teachers they need first."""

from pathlib import Path

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.running import identity, prepare, records
from kfbench.spec import RunSpec, digest
from kfbench.studies.definition import Study
from kfbench.studies.plan import Planned
from kfbench.studies.trials import Job, name_of


def recorded(results: Path) -> dict[str, Path]:
    """Return {name: its record's path} of finished runs that today's code would make the same.

    In a teacher store only those whose weights are there count.
    """
    found = {}
    for record in records.records(results) if results.is_dir() else ():
        path = records.path_of(results, record.key, record.run_spec())
        if counts(record, path, results):
            found[digest(record.spec)] = path
    return found


def counts(record: records.RunRecord, path: Path, results: Path) -> bool:
    """Say whether a record of a results folder counts for its run; in a teacher store it must have its weights."""
    return is_current(record) and (results.name != "teachers" or path.with_suffix(".safetensors").is_file())


def is_current(record: records.RunRecord) -> bool:
    """Say whether a record is finished and of the present revisions of method and harness."""
    if record.status != "done" or record.identity.get("harness_revision") != identity.HARNESS:
        return False
    try:
        method = registry.recorded_method(record.spec["method"], record.spec["settings"])
    except KfbenchError:
        return False
    return bool(record.identity.get("method_revision") == method.revision)


def wanted(study: Study, cells: list[Planned], *, row: str | None, column: str | None) -> list[tuple[Planned, RunSpec]]:
    """Return every run of a study, of one row or one column if asked, with its cell."""
    chosen = [c for c in cells if row in (None, c.row) and column in (None, c.column)]
    return [(cell, spec) for cell in chosen for spec in cell.runs(study.seeds)]


def missing(runs: list[tuple[Planned, RunSpec]], results: Path) -> list[Job]:
    """Return the runs without a finished record, each spec once."""
    done = recorded(results)
    jobs = {
        name_of(spec): Job(spec, f"{cell.row} · {cell.column} · seed {spec.seed}", chosen=cell.chosen)
        for cell, spec in reversed(runs)
    }
    return [job for name, job in reversed(jobs.items()) if name not in done]


def missing_teachers(specs: list[RunSpec], results: Path) -> list[Job]:
    """Return the teachers that runs need and the store lacks, as jobs."""
    wanted = prepare.missing_teachers(*specs, results=results)
    return [Job(spec, f"teacher {prepare.called(spec)}", is_teacher=True) for spec in wanted]
