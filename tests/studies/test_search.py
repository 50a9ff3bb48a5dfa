"""Searches: the space, the number of trials, pruning, the best settings on fresh seeds, never the test split."""

import dataclasses
import math
import statistics
from pathlib import Path

import jobs_here
import optuna
import pytest
from optuna.trial import TrialState

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.running import records, resolve
from kfbench.running.records import RunRecord
from kfbench.studies import search, trials
from kfbench.studies.place import Place
from kfbench.studies.search import Search


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
    assert search.own_values(spec) == {"alpha": spec.settings["alpha"]}
    spec = resolve.resolve("policy_distillation", "atari/pong")
    assert search.own_values(spec) == {name: spec.settings[name] for name in ("tau", "actor")}


def test_what_trials_are_judged_by_is_on_validation_in_images_and_games(asked):
    job = trials.Job(asked.spec, "")
    assert job.score(scored(job, 70.0)) == 70.0 and job.score(None) is None
    game = trials.Job(resolve.resolve("scratch", "atari/pong"), "")
    record = RunRecord(key="k", spec={}, identity={}, status="done", scores={"val": {"return": 5.0}})
    assert game.score(record) == 5.0


def test_a_method_without_a_space_is_refused():
    with pytest.raises(KfbenchError, match="method 'scratch' has nothing to search"):
        search.space("scratch")


def test_what_a_row_fixes_is_not_searched(asked):
    fixed = dataclasses.replace(asked, fixed=("temperature",))
    assert set(asked.space) - set(fixed.space) == {"temperature"} and asked.name != fixed.name
    assert "temperature" not in search.own_values(fixed.spec, fixed.fixed)
    assert "temperature" not in search.suggest(_drawn("kd"), "kd", fixed=fixed.fixed)
    assert asked.name == dataclasses.replace(asked, fixed=("other",)).name  # another setting, the same search


def test_a_search_makes_its_trials_on_its_own_seeds_and_validation(asked, tmp_path):
    """Three real trials, two at once; a restart adds none, a larger number asked for one; the best on fresh seeds."""
    place = Place(tmp_path / "results", jobs=2)
    made = jobs_here.search_on(place, asked).study
    assert [trial.user_attrs["key"] for trial in made.trials] == ["trial-0000", "trial-0001", "trial-0002"]
    assert {trial.state for trial in made.trials} == {TrialState.COMPLETE}
    found = list(records.records(place.results))
    assert {record.spec["seed"] for record in found} == {search.FIRST_SEED} and len(found) == 3
    assert made.trials[0].params == {name: asked.spec.settings[name] for name in search.space("kd")}
    assert len({tuple(trial.params.values()) for trial in made.trials}) == 3
    jobs_here.dispose(jobs_here.search_on(place, asked, trials_there=3).study._storage)
    more = jobs_here.search_on(place, dataclasses.replace(asked, trials=4), trials_there=3).study
    assert len(more.trials) == 4 and len(list(records.records(place.results))) == 4
    best = search.best(made, asked)
    by_validation = max(found, key=lambda record: -record.scores["val"]["error"])
    assert search.started(made, asked) == made.trials[0].value
    if best.number < 3:
        assert best.value == pytest.approx(100 - by_validation.scores["val"]["error"])
        assert {name: by_validation.spec["settings"][name] for name in best.params} == best.params
    fresh = search.fresh(asked, best.params, [0, 1])
    assert [spec.seed for spec in fresh] == [0, 1]
    assert fresh[0].settings["temperature"] == best.params["temperature"]
    assert search.best(more, dataclasses.replace(asked, trials=1)).number == 0  # of a longer search only what is asked
    for study in (made, more):
        jobs_here.dispose(study._storage)


def source_of(tmp_path: Path, asked: Search) -> search.Trials:
    """A search's source with a database of its own."""
    return search.Trials(trials.open_storage(f"sqlite:///{tmp_path / 'q.db'}"), asked)


def scored(job: trials.Job, value: float) -> RunRecord:
    """The record of a run with a score on validation data."""
    scores = {"val": {"error": 100 - value}}
    return RunRecord(key="k", spec=job.spec.to_json(), identity={}, status="done", scores=scores)


def test_the_objective_is_the_mean_over_seeds_and_wilcoxon_may_stop_it(asked, tmp_path):
    """Four seeds a trial, one after the other; once there is a good trial, a bad one is not given all of its seeds."""
    source = source_of(tmp_path, dataclasses.replace(asked, trials=2, seeds_per_trial=8))
    seeds: list[list[int]] = [[], []]
    for number, level in enumerate((90.0, 10.0)):
        while len(source.study.get_trials(states=(TrialState.COMPLETE,))) == number:
            job = source.next(lambda _: True)
            assert job is not None and not job.is_judged
            seeds[number].append(job.spec.seed)
            source.ended(job, "done", "", scored(job, level + job.spec.seed % 7))
    first, second = source.study.trials
    assert seeds[0] == [search.FIRST_SEED + n for n in range(8)]
    assert first.value == pytest.approx(90 + statistics.fmean(seed % 7 for seed in seeds[0]))
    assert len(seeds[1]) < 8 and second.value == pytest.approx(10 + statistics.fmean(seed % 7 for seed in seeds[1]))
    assert source.next(lambda _: True) is None
    jobs_here.dispose(source.study._storage)


def test_trials_under_way_are_as_many_as_are_asked_for_and_one_left_behind_is_asked_for_again(asked, tmp_path):
    """A driver dies with two trials under way; the next one gives both the settings they had."""
    source = source_of(tmp_path, asked)
    under_way = [source.next(lambda _: True) for _ in range(2)]
    assert source.next(lambda _: False) is None  # a teacher is still being made
    assert len({job.name for job in under_way}) == 2
    jobs_here.dispose(source.study._storage)
    again = source_of(tmp_path, asked)
    assert again.total == 3
    assert {again.next(lambda _: True).name for _ in range(2)} == {job.name for job in under_way}
    third = again.next(lambda _: True)
    again.ended(third, "failed", "loss part 'x' was not finite", None)
    assert again.study.trials[-1].user_attrs["why"] == "loss part 'x' was not finite"
    jobs_here.dispose(again.study._storage)


def test_a_trial_that_repeats_one_under_way_waits_and_a_free_place_gets_another(asked, tmp_path):
    """Its record will serve both; but few are drawn ahead of what is under way."""
    source = source_of(tmp_path, dataclasses.replace(asked, trials=6))
    first = {name: asked.spec.settings[name] for name in asked.space}
    source._fixed |= {f"trial-{n:04d}": first for n in (1, 3, 4, 5)}
    under_way = [source.next(lambda _: True) for _ in range(3)]
    assert [job and job.label[-10:] for job in under_way] == ["trial-0000", "trial-0002", None]
    assert len(source.study.trials) == 5  # trial-0005 is drawn when more is known
    source.ended(under_way[0], "done", "", scored(under_way[0], 50.0))
    for label in ("trial-0001", "trial-0003", "trial-0004", "trial-0005"):
        job = source.next(lambda _: True)
        assert job.label.endswith(label) and source.next(lambda _: True) is None
        source.ended(job, "done", "", scored(job, 50.0))
    jobs_here.dispose(source.study._storage)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_hopeless_run_is_pruned_on_the_way(asked, tmp_path, jobs):
    """It stops before its end and leaves no record; as many as there are places are judged at once."""
    place = Place(tmp_path / "results", jobs=jobs)
    study = jobs_here.prune_all_but_good(place, dataclasses.replace(asked, trials=jobs))
    ours = [trial for trial in study.trials if "key" in trial.user_attrs]
    assert [trial.state for trial in ours] == [TrialState.PRUNED] * jobs
    assert all("pruned at step" in trial.user_attrs["why"] for trial in ours)
    assert not list(records.records(place.results))
    assert all(math.isfinite(trial.intermediate_values[jobs_here.total_steps(asked.spec) // 2]) for trial in ours)
    jobs_here.dispose(study._storage)


def test_a_variants_space_leaves_alone_what_makes_it_one():
    assert set(search.space("ca_mkd")) - set(search.space("ca_mkd/outputs")) == {"beta"}
    assert set(search.space("kf/guided")) == {"initial_share", "cut", "alone", "agree", "hint"}
    assert not search.has_space("born_again/labels") and not search.has_space("finetune/last")
    chosen = search.suggest(_drawn("fitnets/one-stage"), "fitnets/one-stage")
    assert len(registry.load_method("fitnets/one-stage", chosen).stages) == 1


def test_a_range_may_be_another_with_the_recipes_optimizer():
    """Knowledge Flow's mixing rate that suits SGD lies below all that suit Adam: a search begins with the default."""
    spec = resolve.resolve("kf", "cifar10", budget="standard", teachers=["cifar100"])
    assert spec.recipe.optimizer == "sgd" and search.own_values(spec)["mix_rate"] == 0.01
    assert search.space("kf", "sgd") == {**search.space("kf"), "mix_rate": {"low": 0.001, "high": 0.1, "log": True}}
    assert 0.001 <= search.suggest(_drawn("kf"), "kf", "sgd")["mix_rate"] <= 0.1
    assert 1.0 <= search.suggest(_drawn("kf"), "kf", "adamw")["mix_rate"] <= 100.0


def test_another_space_is_another_search(asked, monkeypatch):
    before = asked.name
    monkeypatch.setattr(registry.method_class("kd"), "search", {"alpha": {"low": 0.1, "high": 1.0}})
    assert asked.name != before
