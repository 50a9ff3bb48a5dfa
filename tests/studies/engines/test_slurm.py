"""SLURM on loopback: a requeued job goes on; a driver that was killed finds its jobs again."""

import os
import subprocess
import sys
import textwrap
import time

import jobs_here
import pytest
import slurm_here

from kfbench.errors import KfbenchError, KfbenchWarning
from kfbench.studies import driver
from kfbench.studies.carry import Order, Outcome
from kfbench.studies.engines import slurm
from kfbench.studies.place import Place


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A SLURM of this machine, for the module's tests."""
    with slurm_here.cluster(tmp_path_factory.mktemp("slurm")) as conf, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(conf))
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        yield


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The runs' records, made plainly."""
    return jobs_here.by_hand(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def place(tmp_path):
    """Three jobs at once of one processor each."""
    return Place(tmp_path / "results", on="slurm", jobs=4, checkpoint_seconds=0.3, slurm={"timeout_min": "10"})


def job_of_the_long_run(place: Place) -> str:
    return (jobs_here.bag(place) / "job").read_text()


def requeue(place: Place) -> None:
    """Requeue a job as an administrator would, without the two minutes that SLURM waits before it begins again."""
    job = job_of_the_long_run(place)
    subprocess.run(["scontrol", "requeue", job], check=True)
    until = time.monotonic() + 60
    while "PENDING" not in subprocess.check_output(["squeue", "--noheader", "-j", job, "--format=%T"], text=True):
        assert time.monotonic() < until
        time.sleep(0.2)
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)


def test_a_requeued_job_goes_on(cluster, expected, place):
    actor = jobs_here.when_there_is_a_checkpoint(place, lambda: requeue(place))
    assert jobs_here.drive(place) == {}
    actor()
    jobs_here.check(place, expected)
    assert not list((place.cache / "slurm").glob("*.pkl"))  # submitit's


DRIVER = """
    import sys
    from pathlib import Path
    import jobs_here
    from kfbench.studies.place import Place
    jobs_here.drive(Place(Path(sys.argv[1]), on="slurm", jobs=4, checkpoint_seconds=0.3))
"""


def test_jobs_outlive_their_driver_and_the_next_one_finds_them(cluster, expected, place):
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), str(place.results)]
    first = subprocess.Popen(command)
    jobs_here.when_there_is_a_checkpoint(place, first.kill)()
    first.wait()
    job = job_of_the_long_run(place)
    assert jobs_here.drive(place) == {}
    jobs_here.check(place, expected, is_continued=False)  # nothing had to be continued: the job itself went on
    submitted = subprocess.check_output(["squeue", "--noheader", "--states=all", "--format=%i %j"], text=True)
    named = [line.split()[0] for line in submitted.splitlines() if line.endswith(jobs_here.bag(place).name)]
    assert job in named and len(named) == len({*named})


def test_while_slurm_is_too_busy_to_answer_no_job_counts_as_gone(cluster, expected, place, monkeypatch):
    """No question is answered, for far longer than a job may be unknown to it."""
    ask, submitted, asked = subprocess.run, [], []

    def busy(command, **more):
        if command[0] == "squeue":
            asked.append(time.monotonic())
            raise subprocess.TimeoutExpired(command, slurm.ANSWER)
        return ask(command, **more)

    submit = slurm.submitit.AutoExecutor.submit
    monkeypatch.setattr(slurm.submitit.AutoExecutor, "submit", lambda *a: submitted.append(1) or submit(*a))
    monkeypatch.setattr(slurm.subprocess, "run", busy)
    for name, seconds in (("ASK", 0.1), ("GONE", 0.5)):
        monkeypatch.setattr(slurm, name, seconds)
    assert jobs_here.drive(place) == {}
    jobs_here.check(place, expected, is_continued=False)
    assert asked[-1] - asked[0] > 2 * slurm.GONE and len(submitted) == 4


def test_what_slurm_takes_no_more_of_is_held_back_and_asked_for_again(cluster, expected, place, monkeypatch):
    """A limit of jobs a user, or a controller that does not answer: the jobs that are there go on."""
    submit, asked = slurm.submitit.AutoExecutor.submit, []

    def limited(*words):
        asked.append(time.monotonic())
        if 2 <= len(asked) <= 4:
            raise slurm.FailedJobError("sbatch: error: QOSMaxSubmitJobPerUserLimit")
        return submit(*words)

    monkeypatch.setattr(slurm.submitit.AutoExecutor, "submit", limited)
    monkeypatch.setattr(slurm, "RETRY", 0.5)
    with pytest.warns(KfbenchWarning, match="QOSMaxSubmitJobPerUserLimit; it is asked again every ") as told:
        assert jobs_here.drive(place) == {}
    jobs_here.check(place, expected, is_continued=False)
    assert (
        len(told) == 1
        and len(asked) == 4 + 3
        and all(b - a >= 0.5 for a, b in zip(asked[1:4], asked[2:5], strict=True))
    )


def test_ctrl_c_takes_waiting_jobs_out_of_the_queue(cluster, tmp_path, monkeypatch):
    """A job that waits has nothing to save; it is cancelled at once, and its run is handed over by the next driver."""
    place = Place(tmp_path / "results", on="slurm", slurm={"timeout_min": "10"})
    node = subprocess.check_output(["sinfo", "--noheader", "--format=%n"], text=True).strip()
    subprocess.run(["scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test"], check=True)
    monkeypatch.setattr(slurm, "ASK", 0.2)
    look = slurm.Slurm.look

    def stop(engine: slurm.Slurm, name: str):
        monkeypatch.setattr(slurm.Slurm, "look", look)
        raise KeyboardInterrupt

    monkeypatch.setattr(slurm.Slurm, "look", stop)
    began = time.monotonic()
    try:
        with pytest.raises(driver.Stopped):
            jobs_here.drive(place)
    finally:
        subprocess.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"], check=True)
    assert time.monotonic() - began < 60
    states = subprocess.check_output(["squeue", "--noheader", "--states=all", "--format=%T"], text=True).split()
    assert states.count("CANCELLED") == 4 and "PENDING" not in states


def test_what_slurm_cannot_give_is_refused_in_a_line(cluster, tmp_path):
    for changes, told in (
        ({"gpus_per_run": 0.25}, "SLURM gives whole GPUs, not 0.25; use --on ray"),
        ({"gpus_per_run": 0.25}, "--slurm gres=shard:1 --device cuda"),
        ({"slurm": {"timeout_min": "4h"}}, "--slurm timeout_min=4h: timeout_min is a whole number"),
        ({"slurm": {"partitoin": "gpu"}}, "sbatch refused a run: .*unrecognized option '--partitoin=gpu'"),
    ):
        with pytest.raises(KfbenchError, match=told) as caught:
            jobs_here.drive(Place(tmp_path / "results", on="slurm", **changes))
        assert "\n" not in str(caught.value)


def test_submitits_own_options_are_not_sbatchs(tmp_path):
    options = {"signal_delay_s": "300", "mem_gb": "1.5", "setup": "module load cuda", "nice": "10"}
    found = slurm._options(Place(tmp_path, on="slurm", slurm=options))
    assert (found["slurm_signal_delay_s"], found["mem_gb"], found["slurm_setup"]) == (300, 1.5, ["module load cuda"])
    assert found["slurm_additional_parameters"] == {"kill-on-invalid-dep": "yes", "nice": "10"}


class Executor:
    """Takes jobs and starts none: what the driver's side does without a cluster."""

    def __init__(self, folder, cluster) -> None:
        self.folder = folder

    def update_parameters(self, **_) -> None:
        """Nothing to set."""

    def submit(self, *_):
        raise AssertionError("nothing is to be submitted")


def without_a_cluster(place: Place, monkeypatch, run) -> slurm.Slurm:
    monkeypatch.setattr(slurm.submitit, "AutoExecutor", Executor)
    monkeypatch.setattr(slurm.subprocess, "run", run)
    (place.cache / "runs").mkdir()
    return slurm.Slurm(place, place.cache / "runs")


def test_a_run_that_slurm_does_not_have_is_not_cancelled_there(place, monkeypatch):
    """`scancel` without a number takes whatever is the user's."""
    commands = []
    engine = without_a_cluster(place, monkeypatch, lambda command, **_: commands.append(command))
    (engine.bags / "held").mkdir()
    engine.answer("held", "stop")
    assert commands == [] and (engine.bags / "held" / "word").read_text().startswith("stop")


def test_what_submitit_writes_of_a_job_whose_run_has_ended_goes_too(place, monkeypatch):
    """Its result comes after the run's own word, by which the driver knows of the end."""
    states = iter(["RUNNING", "COMPLETING", "COMPLETED"])

    def squeue(command, **_):
        state = next(states)
        if state == "COMPLETING":
            (engine._executor.folder / "7_0_result.pkl").write_bytes(b"")
        return subprocess.CompletedProcess(command, 0, stdout=f"7 {state}\n")

    engine = without_a_cluster(place, monkeypatch, squeue)
    engine._executor.folder.mkdir()
    engine._jobs["run"] = "7"
    assert engine._forget("run", Outcome("done")) == Outcome("done")
    engine.close()
    assert next(states, None) is None and not list(engine._executor.folder.iterdir())


def test_a_driver_that_begins_while_squeue_is_silent_submits_no_job_twice(place, monkeypatch):
    """The job of the driver before may be there; once squeue answers without it, the job is gone."""
    answers = [None, None, "", ""]

    def squeue(command, **_):
        answer = answers.pop(0)
        if answer is None:
            raise subprocess.TimeoutExpired(command, slurm.ANSWER)
        return subprocess.CompletedProcess(command, 0, answer)

    monkeypatch.setattr(slurm, "ASK", 0.0)
    engine = without_a_cluster(place, monkeypatch, squeue)
    (engine.bags / "x").mkdir()
    (engine.bags / "x" / "job").write_text("7")
    engine.start(Order("x", {}), {})
    assert engine.look("x") is None and engine.look("x") is None
    monkeypatch.setattr(engine, "_patience", 0.0)
    assert engine.look("x").state == "lost"
