"""The database of trials: SQLite and a real PostgreSQL, shared or alone, left by a dead driver, not to be opened."""

import os
import platform
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
from rich.console import Console

from kfbench.errors import KfbenchError
from kfbench.running import resolve
from kfbench.spec import MOST_SEED
from kfbench.studies import search, steps, trials
from kfbench.studies.place import Place
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


def test_drivers_of_one_study_from_two_results_folders_share_a_database(tmp_path: Path, monkeypatch) -> None:
    """Neither closes the other's trials; where nobody shares the database, a study keeps its own name in it."""
    jobs, grids = jobs_here.jobs()[1:2], []
    monkeypatch.setattr(steps, "drive", lambda grid, *_, **__: grids.append((grid, grid.next(lambda job: True))) or {})
    for name in ("ours", "theirs"):
        place = Place(tmp_path / name, storage=f"sqlite:///{tmp_path}/shared.db")
        steps._make(jobs, {}, place, name="quick", console=Console(quiet=True))
    for queue, job in grids:
        queue.report(job, 1, 50.0)
        queue.ended(job, "failed", "", None)
        jobs_here.dispose(queue._study._storage)
    steps._make(jobs, {}, Place(tmp_path / "alone"), name="quick", console=Console(quiet=True))
    names = [queue._study.study_name for queue, _ in grids]
    assert len({*names}) == 3 and names[2] == "quick" and all(name.startswith("quick-") for name in names[:2])


def test_searches_from_two_results_folders_share_a_database_and_each_goes_on_from_its_own_trials(
    tmp_path: Path, packed_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On whatever node the driver is started again, and where the folder was moved."""
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    asked = search.Search(resolve.resolve("kd", "digits/high", budget="smoke", teachers=["random:digits/high"]), 2)
    driven: list[tuple[str, int]] = []

    def drive(source, *_, **__):
        driven.append((source.study.study_name, source.total))
        job = source.next(lambda job: True)
        if job is not None and len(driven) == 2:
            trials.finish(source.study, source._turns[job.name].trial, "done", "", 50.0)
        return {}

    def begin(name: str, node: str) -> None:
        monkeypatch.setattr(platform, "node", lambda: node)
        with steps._search(asked, Place(tmp_path / name, storage=url), console=Console(quiet=True)):
            pass

    monkeypatch.setattr(steps, "drive", drive)
    url = f"sqlite:///{tmp_path}/shared.db"
    begin("theirs", "login1")
    begin("ours", "login1")
    with trials.storage(url) as storage:
        theirs = optuna.load_study(study_name=driven[0][0], storage=storage)
        assert [trial.state for trial in theirs.trials] == [optuna.trial.TrialState.RUNNING]
    (tmp_path / "ours").rename(tmp_path / "moved")
    begin("moved", "login2")
    assert driven[2] == (driven[1][0], 1) and len({name for name, _ in driven}) == 2
