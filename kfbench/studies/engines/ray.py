"""Ray: GPU boxes, Kubernetes, clouds; several runs a GPU, no file system in common.

What a run reads goes out as arguments, each file once a node through Ray's object store; what it leaves comes back as
its return value. Reports and checkpoints go to an actor beside the driver, in the run's folder there.
"""

import contextlib
import getpass
import io
import json
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kfbench import registry
from kfbench.data.packs import data_folder
from kfbench.errors import KfbenchError, KfbenchWarning, is_full
from kfbench.running import teacher_names
from kfbench.running.files import MEMORY
from kfbench.spec import RunSpec
from kfbench.studies.carry import PATIENCE, Files, Order, Outcome, Word, carry, lay_out
from kfbench.studies.place import Place
from kfbench.tasks import ImageTask

MOST_DATA = 2e9  # bytes of a data set that travel; of a larger one every node needs its own, at $KFBENCH_DATA
Refs = dict[str, Any]  # {place: a reference into the object store, or the content}


class Mailbox:
    """What runs and driver have to say to each other; an actor on the driver's node."""

    def __init__(self, bags: Path) -> None:
        self._bags, self._events = bags, list[tuple[str, dict[str, Any]]]()
        self._words: dict[str, Word] = {}
        self._answers: Counter[str] = Counter()

    def report(self, name: str, event: dict[str, Any], checkpoint: dict[str, bytes]) -> Word:
        """Take an event, and a checkpoint if there is a new one; return what the run is to do."""
        for place, content in checkpoint.items():
            target = self._bags / name / place
            half = target.with_suffix(".tmp")
            with contextlib.suppress(OSError):  # a full disk ends no run: the one before stays, the next may find room
                target.parent.mkdir(parents=True, exist_ok=True)
                half.write_bytes(content)
                half.replace(target)
        self._events.append((name, event))
        return self._words.get(name, "go")

    def verdict(self, name: str) -> tuple[int, Word]:
        """Return how many scores of a run are answered, and what it is to do."""
        return self._answers[name], self._words.get(name, "go")

    def answer(self, name: str, word: Word) -> None:
        """Take the driver's answer."""
        self._answers[name] += 1
        self._words[name] = word

    def forget(self, name: str) -> None:
        """Begin anew with a run."""
        self._answers.pop(name, None)
        self._words.pop(name, None)

    def drain(self) -> list[tuple[str, dict[str, Any]]]:
        """Hand out the events that have come in."""
        events, self._events = self._events, []
        return events


class Reports:
    """The run's side: events and what is new in its log and its checkpoint go to the mailbox."""

    def __init__(self, order: Order, box: Any, folder: Path, log: io.StringIO, most: float) -> None:
        self._order, self._box, self._folder, self._log, self._most = order, box, folder, log, most
        self._read, self._scores = 0, 0
        # what it begins with came from the driver, for which it would be a new one: a run could die again and again
        self._sent = max((path.stat().st_mtime for path in folder.rglob("*.ckpt")), default=0.0)

    def __call__(self, event: dict[str, Any]) -> Word:
        """Report an event, and wait for a verdict where a score is judged; without a driver a run stops."""
        try:
            word: Word = ray.get(self._box.report.remote(self._order.name, event | self.news(), self._checkpoint()))
            if self._order.is_judged and event["score"] is not None:
                self._scores += 1
                until = time.monotonic() + PATIENCE
                while time.monotonic() < until:
                    answered, word = ray.get(self._box.verdict.remote(self._order.name))
                    if answered >= self._scores:
                        break
                    time.sleep(0.05)
            return word
        except ray.exceptions.RayActorError:
            return "stop"

    def news(self) -> dict[str, str]:
        """Return what the log says that was not told yet."""
        text, start = self._log.getvalue(), self._read
        self._read = len(text)
        return {"log": text[start:]}

    def _checkpoint(self) -> dict[str, bytes]:
        for path in self._folder.rglob("*.ckpt"):
            status = path.stat()
            if status.st_mtime > self._sent:
                self._sent = status.st_mtime
                if status.st_size <= self._most * 1e6:
                    return {path.relative_to(self._folder).as_posix(): path.read_bytes()}
                print(f"a checkpoint of {status.st_size / 1e6:.0f} MB stays on this node; see --checkpoint-mb")
        return {}


def on_node(order: Order, files: Refs, data: dict[str, Refs], box: Any, most: float) -> tuple[Outcome, str]:
    """Make a run in a temporary folder of a node; return its outcome with all content, and the rest of its log."""
    if ray.get(box.verdict.remote(order.name))[1] == "stop":  # while it waited for a node
        return Outcome("stopped"), ""
    folder, log = Path(tempfile.mkdtemp(prefix=f"kfbench-{order.name}-")), io.StringIO()
    # of teachers' answers, one a node; a user's number, as in a container it may have no name
    memory = Path(tempfile.gettempdir()) / f"kfbench-memory-{getattr(os, 'getuid', getpass.getuser)()}"
    memory.mkdir(exist_ok=True)
    try:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            here: Files = {place: _content(ref) for place, ref in files.items()}
            checkpoint = {place: content for place, content in here.items() if place.endswith(".ckpt")}
            others = {place: content for place, content in here.items() if place not in checkpoint}
            try:
                lay_out(checkpoint, folder)
                for name, refs in data.items():
                    unpack(name, refs)
            except KfbenchError as error:
                return Outcome("refused", str(error)), ""
            except OSError as error:
                return Outcome("full" if is_full(error) else "refused", str(error)), ""
            reports = Reports(order, box, folder, log, most)
            outcome = carry(order, {**others, MEMORY: memory}, folder=folder, report=reports)
        content = {place: file.read_bytes() for place, file in outcome.files.items() if isinstance(file, Path)}
        return Outcome(outcome.state, outcome.why, content), reports.news()["log"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _content(ref: Any) -> bytes:
    return ref if isinstance(ref, bytes) else ray.get(ref)


def unpack(name: str, refs: Refs) -> None:
    """Put a data set in this node's data folder, if it is not there. Raises KfbenchError if another is."""
    place = data_folder() / name
    if not (place / "pack.json").is_file():
        data_folder().mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(dir=data_folder(), prefix=f".{name}-"))
        for file, ref in refs.items():
            (half / file).write_bytes(_content(ref))
        with contextlib.suppress(OSError):  # another run of this node was faster
            half.rename(place)
        shutil.rmtree(half, ignore_errors=True)
    theirs, ours = (
        json.loads(text)["checksums"] for text in (_content(refs["pack.json"]), (place / "pack.json").read_bytes())
    )
    if theirs != ours:
        raise KfbenchError(f"data set '{name}' in '{place}' of this node is not the driver's; delete it there")


def datasets(spec: RunSpec) -> set[str]:
    """Return the names of the data sets that a run needs: its task's, its stages'; its teachers', for their keys."""
    method = registry.recorded_method(spec.method, spec.settings)
    teachers = (teacher_names.read(name, budget=spec.budget) for name in spec.teachers)
    tasks = {spec.task, *(stage.task for stage in method.stages), *(teacher.task for teacher in teachers)}
    declared = [registry.load_task(task) for task in tasks if task]
    return {task.dataset for task in declared if isinstance(task, ImageTask)}


def environment() -> dict[str, dict[str, str]]:
    """Return, as Ray's runtime environment, where one's own methods, tasks and networks lie, on any node.

    A cluster that was there before the driver knows nothing of the driver's variables.
    """
    names = ("KFBENCH_METHODS", "KFBENCH_TASKS", "KFBENCH_NETWORKS")
    there = {name: os.environ[name] for name in names if name in os.environ}
    return {"env_vars": there} if there else {}


def unfit(needs: dict[str, float], nodes: list[dict[str, float]]) -> str:
    """Say that no node could hold a run, with what it needs and what each node has in all; "" if one could."""
    if any(all(node.get(name, 0.0) >= need for name, need in needs.items()) for node in nodes):
        return ""
    there = dict.fromkeys(_amounts({name: node.get(name, 0.0) for name in needs}) for node in nodes)
    wanted = _amounts({name: need for name, need in needs.items() if need})
    return f"no node of the Ray cluster can hold a run: it needs {wanted}; nodes have {'; '.join(there)}"


def _amounts(of: dict[str, float]) -> str:
    units = {"CPU": (1, "CPU"), "GPU": (1, "GPU"), "memory": (2**30, "GB")}
    return ", ".join(f"{amount / units[name][0]:.4g} {units[name][1]}" for name, amount in of.items())


class Ray:
    """Runs as tasks of a cluster: that at $RAY_ADDRESS, else one on this machine."""

    chains, pause = False, 0.1

    def __init__(self, place: Place, bags: Path) -> None:
        self.require(place)
        address = os.environ.get("RAY_ADDRESS", "")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise KfbenchError(f"no Ray cluster at '{address}': {str(error).splitlines()[0]}") from error
        self._needs = {"CPU": float(place.threads), "GPU": place.gpus_per_run, "memory": place.memory * 2**30}
        totals = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        if said := unfit(self._needs, totals):
            if address in ("", "local"):  # one of ours has no other nodes to come
                ray.shutdown()
                raise KfbenchError(said)
            warnings.warn(f"{said}; it waits for room until one joins (Ctrl-C stops)", KfbenchWarning, stacklevel=2)
        beside = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._box: Any = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=beside).remote(bags.resolve())
        self._bags, self._logs, self._place = bags, place.cache / "logs", place
        self._tasks: dict[str, Any] = {}
        self._put: dict[tuple[Path, float], Any] = {}  # what is in the object store already
        memory = place.memory * 2**30 or None
        self._task = ray.remote(on_node).options(
            num_cpus=place.threads, num_gpus=place.gpus_per_run, memory=memory, max_retries=0, runtime_env=environment()
        )

    @staticmethod
    def require(place: Place) -> None:
        """Raise KfbenchError for a cluster of which this machine is no part."""
        if (address := os.environ.get("RAY_ADDRESS", "")).startswith("ray://"):
            raise KfbenchError(f"the driver cannot run outside the cluster '{address}'; use: ray job submit")

    @property
    def slots(self) -> int:
        """Runs that the cluster has room for now."""
        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return self._place.jobs or max(1, int(min(there.get(r, 0) / n for r, n in self._needs.items() if n)))

    def start(self, order: Order, files: Files) -> None:
        """Hand a run and what it reads to the cluster; it begins where a node has room."""
        bag = self._bags / order.name
        bag.mkdir(exist_ok=True)
        kept = {path.relative_to(bag).as_posix(): path.read_bytes() for path in bag.rglob("*.ckpt")}
        sent = {place: self._ref(file) for place, file in files.items() if isinstance(file, Path) and file.is_file()}
        folders = [data_folder() / name for name in sorted(datasets(registry.read_spec(order.spec)))]
        data = {
            each.name: {file.name: self._ref(file) for file in sorted(each.iterdir())}
            for each in folders
            if _travels(each)
        }
        self._box.forget.remote(order.name)
        most = self._place.checkpoint_mb
        self._tasks[order.name] = self._task.remote(order, {**sent, **kept}, data, self._box, most)

    def _ref(self, path: Path) -> Any:
        """Put a file into the object store, once."""
        key = (path, path.stat().st_mtime)
        if key not in self._put:
            self._put[key] = ray.put(path.read_bytes())
        return self._put[key]

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """Return what runs have reported; their logs' news go to their files."""
        events: list[tuple[str, dict[str, Any]]] = ray.get(self._box.drain.remote())
        for name, event in events:
            self._write_log(name, event.pop("log"))
        return events

    def _write_log(self, name: str, text: str) -> None:
        with contextlib.suppress(OSError), (self._logs / f"{name}.log").open("a", encoding="utf-8") as file:
            file.write(text)

    def answer(self, name: str, word: Word) -> None:
        """Say to a run what it is to do."""
        self._box.answer.remote(name, word)

    def look(self, name: str) -> Outcome | None:
        """Return how a run ended; None while it goes on."""
        if not ray.wait([self._tasks[name]], timeout=0)[0]:
            return None
        task = self._tasks.pop(name)
        try:
            outcome: Outcome
            outcome, log = ray.get(task)
        except ray.exceptions.OutOfMemoryError as error:
            return Outcome("memory", str(error).splitlines()[0])
        except (ray.exceptions.RayTaskError, ray.exceptions.RuntimeEnvSetupError) as error:  # not one of `carry`'s
            return Outcome("refused", str(error).strip().splitlines()[-1])
        except ray.exceptions.RayError as error:
            return Outcome("lost", f"{type(error).__name__}: {error}".splitlines()[0])
        self._write_log(name, log)
        return outcome

    def close(self) -> None:
        """End what still runs, and leave the cluster."""
        for task in self._tasks.values():
            ray.cancel(task, force=True)
        ray.shutdown()


def _travels(folder: Path) -> bool:
    """Say whether a data set is here and small enough to be sent."""
    return (folder / "pack.json").is_file() and sum(path.stat().st_size for path in folder.iterdir()) <= MOST_DATA
