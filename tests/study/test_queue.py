"""The queue: no job lost, none done twice, whatever dies; last, a real PostgreSQL with workers killed at random."""

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from kfbench.errors import Diverged, KfbenchError
from kfbench.study import queue
from kfbench.study.queue import Job

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")  # `ask` stands for a claim by a worker that dies


@pytest.fixture
def study(tmp_path):
    storage = queue.open_storage(f"sqlite:///{tmp_path}/q.db", heartbeat=1, grace=1)
    made = optuna.create_study(study_name="s", storage=storage, direction="maximize")
    yield made
    storage._backend.engine.dispose() if hasattr(storage, "_backend") else storage.engine.dispose()


def jobs(count: int) -> list[Job]:
    return [Job(f"job-{n}", {"seed": n}, {"label": f"label {n}"}) for n in range(count)]


def counting(done: list[str], action=None):
    def objective(trial):
        trial.suggest_int("seed", 0, 100)
        done.append(queue.of(trial))
        if action:
            action(trial)
        return float(trial.params["seed"])

    return objective


def test_every_job_is_done_once(study):
    queue.fill(study, jobs(5))
    queue.fill(study, jobs(5))
    done: list[str] = []
    queue.work(study, counting(done), poll=0.01)
    assert sorted(done) == [f"job-{n}" for n in range(5)]
    assert set(queue.states(study).values()) == {"done"}
    assert queue.settled(study)["job-3"].value == 3.0


def test_an_invented_trial_does_nothing(study):
    """Optuna makes a trial up when the queue is empty."""
    queue.fill(study, jobs(1))
    done: list[str] = []
    queue.work(study, counting(done), poll=0.01)
    queue._one(study, counting(done))
    assert done == ["job-0"]
    assert study.get_trials()[-1].state == TrialState.FAIL and list(queue.states(study)) == ["job-0"]


def test_failures_are_kept_and_the_rest_goes_on(study):
    def act(trial):
        if queue.of(trial) == "job-1":
            raise Diverged(7, "loss")
        if queue.of(trial) == "job-2":
            raise KfbenchError("no data here")
        if queue.of(trial) == "job-3":
            raise ZeroDivisionError("oh")

    queue.fill(study, jobs(5))
    queue.work(study, counting([], act), poll=0.01)
    found = queue.states(study)
    assert [found[f"job-{n}"] for n in range(5)] == ["done", "failed", "refused", "failed", "done"]
    assert queue.settled(study)["job-2"].user_attrs["why"] == "no data here"
    again: list[str] = []
    queue.fill(study, jobs(5))  # tried again when asked again; those done are done anew under another name
    queue.work(study, counting(again), poll=0.01)
    assert sorted(again) == ["job-0.2", "job-1", "job-2", "job-3", "job-4.2"]


def test_jobs_no_longer_asked_for_leave_the_queue(study):
    queue.fill(study, jobs(4))
    queue.fill(study, jobs(2))
    done: list[str] = []
    queue.work(study, counting(done), poll=0.01)
    assert done == ["job-0", "job-1"]


def test_a_stopped_worker_puts_its_job_back(study):
    def act(trial):
        raise queue.Stopped("asked to")

    queue.fill(study, jobs(2))
    with pytest.raises(queue.Stopped):
        queue.work(study, counting([], act), poll=0.01)
    assert sorted(queue.states(study).values()) == ["lost", "waiting"]
    done: list[str] = []
    queue.work(study, counting(done), poll=0.01)
    assert sorted(done) == ["job-0", "job-1"]


def test_a_claim_without_a_heartbeat_is_found_and_taken_over(study):
    """A worker that dies right after its claim leaves a trial that Optuna itself never calls stale."""
    queue.fill(study, jobs(1))
    study.ask()  # claims job-0, and dies
    assert queue.states(study) == {"job-0": "running"}
    time.sleep(2.5)
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        optuna.storages.fail_stale_trials(study)
    assert queue.states(study) == {"job-0": "running"}  # the trap
    done: list[str] = []
    queue.work(study, counting(done), poll=0.2)
    assert done == ["job-0"]


def test_death_between_failing_and_requeueing_loses_nothing(study):
    queue.fill(study, jobs(1))
    trial = study.ask()
    study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    done: list[str] = []
    queue.work(study, counting(done), poll=0.01)
    assert done == ["job-0"] and study.get_trials()[-1].params == {"seed": 0}


def test_of_two_live_trials_of_a_job_the_older_counts(study):
    """Two workers put a lost job back at the same moment."""
    queue.fill(study, jobs(1))
    study.enqueue_trial({"seed": 0}, user_attrs={"key": "job-0"})
    first, second = study.ask(), study.ask()
    assert queue._is_mine(study, first) and not queue._is_mine(study, second)
    done: list[str] = []
    study.tell(first, 1.0)
    assert not queue._is_mine(study, second)
    study.tell(second, state=TrialState.FAIL)
    queue.work(study, counting(done), poll=0.01)
    assert done == []


def test_a_job_that_kills_its_workers_is_left_alone(study):
    queue.fill(study, jobs(2))
    for _ in range(queue.MOST_DEATHS):
        trial = study.ask()
        while queue.of(trial) != "job-0":
            study.tell(trial, 1.0)
            trial = study.ask()
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        queue.mend(study, set())
    assert queue.states(study)["job-0"] == "refused"


def test_a_worker_thought_dead_survives_it(study):
    """Its trial was failed and taken over while it was paused: it must not crash, nor count."""

    def act(trial):
        if trial.number == 0:
            study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    queue.fill(study, jobs(2))
    done: list[str] = []
    queue.work(study, counting(done, act), poll=0.01)
    assert sorted(done) == ["job-0", "job-0", "job-1"] and set(queue.states(study).values()) == {"done"}


def test_bad_storages_are_one_line():
    with pytest.raises(KfbenchError, match="cannot be opened") as caught:
        queue.open_storage("sqlite:////nowhere/at/all/q.db")
    assert "\n" not in str(caught.value)
    with pytest.raises(KfbenchError) as caught:
        queue.open_storage("postgresql://me:secret@localhost:1/none")
    assert "secret" not in str(caught.value)


WORKER = """
    import os, sys, time
    import optuna
    from kfbench import queue
    storage = queue.open_storage(sys.argv[1], heartbeat=1, grace=3)
    study = queue.load(storage, "s")
    def objective(trial):
        trial.suggest_int("seed", 0, 1000)
        with open(sys.argv[2], "a") as log:
            log.write(f"begin {queue.of(trial)} {os.getpid()}\\n")
        time.sleep(float(sys.argv[3]))
        with open(sys.argv[2], "a") as log:
            log.write(f"end {queue.of(trial)} {os.getpid()}\\n")
        return 1.0
    queue.work(study, objective, poll=0.2)
"""


def start(url: str, log: Path, seconds: float) -> "subprocess.Popen[bytes]":
    code = textwrap.dedent(WORKER)
    return subprocess.Popen([sys.executable, "-W", "error", "-c", code, url, str(log), str(seconds)])


def chaos(url: str, tmp_path: Path, *, count: int, seconds: float) -> None:
    """Four workers, two of them killed at random moments; every job is ended once."""
    storage = queue.open_storage(url, heartbeat=1, grace=3)
    study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
    queue.fill(study, jobs(count))
    log = tmp_path / "log"
    log.touch()
    dice = random.Random(os.getpid())
    workers = [start(url, log, seconds) for _ in range(4)]
    try:
        while "begin" not in log.read_text():
            time.sleep(0.05)
        for victim in workers[:2]:
            time.sleep(dice.uniform(0.05, 2.5))
            victim.send_signal(signal.SIGKILL)
        for worker in workers[2:]:
            assert worker.wait(timeout=180) == 0
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    ended = [line.split()[1] for line in log.read_text().splitlines() if line.startswith("end")]
    killed = {str(worker.pid) for worker in workers[:2]}
    by_killed = [line.split()[1] for line in log.read_text().splitlines() if line.startswith("end")
                 and line.split()[2] in killed]  # fmt: skip
    assert set(ended) == {f"job-{n}" for n in range(count)}
    twice = {key for key in ended if ended.count(key) > 1}
    assert twice <= set(by_killed)  # only a worker killed between its work's end and saying so is repeated
    assert set(queue.states(study).values()) == {"done"}
    (getattr(storage, "_backend", storage)).engine.dispose()


def test_the_last_worker_but_one_dies_with_an_empty_queue(tmp_path):
    """One waits, for there is nothing left to claim; the other is killed in mid-job: the job is taken over."""
    url = f"sqlite:///{tmp_path}/q.db"
    storage = queue.open_storage(url, heartbeat=1, grace=2)
    study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
    queue.fill(study, jobs(1))
    log = tmp_path / "log"
    log.touch()
    doomed = start(url, log, 60.0)
    while "begin" not in log.read_text():
        time.sleep(0.05)
    heir = start(url, log, 0.1)
    time.sleep(1.0)
    doomed.kill()
    doomed.wait()
    assert heir.wait(timeout=90) == 0
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["begin", "begin", "end"]
    assert queue.states(study) == {"job-0": "done"}
    (getattr(storage, "_backend", storage)).engine.dispose()


def postgres_programs() -> Path | None:
    """Where initdb and postgres lie: on the PATH, or where Debian puts them."""
    on_path = shutil.which("initdb")
    places = [Path(on_path).parent] if on_path else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").is_file()), None)


@pytest.fixture
def postgres(tmp_path_factory):
    """A PostgreSQL server in a temporary folder, by an unprivileged user, on a socket only."""
    programs = postgres_programs()
    if programs is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is not installed; CI must have it: apt-get install postgresql")
        pytest.skip("needs PostgreSQL")
    pytest.importorskip("psycopg")
    folder = Path(tmp_path_factory.mktemp("pg"))
    socket = Path(subprocess.check_output(["mktemp", "-d", "/tmp/kfpg-XXXXXX"], text=True).strip())
    user = None
    if os.getuid() == 0:  # postgres refuses to run as root
        user = "nobody"
        for place in (folder, socket):
            shutil.chown(place, user)
        for parent in folder.parents:
            if parent.stat().st_uid == 0 and parent.is_relative_to("/tmp"):
                parent.chmod(parent.stat().st_mode | 0o711)
    data = folder / "data"
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "kfbench", "-A", "trust", "--no-sync"],
        check=True, capture_output=True, user=user, cwd=folder,
    )  # fmt: skip
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={socket}", "-c", "fsync=off"]
    with (socket / "log").open("wb") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, *options], stdout=log, stderr=log, user=user, cwd=folder
        )
    try:
        until = time.monotonic() + 60
        while not list(socket.glob(".s.PGSQL.5432")):
            assert server.poll() is None and time.monotonic() < until, (socket / "log").read_text()
            time.sleep(0.1)
        yield f"postgresql://kfbench@/postgres?host={socket}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)
        shutil.rmtree(socket, ignore_errors=True)


def test_postgresql_with_four_workers_two_of_them_killed(postgres, tmp_path):
    chaos(postgres, tmp_path, count=24, seconds=0.2)
