"""The process pool: a worker killed, a driver killed, Ctrl-C, a full disk, a run that takes its workers down."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jobs_here
import pytest
from rich.console import Console

from kfbench.errors import KfbenchError
from kfbench.running import records
from kfbench.studies import driver, home, locks, trials
from kfbench.studies.engines import local
from kfbench.studies.place import Place
from kfbench.studies.trials import Grid


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The runs' records, made plainly."""
    return jobs_here.by_hand(tmp_path_factory.mktemp("plain"))


def test_a_killed_worker_costs_nothing_but_time(expected, tmp_path):
    place = Place(tmp_path / "results", jobs=2, checkpoint_seconds=0.3)
    killer = jobs_here.when_there_is_a_checkpoint(place, lambda: jobs_here.kill(jobs_here.pid_of_the_long_run(place)))
    assert jobs_here.drive(place) == {}
    killer()
    jobs_here.check(place, expected)


DRIVER = """
    import sys
    from pathlib import Path
    import jobs_here
    from kfbench.studies.driver import Stopped
    from kfbench.studies.place import Place
    try:
        jobs_here.drive(Place(Path(sys.argv[1]), jobs=2, checkpoint_seconds=0.3))
    except Stopped as error:
        print(error)
        sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_ends_can_be_started_again(expected, tmp_path, number):
    """Killed, it leaves orphans, which stop at a checkpoint; after Ctrl-C it waits for the checkpoints itself."""
    place = Place(tmp_path / "results", jobs=2, checkpoint_seconds=0.3)
    paths = os.pathsep.join([str(Path(jobs_here.__file__).parent), *sys.path])
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), str(place.results)]
    first = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True)
    jobs_here.when_there_is_a_checkpoint(place, lambda: first.send_signal(number))()
    out, _ = first.communicate(timeout=100)
    assert first.returncode == (-9 if number == signal.SIGKILL else 130)
    assert number == signal.SIGKILL or "goes on from there" in out
    assert jobs_here.drive(place) == {}
    jobs_here.check(place, expected)


def test_a_full_disk_is_waited_for(expected, tmp_path, monkeypatch):
    """The first writings of results fail as on a full disk; nothing is made twice, and it is said once."""
    place, tries = Place(tmp_path / "results", jobs=2, checkpoint_seconds=0.3), []
    write = home.write

    def full(target: Path, file: Path) -> None:
        tries.append(target)
        if len(tries) < 4:
            raise OSError(28, "No space left on device")
        write(target, file)

    monkeypatch.setattr(home, "write", full)
    killer = jobs_here.when_there_is_a_checkpoint(place, lambda: jobs_here.kill(jobs_here.pid_of_the_long_run(place)))
    assert jobs_here.drive(place) == {}
    killer()
    assert len(tries) >= 4
    jobs_here.check(place, expected)


def test_a_run_that_takes_its_workers_down_becomes_a_failed_record(tmp_path, monkeypatch):
    """Five workers die with no checkpoint between; the log's last lines are in the record."""
    place = Place(tmp_path / "results", jobs=1)
    monkeypatch.setattr(local, "_child", jobs_here.die)
    job = next(job for job in jobs_here.jobs() if job.spec.method == jobs_here.LONG)
    storage = trials.open_storage(place.url)
    bad = driver.drive(Grid(storage, "s", [job]), [], place, name="s", console=Console(quiet=True))
    jobs_here.dispose(storage)
    (record,) = records.records(place.results)
    assert record.status == "failed" and record.error == bad[job.name]
    assert record.error.startswith("took 5 workers down: its process ended with code 7")
    assert record.traceback.count("a last word") == 5


def test_a_worker_of_another_version_is_refused_in_a_line(tmp_path, monkeypatch):
    place = Place(tmp_path / "results", jobs=1)
    monkeypatch.setattr(driver.carry, "versions", lambda: {"torch": "1.0", "kfbench": "0.1"})
    bad = jobs_here.drive(dataclasses.replace(place, jobs=3))
    assert len(bad) == 4 and not list(records.records(place.results))
    told = [why for why in bad.values() if why.startswith("a worker has torch ")]
    assert len(told) == 2 and all("the driver 1.0; install the same on both" in why for why in told)
    assert sum(why.startswith("its teacher is missing: a worker has") for why in bad.values()) == 2


def test_of_two_drivers_of_a_study_one_works(tmp_path):
    place = Place(tmp_path / "results")
    with locks.alone(place, "fleet"), pytest.raises(KfbenchError, match="'fleet' is being run already"):
        jobs_here.drive(place)


def test_runs_are_spread_over_gpus(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [local.spread("cuda", n) for n in range(4)] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    assert local.spread("cuda:1", 5) == "cuda:1" and local.spread("cpu", 5) == "cpu"
    assert local.spread("auto", 4) == "cuda:1"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert local.spread("auto", 4) == "auto"


def test_a_gpu_that_is_not_here_is_told_before_anything(tmp_path, monkeypatch):
    """Else each run would be refused, and the page made again without a number."""
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for asked, said in (
        ({"gpus_per_run": 0.5}, "--gpus-per-run 0.5: torch sees no GPU"),
        ({"device": "cuda"}, "no GPU 'cuda'"),
    ):
        with pytest.raises(KfbenchError, match=said):
            jobs_here.drive(Place(tmp_path / "results", **asked))
    assert not list(records.records(tmp_path / "results"))


def test_death_for_want_of_memory_is_told_from_others(tmp_path, monkeypatch):
    """A run that the kernel killed for memory is reported once; the count of such deaths stands in /proc/vmstat."""
    counts = iter([3, 4])
    monkeypatch.setattr(local, "_killed_for_memory", lambda: next(counts))
    monkeypatch.setattr(local, "_child", jobs_here.be_killed)
    place = Place(tmp_path / "results", jobs=1)
    job = next(job for job in jobs_here.jobs() if job.spec.method == jobs_here.LONG)
    storage = trials.open_storage(place.url)
    bad = driver.drive(Grid(storage, "s", [job]), [], place, name="s", console=Console(quiet=True))
    jobs_here.dispose(storage)
    assert bad[job.name].startswith("no memory left")
    (record,) = records.records(place.results)
    assert record.status == "failed"
