"""Search over a method's settings with Optuna on validation data; the best settings are then run on fresh seeds."""

import dataclasses
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.methods import Method
from kfbench.spec import RunSpec, Setting, digest
from kfbench.study import queue, trials
from kfbench.study.queue import Job

FIRST_SEED = 1000  # of a search; the runs that are reported have seeds of their own


@dataclass(frozen=True)
class Search:
    """What is searched: a run whose settings are to be chosen, and how hard."""

    spec: RunSpec
    trials: int
    seeds_per_trial: int = 1

    @property
    def name(self) -> str:
        """The search's name in the storage; another space is another search."""
        known = {"spec": self.spec.to_json(), "seeds": self.seeds_per_trial, "space": space(self.spec.method)}
        about = digest(known, length=6)
        return f"search-{self.spec.method}-{self.spec.task}-{about}".replace("/", "-")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"spec": self.spec.to_json(), "trials": self.trials, "seeds_per_trial": self.seeds_per_trial}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Search":
        """Build a search from what `to_json` gave."""
        return cls(registry.read_spec(values["spec"]), values["trials"], values["seeds_per_trial"])


def space(method: str) -> dict[str, dict[str, Any]]:
    """Return the search space of a method or variant. Raises KfbenchError if it has none."""
    found = space_of(registry.load_method(method), registry.split(method)[1])
    if not found:
        raise KfbenchError(f"method '{method}' has nothing to search; give its class a 'search' space, or use --set")
    return found


def space_of(made: Method, variant: str | None) -> dict[str, dict[str, Any]]:
    """Return the space of a variant: its own, or the method's less what makes the variant; {} if nothing is left."""
    if variant is None:
        return dict(made.search)
    if variant in made.variant_search:
        return dict(made.variant_search[variant])
    return {name: range_ for name, range_ in made.search.items() if name not in made.variants[variant]}


def has_space(method: str) -> bool:
    """Say whether a method has settings to search."""
    return bool(space_of(registry.load_method(method), registry.split(method)[1]))


def suggest(trial: Trial, method: str) -> dict[str, Setting]:
    """Let the trial choose a value for every setting of the space."""
    types = {field.name: field.type for field in dataclasses.fields(registry.method_class(registry.split(method)[0]))}
    chosen: dict[str, Setting] = {}
    for name, range_ in space(method).items():
        if "choices" in range_:
            chosen[name] = trial.suggest_categorical(name, list(range_["choices"]))
        elif all(isinstance(range_[end], int) for end in ("low", "high")) and "float" not in str(types.get(name)):
            chosen[name] = trial.suggest_int(name, range_["low"], range_["high"], log=range_.get("log", False))
        else:
            chosen[name] = trial.suggest_float(name, range_["low"], range_["high"], log=range_.get("log", False))
    return chosen


def known(spec: RunSpec) -> dict[str, Setting]:
    """Return the spec's own values of what is searched, where they lie in the space: a search begins with them."""
    return {n: spec.settings[n] for n, range_ in space(spec.method).items() if holds(range_, spec.settings[n])}


def holds(range_: dict[str, Any], value: Any) -> bool:
    """Say whether a value lies in one setting's range or among its choices."""
    return value in range_["choices"] if "choices" in range_ else bool(range_["low"] <= value <= range_["high"])


def sampler(about: dict[str, Any]) -> optuna.samplers.BaseSampler:
    """Return TPE, seeded by what is searched; it takes running trials into account."""
    return optuna.samplers.TPESampler(
        seed=int(digest(about["spec"]), 16) % 2**31, constant_liar=True, multivariate=True
    )


def pruner(about: dict[str, Any]) -> optuna.pruners.BasePruner:
    """Return median pruning along the curve for one seed a trial, else Wilcoxon's across seeds."""
    if about["seeds_per_trial"] == 1:
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=0)
    return optuna.pruners.WilcoxonPruner(p_threshold=0.1, n_startup_steps=2)


def objective(about: dict[str, Any], results: Path, device: str) -> queue.Objective:
    """Return what a worker does with a trial of a search: run its settings on one seed or several, score on `val`."""
    search = Search.from_json(about)

    def run(trial: Trial) -> float:
        settings = {**search.spec.settings, **suggest(trial, search.spec.method)}
        made = registry.recorded_method(search.spec.method, settings)
        spec = dataclasses.replace(search.spec, settings=made.settings())
        scores: list[float] = []
        for number in range(search.seeds_per_trial):
            seeded = dataclasses.replace(spec, seed=FIRST_SEED + number)
            try:
                record = trials.run_one(
                    seeded, trial, results=results, device=device, prunes=search.seeds_per_trial == 1
                )
            except trials.Pruned as error:
                raise optuna.TrialPruned(str(error)) from error
            score = trials.goodness(record.scores["val"])
            if score is None or not math.isfinite(score):
                raise KfbenchError(f"run '{record.key}' has no score on validation data to search by")
            scores.append(score)
            if search.seeds_per_trial > 1:
                trial.report(score, number)
                if trial.should_prune() and number + 1 < search.seeds_per_trial:
                    return statistics.fmean(scores)  # as Optuna's WilcoxonPruner asks for: the mean so far counts
        return statistics.fmean(scores)

    return run


def fill(storage: RDBStorage, search: Search) -> optuna.Study:
    """Queue a search's trials as slots: a slot's settings are chosen when it is claimed; those done before count.

    The first trial has the spec's own settings, so that what is chosen is no worse on `val` than what was there.
    """
    about = search.to_json()
    study = optuna.create_study(
        study_name=search.name, storage=storage, direction="maximize", sampler=sampler(about), load_if_exists=True
    )
    study.set_user_attr("search", about)
    before = queue.states(study)
    keys = [f"trial-{number:04d}" for number in range(search.trials)]
    left = [key for key in keys if before.get(key) not in ("done", "pruned", "failed")]
    label = f"search {search.spec.method} · {search.spec.task}"
    fixed = {keys[0]: known(search.spec)}
    queue.fill(study, [Job(key, fixed.get(key, {}), {"label": f"{label} · {key}"}) for key in left])
    return study


def best(study: optuna.Study) -> FrozenTrial:
    """Return the best finished trial. Raises KfbenchError if there is none."""
    try:
        return study.best_trial
    except ValueError as error:
        raise KfbenchError(f"no trial of '{study.study_name}' has finished; see kfbench study's log") from error


def started(study: optuna.Study, spec: RunSpec) -> float | None:
    """Return the first trial's value; None if it did not finish, or if not all of its settings were the spec's own."""
    if len(known(spec)) < len(space(spec.method)):
        return None
    trials = [t for t in study.trials if t.user_attrs.get("key") == "trial-0000" and t.value is not None]
    return trials[-1].value if trials else None


def settings(trial: FrozenTrial) -> dict[str, Setting]:
    """Return the settings that a trial chose."""
    return dict(trial.params)


def fresh(search: Search, chosen: dict[str, Setting], seeds: list[int]) -> list[RunSpec]:
    """Return the runs that report chosen settings, on seeds the search has not seen."""
    made = registry.recorded_method(search.spec.method, {**search.spec.settings, **chosen})
    return [dataclasses.replace(search.spec, seed=seed, settings=made.settings()) for seed in seeds]
