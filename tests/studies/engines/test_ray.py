"""Ray: two nodes that share no files, one of them killed; a search with pruning; what a node is refused for."""

from pathlib import Path
from types import SimpleNamespace

import jobs_here
import pytest
from optuna.trial import TrialState
from ray.cluster_utils import Cluster

from kfbench.errors import KfbenchError, KfbenchWarning
from kfbench.running import records, resolve
from kfbench.studies.engines import ray as engine
from kfbench.studies.place import Place
from kfbench.studies.search import Search

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, of sockets and processes that it leaves to the collector

SMALL = {"object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head without processors, where the driver is, and two nodes of one, each with a data folder of its own."""
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **SMALL})
    nodes = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", started.address)
        try:
            for number in range(2):
                data = tmp_path_factory.mktemp(f"data-{number}")
                nodes[started.add_node(num_cpus=1, env_vars={"KFBENCH_DATA": str(data)}, **SMALL)] = data
            yield started, nodes
        finally:
            started.shutdown()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The runs' records, made plainly."""
    return jobs_here.by_hand(tmp_path_factory.mktemp("plain"))


def parent_of(pid: int) -> int:
    """A worker's parent is the raylet of its node."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_hopeless_trials_of_a_search_are_pruned(cluster, tmp_path):
    """Two trials at once on two nodes, with no database in common: the driver's pruner stops both."""
    spec = resolve.resolve("kd", "digits/high", budget="smoke", recipe={"epochs": 2, "evaluations": 2})
    place, asked = Place(tmp_path / "results", on="ray"), Search(spec, trials=2)
    study = jobs_here.prune_all_but_good(place, asked)
    ours = [trial for trial in study.trials if "key" in trial.user_attrs]
    assert [trial.state for trial in ours] == [TrialState.PRUNED] * 2
    assert not list(records.records(place.results))
    begun = [trial.datetime_start for trial in ours]
    assert max(begun) < min(trial.datetime_complete for trial in ours)  # both were under way
    jobs_here.dispose(study._storage)


def test_a_node_is_killed_and_its_run_goes_on_at_another(cluster, expected, tmp_path):
    """Nothing is shared but what the driver sends: teachers, data, the checkpoint that came back from the dead node."""
    started, nodes = cluster
    place = Place(tmp_path / "results", on="ray", checkpoint_seconds=0.3)

    def kill_its_node() -> None:
        raylet = parent_of(jobs_here.pid_of_the_long_run(place))
        doomed = next(node for node in nodes if node.all_processes["raylet"][0].process.pid == raylet)
        started.remove_node(doomed, allow_graceful=False)

    killer = jobs_here.when_there_is_a_checkpoint(place, kill_its_node)
    assert jobs_here.drive(place) == {}
    killer()
    assert len(started.worker_nodes) == 1
    jobs_here.check(place, expected)
    assert all((data / "digits" / "pack.json").is_file() for data in nodes.values())


def test_a_node_with_other_data_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("KFBENCH_DATA", str(tmp_path))
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "pack.json").write_text('{"checksums": {"train": "1", "test": "2"}}')
    with pytest.raises(KfbenchError, match="data set 'digits' in .* is not the driver's"):
        engine.unpack("digits", {"pack.json": b'{"checksums": {"train": "3", "test": "4"}}'})
    engine.unpack("other", {"pack.json": b'{"checksums": {}}', "train.safetensors": b"x"})
    assert (tmp_path / "other" / "train.safetensors").read_bytes() == b"x"


def test_the_data_of_teachers_travel_too():
    spec = resolve.resolve("kf", "cifar100", teachers=["random:digits/low", "cifar10"])
    assert engine.datasets(spec) == {"cifar100", "cifar10", "digits"}


def test_a_driver_outside_the_cluster_is_told_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(KfbenchError, match="use: ray job submit"):
        engine.Ray(Place(tmp_path, on="ray"), tmp_path)


def test_a_run_that_no_node_can_hold_is_told_and_of_our_own_cluster_refused(cluster, tmp_path, monkeypatch):
    needs = {"CPU": 2.0, "GPU": 0.0, "memory": 0.0}
    assert engine.unfit(needs, [{"CPU": 1.0}, {"CPU": 2.0}]) == "" != engine.unfit(needs, [{"CPU": 1.0}, {"GPU": 2.0}])
    said = r"can hold a run: it needs 1 CPU, 0.5 GPU; nodes have \d+ CPU, 0 GPU"
    with pytest.warns(KfbenchWarning, match=f"{said}.*waits for room until one joins"):
        engine.Ray(Place(tmp_path, on="ray", gpus_per_run=0.5), tmp_path).close()
    monkeypatch.delenv("RAY_ADDRESS")
    with pytest.raises(KfbenchError, match=said):
        engine.Ray(Place(tmp_path, on="ray", gpus_per_run=0.5), tmp_path)


def test_a_checkpoint_that_finds_no_room_beside_the_driver_ends_no_run(tmp_path):
    """The report counts all the same, and the checkpoint before stays."""
    box, event = engine.Mailbox(tmp_path), {"step": 1}
    assert box.report("x", event, {"a.ckpt": b"1"}) == "go"
    (tmp_path / "x" / "a.tmp").mkdir()  # nothing can be written there, not even by root
    assert box.report("x", event, {"a.ckpt": b"2"}) == "go"
    assert (tmp_path / "x" / "a.ckpt").read_bytes() == b"1" and len(box.drain()) == 2


def test_the_checkpoint_that_a_run_begins_with_is_not_sent_back_as_a_new_one(tmp_path, monkeypatch):
    """The driver would take it for progress, and hand over without end a run that takes every worker down."""
    sent: list[dict[str, bytes]] = []

    def carried(order, files, *, folder, report):
        there = folder / ".checkpoints" / "x.ckpt"
        assert there.read_bytes() == b"old" and [*files] == ["teachers/w", ".cache/memory"]
        sent.append(report._checkpoint())
        there.write_bytes(b"new")
        engine.os.utime(there, (there.stat().st_mtime + 1,) * 2)
        sent.append(report._checkpoint())
        return engine.Outcome("done")

    monkeypatch.setattr(engine, "carry", carried)
    monkeypatch.setattr(engine.ray, "get", lambda answer: answer)
    box = SimpleNamespace(verdict=SimpleNamespace(remote=lambda name: (0, "go")))
    engine.on_node(engine.Order("x", {}), {"teachers/w": b"w", ".checkpoints/x.ckpt": b"old"}, {}, box, 500.0)
    assert sent == [{}, {".checkpoints/x.ckpt": b"new"}]


def test_workers_of_a_cluster_that_was_there_before_learn_where_ones_own_methods_lie(cluster, monkeypatch):
    ray, ask = engine.ray, engine.ray.remote(lambda name: engine.os.environ.get(name))
    assert engine.environment() == {}
    monkeypatch.setenv("KFBENCH_METHODS", "/data/methods")
    assert engine.environment() == {"env_vars": {"KFBENCH_METHODS": "/data/methods"}}
    ray.init(address=cluster[0].address, log_to_driver=False)
    try:
        told = [ask.options(runtime_env=env).remote("KFBENCH_METHODS") for env in ({}, engine.environment())]
        assert ray.get(told, timeout=120) == [None, "/data/methods"]
    finally:
        ray.shutdown()
