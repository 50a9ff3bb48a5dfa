"""SLURM: a job a run, handed over by submitit; the results folder must be one that all nodes see.

Jobs live on when the driver dies: started again, it finds them by the number in their folder. What a job says reaches
the driver through that folder, so a run is pruned at the report that follows the driver's look.
"""

import contextlib
import dataclasses
import signal
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from kfbench.errors import KfbenchError, KfbenchWarning
from kfbench.studies.carry import Files, Order, Outcome, Word
from kfbench.studies.engines import folder
from kfbench.studies.place import Place

AT_ONCE = 50  # jobs in SLURM's queue or running, unless --at-once says otherwise
ASK = 5.0  # seconds between two questions to SLURM, which serves others too
ANSWER = 60.0  # seconds that an answer may take
RETRY = 60.0  # seconds until SLURM is asked again to take a run that it refused
ALIVE = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "SUSPENDED", "PREEMPTED")
# options that are submitit's own, not sbatch's
OWN = {"timeout_min": int, "mem_gb": float, "cpus_per_task": int, "gpus_per_node": int, "slurm_signal_delay_s": int}
ENDING = 10.0  # seconds that a job may take to end after its run
GONE = 30.0  # seconds that SLURM may answer without a job before it counts as dead: a requeued one is, for a moment


class Slurm(folder.Folder):
    """Jobs of `sbatch`; students wait for their teachers with `afterok`."""

    chains, pause = True, 0.5

    def __init__(self, place: Place, bags: Path) -> None:
        super().__init__(bags.resolve())
        self.slots = place.jobs or AT_ONCE
        self._logs = (place.cache / "logs").resolve()
        try:
            self._executor = submitit.AutoExecutor(folder=self.bags.parent / "slurm", cluster="slurm")
            self._options = _options(place)
            self._executor.update_parameters(**self._options)
        except (RuntimeError, ValueError, NameError, TypeError) as error:
            raise KfbenchError(f"--on slurm: {' '.join(str(error).split())}") from error
        self._jobs: dict[str, str] = {}
        self._over: list[str] = []  # jobs whose runs have ended
        self._held: dict[str, tuple[Order, Files]] = {}  # what SLURM has not taken yet
        self._retry = 0.0  # when it is asked again
        self._states: dict[str, str] = {}
        self._asked, self._answered, self._patience = 0.0, 0.0, GONE
        self._seen: dict[str, float] = {}  # when SLURM last knew a job

    @staticmethod
    def require(place: Place) -> None:
        """Raise KfbenchError for an option that SLURM, or submitit, would not take."""
        _options(place)

    def start(self, order: Order, files: Files) -> None:
        """Submit a run, unless a driver before has and its job is still there."""
        bag = self.bags / order.name
        with contextlib.suppress(OSError):
            job = (bag / "job").read_text(encoding="utf-8")
            state = self._ask(now=True).get(job)
            if state in ALIVE or self._answered < self._asked:  # squeue is silent: the job may be there
                self._read[order.name] = (0, 0)
                self._jobs[order.name], self._seen[order.name] = job, time.monotonic()
                (bag / "word").unlink(missing_ok=True)
                return
        self.open(order)
        if (bag / "outcome.json").is_file():  # the job ended while there was no driver
            return
        # it does not wait for verdicts, for the driver may be away
        self._held[order.name] = dataclasses.replace(order, is_judged=False), files
        self._submit(order.name)

    def _submit(self, name: str) -> None:
        """Hand a run over; where SLURM takes no more for now, as there is a limit or much to do, it is held back.

        Raises KfbenchError if SLURM refuses a run while it has no other of ours: then more is wrong than their number.
        """
        order, files = self._held[name]
        if time.monotonic() < self._retry or self._held.keys() & {*order.after}:
            return
        after = [self._jobs[teacher] for teacher in order.after if teacher in self._jobs]
        chain = {"dependency": "afterok:" + ":".join(after)} if after else {}
        others = {**self._options["slurm_additional_parameters"], **chain}
        self._executor.update_parameters(name=f"kfbench-{name}", slurm_additional_parameters=others)
        bag = self.bags / name
        try:
            job = self._executor.submit(on_node, order, files, bag, self._logs / f"{name}.log").job_id
        except (FailedJobError, FailedSubmissionError) as error:
            refused = f"sbatch refused a run: {' '.join(str(error).split())[-300:]}"
            if not self._jobs:
                raise KfbenchError(refused) from error
            if self._retry == 0.0:
                warnings.warn(f"{refused}; it is asked again every {RETRY:.0f} s", KfbenchWarning, stacklevel=2)
            self._retry = time.monotonic() + RETRY
            return
        del self._held[name]
        self._jobs[name], self._seen[name] = job, time.monotonic()
        with contextlib.suppress(OSError):  # on a full disk the job goes on, but the next driver does not find it
            (bag / "job").write_text(job, encoding="utf-8")

    def answer(self, name: str, word: Word) -> None:
        """Say to a run what it is to do; one that waits in SLURM's queue leaves it."""
        super().answer(name, word)
        if word == "stop":
            self._patience = 0.0
            if name in self._jobs:
                subprocess.run(["scancel", "--state=PENDING", self._jobs[name]], capture_output=True)

    def look(self, name: str) -> Outcome | None:
        """Return how a run ended; None while it waits or goes on."""
        outcome = folder.read(self.bags / name)
        if outcome is not None:
            return self._forget(name, outcome)
        if name in self._held and self._patience == 0.0:
            return self._forget(name, Outcome("stopped"))
        if name in self._held:
            self._submit(name)
            return None
        state = self._ask().get(self._jobs[name], "unknown")
        if state == "OUT_OF_MEMORY":
            return self._forget(name, Outcome("memory", f"SLURM ended job {self._jobs[name]} for want of memory"))
        if state in ALIVE:
            self._seen[name] = self._answered
            return None
        if self._answered - self._seen.get(name, 0.0) < self._patience:
            return None
        return self._forget(name, Outcome("lost", f"SLURM's job {self._jobs[name]} ended without a word: {state}"))

    def _forget(self, name: str, outcome: Outcome) -> Outcome:
        self.forget(name)
        self._held.pop(name, None)
        (self.bags / name / "job").unlink(missing_ok=True)
        if name in self._jobs:
            self._over.append(self._jobs.pop(name))
            self._tidy(self._over[-1])
        return outcome

    def _tidy(self, job: str) -> None:
        """Remove submitit's pickles of a job."""
        for path in self._executor.folder.glob(f"{job}_*"):
            path.unlink(missing_ok=True)

    def _ask(self, *, now: bool = False) -> dict[str, str]:
        """Return {job: state} of the user's jobs, those that have just ended too."""
        if now or time.monotonic() - self._asked > ASK:
            self._asked = time.monotonic()
            command = ["squeue", "--me", "--noheader", "--states=all", "--format=%i %T"]
            # where SLURM is too busy to answer, what was known holds
            with contextlib.suppress(subprocess.SubprocessError):
                done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=ANSWER)
                self._states = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
                self._answered = self._asked
        return self._states

    def close(self) -> None:
        """Cancel what is left; wait a moment for jobs that submitit is still ending, for it writes a last pickle."""
        if self._jobs:
            subprocess.run(["scancel", *self._jobs.values()], capture_output=True)
        until = time.monotonic() + ENDING
        while any(self._ask(now=True).get(job) in ALIVE for job in self._over) and time.monotonic() < until:
            time.sleep(self.pause)
        for job in self._over:
            self._tidy(job)


def _options(place: Place) -> dict[str, Any]:
    """Return what submitit is asked for: what the place says, then the user's own options, submitit's or sbatch's."""
    if place.gpus_per_run != int(place.gpus_per_run):
        raise KfbenchError(
            f"SLURM gives whole GPUs, not {place.gpus_per_run}; use --on ray, or in place of --gpus-per-run "
            "--slurm gres=shard:1 --device cuda"
        )
    shared: dict[str, Any] = {"timeout_min": 24 * 60, "cpus_per_task": place.threads, "stderr_to_stdout": True}
    shared |= {"gpus_per_node": int(place.gpus_per_run)} if place.gpus_per_run else {}
    shared |= {"mem_gb": place.memory} if place.memory else {}
    others = {"kill-on-invalid-dep": "yes"}  # else a job whose teacher's job fails would wait for ever
    for name, value in place.slurm.items():
        known = {"signal_delay_s": "slurm_signal_delay_s"}.get(name, name)
        if known in OWN:
            try:
                shared[known] = OWN[known](value)
            except ValueError as error:
                wanted = "a whole number" if OWN[known] is int else "a number"
                raise KfbenchError(f"--slurm {name}={value}: {name} is {wanted}") from error
        elif name == "setup":
            shared["slurm_setup"] = [value]
        else:
            others[name.replace("_", "-")] = value
    return {**shared, "slurm_additional_parameters": others}


def on_node(order: Order, files: Files, bag: Path, log: Path) -> None:
    """Make a run in a job. After SIGTERM, or USR2 before the time is up, it ends at a checkpoint and without a word."""
    signal.signal(signal.SIGUSR2, lambda *_: signal.raise_signal(signal.SIGTERM))
    if not folder.work(order, files, bag, log, is_requeued=True):
        raise SystemExit(1)  # any other end submitit takes for the job's, and a requeued job for failed
