"""The results folder as a driver keeps it: what is recorded there, what a run reads, what it left."""

import contextlib
import json
import shutil
from pathlib import Path

from kfbench.errors import KfbenchError, is_full
from kfbench.running import imported, prepare, records
from kfbench.running.files import MEMORY, store, write_bytes
from kfbench.running.records import RunRecord
from kfbench.spec import digest
from kfbench.studies import locks, missing
from kfbench.studies.carry import Files, Outcome
from kfbench.studies.place import Place
from kfbench.studies.trials import Job, teacher_called

LAST_LINES = 20  # of its log, in the record of a run that took its workers down


class Home:
    """Records and weights by the names of runs, and the folder that each run has while it is made."""

    def __init__(self, place: Place, *, driver: str) -> None:
        self._place, self._driver = place, driver
        stored = missing.recorded(store(place.results), is_store=True)
        self._recorded = {teacher_called(name): path for name, path in stored.items()} | missing.recorded(place.results)
        self._read: dict[Path, int] = {}  # other records that were looked at, and when those were written

    def has(self, job: Job) -> bool:
        """Say whether a run is recorded, by us or, since we began, by the driver of another study."""
        if job.name in self._recorded:
            return True
        folder, ours = self._folder(job), {*self._recorded.values()}
        for path in {*records.path_of(folder, "", job.spec).parent.glob("*.json")} - ours:
            with contextlib.suppress(KfbenchError, FileNotFoundError):
                written = path.stat().st_mtime_ns
                if self._read.get(path) == written:
                    continue
                record = records.read(path)
                self._read[path] = written
                if missing.Present(folder, is_store=job.is_teacher).counts(record, path):
                    name = digest(record.spec)
                    self._recorded[teacher_called(name) if job.is_teacher else name] = path
        return job.name in self._recorded

    def record(self, job: Job) -> RunRecord:
        """Return the record of a run that is recorded."""
        return records.read(self._recorded[job.name])

    def files(self, job: Job) -> Files:
        """Return what a run reads: its teachers' records and weights, and the memory of their answers."""
        results = self._place.results
        paths = [self._recorded[name] for name in sorted(job.needs) if name in self._recorded]
        for key in (name.removeprefix("run:") for name in job.spec.teachers if name.startswith("run:")):
            folder, record = records.locate(results, key)
            paths.append(records.path_of(folder, record.key, record.spec))
        memory = self._place.cache / "memory"
        memory.mkdir(exist_ok=True)
        theirs = [name.removeprefix("imported:") for name in job.spec.teachers if name.startswith("imported:")]
        paths += [imported.path_of(results, name) for name in theirs]
        both = [each for path in paths for each in {path, path.with_suffix(".safetensors")} if each.is_file()]
        return {MEMORY: memory, **{path.relative_to(results).as_posix(): path for path in both}}

    def keep(self, job: Job, outcome: Outcome) -> str:
        """Bring home what a run left: record and weights into the results, a checkpoint into the run's own folder.

        Return the record's key, by which the log is called then; empty if there is no record. Raises OSError.
        """
        key = ""
        for name, file in outcome.files.items():
            is_result = name.endswith((".json", ".safetensors"))
            target = (self._place.results if is_result else self.bag(job.name)) / name
            if target != file and not _is_worse(target, file):
                write(target, file)
            if is_result and name.endswith(".json"):
                record = records.read(target)
                key = record.key
                self._rename_log(job, key)
                if record.status == "done":
                    self._recorded[job.name] = target
        return key

    def record_failure(self, job: Job, why: str) -> str:
        """Write the failed record of a run that never came to write its own, with the last lines of its log.

        Return its key. Raises NoRoom on a full disk, KfbenchError where the key cannot be known, for want of a teacher.
        """
        plan = prepare.plan(job.spec, results=self._place.results)
        log = self._place.cache / "logs" / f"{job.name}.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:] if log.is_file() else []
        record = RunRecord(key=plan.key, spec=job.spec.to_json(), identity=plan.identity, status="failed", error=why)
        record.traceback = "\n".join(lines)
        records.write(self._folder(job), record)
        self._rename_log(job, plan.key)
        return plan.key

    def bag(self, name: str) -> Path:
        """Return the folder of a run while it is made."""
        return self._place.cache / "runs" / name

    def checkpoint(self, job: Job) -> float:
        """Return when the latest checkpoint of a run was written; 0: there is none."""
        return max((path.stat().st_mtime for path in self.bag(job.name).rglob("*.ckpt")), default=0.0)

    def claim(self, name: str) -> bool:
        """Say whether a run is ours; it is not, too, where the disk has no room to say so."""
        try:
            return locks.claim(self._place, name, driver=self._driver)
        except OSError as error:
            if not is_full(error):
                raise
            return False

    def remove(self, name: str) -> None:
        """Remove the folder of a run, unless it is another driver's."""
        if self.bag(name).is_dir() and self.claim(name):
            shutil.rmtree(self.bag(name), ignore_errors=True)

    def tidy(self) -> None:
        """Remove the folders of what is recorded: of teachers that a chaining engine's students read, and leftovers."""
        for bag in list((self._place.cache / "runs").iterdir()):
            if bag.name in self._recorded:
                self.remove(bag.name)

    def _folder(self, job: Job) -> Path:
        return store(self._place.results) if job.is_teacher else self._place.results

    def _rename_log(self, job: Job, key: str) -> None:
        """Call a run's log by the key of its record, now that it has one."""
        logs = self._place.cache / "logs"
        with contextlib.suppress(OSError):
            (logs / f"{job.name}.log").replace(logs / f"{key}.log")


def write(target: Path, file: Path | bytes) -> None:
    """Put a file in place, never half."""
    write_bytes(target, file if isinstance(file, bytes) else file.read_bytes())


def _is_worse(target: Path, file: Path | bytes) -> bool:
    """Say whether a record tells of a failure where a finished one of its key lies."""
    if target.suffix != ".json" or not records.is_finished(target):
        return False
    told = json.loads(file if isinstance(file, bytes) else file.read_bytes())
    return isinstance(told, dict) and told.get("status") == "failed"
