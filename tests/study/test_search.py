"""Searches: the space, the number of trials, pruning, the best settings on fresh seeds, never the test split."""

import dataclasses
import math
import statistics
import warnings

import optuna
import pytest

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.run import records as store
from kfbench.run import resolve
from kfbench.study import queue, runner, search, trials, worker
from kfbench.study.search import Search

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning", "ignore:Heartbeat of storage")


@pytest.fixture
def storage(tmp_path):
    made = queue.open_storage(f"sqlite:///{tmp_path}/q.db", heartbeat=1, grace=5)
    yield made
    (getattr(made, "_backend", made)).engine.dispose()


@pytest.fixture
def asked():
    spec = resolve.resolve("kd", "digits/high", budget="smoke", recipe={"epochs": 2, "evaluations": 2})
    return Search(spec, trials=3)


@pytest.mark.parametrize("name", [n for n in registry.names("methods") if search.has_space(n)])
def test_every_space_gives_settings_that_the_method_takes(name):
    """At both ends of every range, and anywhere between."""
    space = search.space(name)
    for edge in ("low", "high", None):
        fixed = {
            setting: (range_["choices"][0] if "choices" in range_ else range_[edge])
            for setting, range_ in space.items()
            if edge
        }
        chosen = search.suggest(optuna.trial.FixedTrial(fixed) if edge else _drawn(name), name)
        assert set(chosen) == set(space)
        made = registry.load_method(name, chosen)
        assert all(getattr(made, setting) == value for setting, value in chosen.items())


def _drawn(name: str) -> optuna.Trial:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()


def test_what_lies_outside_the_space_is_left_to_the_sampler():
    spec = resolve.resolve("kd", "digits/high", budget="smoke", settings={"temperature": 0.5})
    assert search.known(spec) == {"alpha": spec.settings["alpha"]}
    spec = resolve.resolve("policy_distillation", "atari/pong")
    assert search.known(spec) == {name: spec.settings[name] for name in ("tau", "actor")}


def test_what_trials_are_judged_by_is_on_validation_in_images_and_games():
    assert trials.goodness({"val_error": 30.0, "test_error": 1.0}) == 70 == trials.goodness({"error": 30.0})
    assert trials.goodness({"val_return": 5.0, "train_return": 9.0}) == 5 == trials.goodness({"return": 5.0})
    assert trials.goodness({"loss": 1.0, "train_return": 9.0}) is None


def test_a_method_without_a_space_is_refused():
    with pytest.raises(KfbenchError, match="method 'scratch' has nothing to search"):
        search.space("scratch")


def test_a_search_makes_its_trials_on_its_own_seeds_and_validation(storage, asked, tmp_path):
    """Three real searches' trials, a restart that adds none, two more asked for, then the best on fresh seeds."""
    results = tmp_path / "results"
    made = search.fill(storage, asked)
    for job in runner.teacher_jobs([asked.spec], results):
        assert job.attrs["teacher"] == asked.spec.teachers[0]
    worker.work(storage, made.study_name, results=results, device="cpu", poll=0.1)
    assert sorted(queue.states(made)) == ["trial-0000", "trial-0001", "trial-0002"]
    records = list(store.records(results))
    assert {record.spec["seed"] for record in records} == {search.FIRST_SEED} and len(records) == 3
    first = next(trial for trial in made.trials if trial.user_attrs["key"] == "trial-0000")
    assert first.params == {name: asked.spec.settings[name] for name in search.space("kd")}
    assert len({tuple(trial.params.values()) for trial in made.trials}) == 3
    search.fill(storage, asked)
    assert len(queue.states(made)) == 3 and "waiting" not in queue.states(made).values()
    more = search.fill(storage, dataclasses.replace(asked, trials=5))
    assert list(queue.states(more).values()).count("waiting") == 2
    best = search.best(made)
    by_validation = max(records, key=lambda record: -record.scores["val"]["error"])
    assert best.value == pytest.approx(100 - by_validation.scores["val"]["error"])
    assert {name: by_validation.spec["settings"][name] for name in best.params} == best.params
    fresh = search.fresh(asked, search.settings(best), [0, 1])
    assert [spec.seed for spec in fresh] == [0, 1]
    assert fresh[0].settings["temperature"] == best.params["temperature"]


def test_the_objective_is_the_mean_over_seeds_and_wilcoxon_may_stop_it(asked, tmp_path, monkeypatch):
    scores = {seed: float(seed % 7) for seed in range(1000, 1010)}
    ran: list[int] = []

    def fake_run(spec, trial, **_):
        ran.append(spec.seed)
        return store.RunRecord("k", spec.to_json(), {}, "done", scores={"val": {"error": 100 - scores[spec.seed]}})

    monkeypatch.setattr(trials, "run_one", fake_run)
    about = dataclasses.replace(asked, seeds_per_trial=4).to_json()
    study = optuna.create_study(direction="maximize", pruner=search.pruner(about), sampler=search.sampler(about))
    study.optimize(search.objective(about, tmp_path, "cpu"), n_trials=1)
    assert ran == [1000, 1001, 1002, 1003]
    assert study.best_value == pytest.approx(statistics.fmean(scores[seed] for seed in ran))
    assert isinstance(search.pruner(about), optuna.pruners.WilcoxonPruner)
    assert isinstance(search.pruner(asked.to_json()), optuna.pruners.MedianPruner)


def test_a_hopeless_run_is_pruned_on_the_way(asked, tmp_path, storage):
    """Six good trials, then one whose curve lies below their median: it stops before its end and leaves no record."""
    about = asked.to_json()
    study = optuna.create_study(direction="maximize", pruner=search.pruner(about), sampler=search.sampler(about))
    first = resolve.resolve("kd", "digits/high", budget="smoke", recipe={"epochs": 2, "evaluations": 2})
    total = _total_steps(first)
    for _ in range(6):
        trial = study.ask({"temperature": optuna.distributions.FloatDistribution(1, 20, log=True)})
        for step in (total // 2, total):
            trial.report(99.9, step)
        study.tell(trial, 99.9)
    objective = search.objective(about, tmp_path / "results", "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.optimize(objective, n_trials=1)
    assert study.trials[-1].state == optuna.trial.TrialState.PRUNED
    assert not list(store.records(tmp_path / "results"))
    assert math.isfinite(study.trials[-1].intermediate_values[total // 2])


def _total_steps(spec) -> int:
    from kfbench.data import images
    from kfbench.train.supervised import steps

    data = images.load(registry.load_task(spec.task), spec.recipe.train_size)
    return steps(spec.recipe, len(data.train))


def test_a_variants_space_leaves_alone_what_makes_it_one():
    assert set(search.space("ca_mkd")) - set(search.space("ca_mkd/outputs")) == {"beta"}
    assert set(search.space("kf/guided")) == {"initial_share", "cut", "alone", "agree", "hint"}
    assert not search.has_space("born_again/labels") and not search.has_space("finetune/last")
    chosen = search.suggest(_drawn("fitnets/one-stage"), "fitnets/one-stage")
    assert len(registry.load_method("fitnets/one-stage", chosen).stages) == 1


def test_another_space_is_another_search(asked, monkeypatch):
    before = asked.name
    monkeypatch.setattr(registry.method_class("kd"), "search", {"alpha": {"low": 0.1, "high": 1.0}})
    assert asked.name != before
