"""The database of trials: SQLite and a real PostgreSQL, what a dead driver left, what cannot be opened."""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import jobs_here
import optuna
import pytest
from optuna.trial import TrialState

from kfbench.errors import KfbenchError
from kfbench.spec import MOST_SEED
from kfbench.studies import trials
from kfbench.studies.trials import Grid


def test_bad_storages_are_one_line():
    with pytest.raises(KfbenchError, match="cannot be opened") as caught:
        trials.open_storage("sqlite:////nowhere/at/all/q.db")
    assert "\n" not in str(caught.value)
    with pytest.raises(KfbenchError) as caught:
        trials.open_storage("postgresql://me:secret@localhost:1/none")
    assert "secret" not in str(caught.value)


def grid_twice(url: str) -> None:
    """A driver dies with two runs under way; the next one begins anew with them, and tells how each ended."""
    jobs, storage = jobs_here.jobs(), trials.open_storage(url)
    first = Grid(storage, "s", jobs)
    assert first.next(lambda job: job.spec.method == "kd").spec.method == "kd"
    assert first.next(lambda job: True) == jobs[0] and first.next(lambda job: False) is None
    jobs_here.dispose(storage)
    storage = trials.open_storage(url)
    second = Grid(storage, "s", jobs)
    handed = [second.next(lambda job: True) for _ in jobs]
    assert handed == jobs and second.next(lambda job: True) is None
    assert second.report(jobs[0], 5, 50.0) == "go"
    for job, state in zip(jobs, ("done", "failed", "refused"), strict=True):
        second.ended(job, state, "because", None)
    kept = optuna.load_study(study_name="s", storage=storage).trials
    assert [trial.state for trial in kept] == [TrialState.FAIL] * 2 + [TrialState.COMPLETE] + [TrialState.FAIL] * 2
    assert kept[2].intermediate_values == {5: 50.0}
    assert [trial.user_attrs["key"] for trial in kept[2:]] == [job.name for job in jobs]
    assert [trial.user_attrs.get("outcome") for trial in kept[2:]] == [None, "failed", "refused"]
    jobs_here.dispose(storage)


def test_any_seed_of_a_study_makes_a_trial(tmp_path):
    """Optuna, whose numbers are floats, would warn of it as a parameter; warnings are errors here."""
    storage = trials.open_storage(f"sqlite:///{tmp_path}/q.db")
    [job, *_] = jobs_here.jobs()
    large = replace(job, spec=replace(job.spec, seed=MOST_SEED))
    assert Grid(storage, "s", [large]).next(lambda _job: True) == large
    [kept] = optuna.load_study(study_name="s", storage=storage).trials
    assert kept.user_attrs["spec"]["seed"] == MOST_SEED
    jobs_here.dispose(storage)


def test_what_a_dead_driver_left_is_closed(tmp_path):
    grid_twice(f"sqlite:///{tmp_path}/q.db")


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


def test_any_database_of_optuna_serves(postgres):
    """`--storage postgresql://…`, for a dashboard that several people look at."""
    grid_twice(postgres)
