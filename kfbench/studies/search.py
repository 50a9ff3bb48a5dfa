"""Search over a method's settings with Optuna on validation data; the best settings are then run on fresh seeds."""

import dataclasses
import math
import statistics
import warnings
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.methods import Method
from kfbench.running import identity
from kfbench.running.records import RunRecord
from kfbench.spec import RunSpec, Setting, digest
from kfbench.studies.carry import State, Word
from kfbench.studies.definition import FIRST_SEED
from kfbench.studies.trials import Job, finish, open_study


@dataclass(frozen=True)
class Search:
    """What is searched: a run whose settings are to be chosen, and how hard."""

    spec: RunSpec
    trials: int
    seeds_per_trial: int = 1
    fixed: tuple[str, ...] = ()  # settings that whoever asks has chosen

    @property
    def space(self) -> dict[str, dict[str, Any]]:
        """What is searched: the space of the method or variant, with the recipe's optimizer, but for what is fixed."""
        method = self.spec.method
        return space(method, self.spec.recipe.optimizer, self.fixed) if has_space(method) else {}

    @property
    def name(self) -> str:
        """The search's name in the storage; another space, or another form of the method, is another search."""
        known: dict[str, Any] = {"spec": self.spec.to_json(), "seeds": self.seeds_per_trial, "space": self.space}
        revision = registry.recorded_method(self.spec.method, self.spec.settings).revision
        known |= {"revision": revision} if revision > 1 else {}
        known |= identity.own_files(self.spec)
        about = digest(known, length=6)
        return f"search-{self.spec.method}-{self.spec.task}-{about}".replace("/", "-")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"spec": self.spec.to_json(), "trials": self.trials, "seeds_per_trial": self.seeds_per_trial}


def space(method: str, optimizer: str = "", fixed: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Return the search space of a method or variant less what is fixed. Raises KfbenchError if it has none."""
    found = space_of(registry.load_method(method), registry.split(method)[1], optimizer)
    if not found:
        raise KfbenchError(f"method '{method}' has nothing to search; give its class a 'search' space, or use --set")
    return {name: range_ for name, range_ in found.items() if name not in fixed}


def space_of(made: Method, variant: str | None, optimizer: str = "") -> dict[str, dict[str, Any]]:
    """Return the space of a variant: its own, or the method's less what makes the variant; {} if nothing is left.

    What is searched is the same with every optimizer; a range may be another (`search_by_optimizer`).
    """
    if variant is None:
        found = made.search
    elif variant in made.variant_search:
        found = made.variant_search[variant]
    else:
        found = {name: range_ for name, range_ in made.search.items() if name not in made.variants[variant]}
    own = made.search_by_optimizer.get(optimizer, {})
    return {name: own.get(name, range_) for name, range_ in found.items()}


def has_space(method: str) -> bool:
    """Say whether a method has settings to search."""
    return bool(space_of(registry.load_method(method), registry.split(method)[1]))


def suggest(trial: Trial, method: str, optimizer: str = "", fixed: Collection[str] = ()) -> dict[str, Setting]:
    """Let the trial choose a value for every setting of the space that is not fixed."""
    types = {field.name: field.type for field in dataclasses.fields(registry.method_class(method))}
    chosen: dict[str, Setting] = {}
    for name, range_ in space(method, optimizer, fixed).items():
        if "choices" in range_:
            chosen[name] = trial.suggest_categorical(name, list(range_["choices"]))
        elif all(isinstance(range_[end], int) for end in ("low", "high")) and "float" not in str(types.get(name)):
            chosen[name] = trial.suggest_int(name, range_["low"], range_["high"], log=range_.get("log", False))
        else:
            chosen[name] = trial.suggest_float(name, range_["low"], range_["high"], log=range_.get("log", False))
    return chosen


def own_values(spec: RunSpec, fixed: Collection[str] = ()) -> dict[str, Setting]:
    """Return the spec's own values of what is searched, where they lie in the space: a search begins with them."""
    searched = space(spec.method, spec.recipe.optimizer, fixed)
    return {name: spec.settings[name] for name, range_ in searched.items() if holds(range_, spec.settings[name])}


def holds(range_: dict[str, Any], value: Any) -> bool:
    """Say whether a value lies in one setting's range or among its choices."""
    return value in range_["choices"] if "choices" in range_ else bool(range_["low"] <= value <= range_["high"])


def sampler(search: Search, trials: int) -> optuna.samplers.BaseSampler:
    """Return TPE, seeded by what is searched and by the trials there are, or a search that goes on would repeat them.

    Trials under way count as bad ones, so that it looks elsewhere.
    """
    seed = (int(digest(search.spec.to_json()), 16) + trials) % 2**31
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True, multivariate=True)


def pruner(search: Search) -> optuna.pruners.BasePruner:
    """Return median pruning along the curve for one seed a trial, else Wilcoxon's across seeds."""
    if search.seeds_per_trial == 1:
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.pruners.WilcoxonPruner(p_threshold=0.1, n_startup_steps=2)


@dataclass
class Turn:
    """A trial under way: its runs on one seed after the other."""

    trial: Trial
    label: str
    scores: list[float] = field(default_factory=list)  # of the seeds that are done


class Trials:
    """A search's trials as jobs: TPE chooses settings when a place is free, and is told what came out.

    The first trial has the spec's own settings, so that what is chosen is no worse on `val` than what was there. Trials
    that an earlier driver ended count; one that it left behind is asked for again.
    """

    def __init__(self, storage: RDBStorage, search: Search, name: str = "") -> None:
        self._search = search
        self.study = open_search(storage, search, name)
        settled = [t for t in self.study.get_trials(deepcopy=False) if _is_settled(t)]
        done = {t.user_attrs.get("key") for t in settled}
        self._keys = [key for key in _trial_keys(search) if key not in done]
        left = {t.user_attrs.get("key"): t.params for t in self.study.get_trials(deepcopy=False) if t not in settled}
        first = {"trial-0000": own_values(search.spec, search.fixed)}
        self._fixed = first | {key: params for key, params in left.items() if params}
        self.total = len(self._keys) * search.seeds_per_trial
        self._turns: dict[str, Turn] = {}  # by the name of the run that is under way
        self._next: deque[Turn] = deque()  # those whose next seed is due

    def next(self, ready: Callable[[Job], bool]) -> Job | None:
        """Return the next seed of a trial under way, or the first of a new one; None if there is neither.

        A trial with the settings of one under way waits for that one's record. Others are drawn meanwhile, but few more
        than are under way: what is drawn knows nothing of what those will tell.
        """
        if not ready(Job(self._search.spec, "")):
            return None
        for turn in self._next:
            if (job := self._job(turn)).name not in self._turns:
                self._next.remove(turn)
                self._turns[job.name] = turn
                return job
        while self._keys and len(self._next) <= len(self._turns):
            turn = self._drawn(self._keys.pop(0))
            if (job := self._job(turn)).name not in self._turns:
                self._turns[job.name] = turn
                return job
            self._next.append(turn)
        return None

    def _drawn(self, key: str) -> Turn:
        spec = self._search.spec
        label = f"search {spec.method} · {spec.task} · {key}"
        self.study.enqueue_trial(self._fixed.get(key, {}), user_attrs={"key": key, "label": label})
        turn = Turn(self.study.ask(), label)
        suggest(turn.trial, spec.method, spec.recipe.optimizer, self._search.fixed)
        return turn

    def _job(self, turn: Turn) -> Job:
        """Return the run on a trial's next seed."""
        spec = fresh(self._search, turn.trial.params, [FIRST_SEED + len(turn.scores)])[0]
        return Job(spec, turn.label, is_judged=self._search.seeds_per_trial == 1)

    def report(self, job: Job, step: int, score: float) -> Word:
        """Take a point of a run's curve; say whether the run is worth going on with."""
        trial = self._turns[job.name].trial
        if not job.is_judged:
            return "go"
        trial.report(score, step)
        return "prune" if trial.should_prune() else "go"

    def ended(self, job: Job, state: State, why: str, record: RunRecord | None) -> None:
        """Take a run's score; a trial that has all its seeds, or is not worth another, is told to Optuna."""
        turn = self._turns.pop(job.name)
        score = job.score(record) if state == "done" else None
        if state == "done" and (score is None or not math.isfinite(score)):
            state, why = "refused", "the run has no score on validation data to search by"
        if state != "done" or score is None:
            finish(self.study, turn.trial, state, why, None)
            return
        turn.scores.append(score)
        if not job.is_judged:
            turn.trial.report(score, len(turn.scores) - 1)
        if len(turn.scores) < self._search.seeds_per_trial and not turn.trial.should_prune():
            self._next.append(turn)
            return
        # where Wilcoxon's test stopped it, the mean so far counts, as Optuna's pruner asks for
        finish(self.study, turn.trial, "done", "", statistics.fmean(turn.scores))


def _is_settled(trial: FrozenTrial) -> bool:
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or trial.user_attrs.get("outcome") == "failed"


def open_search(storage: RDBStorage, search: Search, name: str = "") -> optuna.Study:
    """Return a search's Optuna study, with its sampler and pruner; `name` is what the database calls it, if not so."""
    study = open_study(storage, name or search.name, pruner=pruner(search))
    study.sampler = sampler(search, len(study.get_trials(deepcopy=False)))
    study.set_user_attr("search", search.to_json())
    return study


class Fruitless(KfbenchError):
    """No trial of a search has finished."""


def best(study: optuna.Study, search: Search) -> FrozenTrial:
    """Return the best finished trial of as many as are asked for. Raises Fruitless if there is none.

    The database may have more, of a longer search: to take theirs would give one method more trials than another.
    """
    asked = {*_trial_keys(search)}
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get("key") in asked]
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    if not done:
        whys = [trial.user_attrs["why"] for trial in trials if trial.user_attrs.get("why")]
        last = f" (the last: {whys[-1]})" if whys else ""
        raise Fruitless(f"no trial of '{study.study_name}' has finished{last}; see the logs, or kfbench status")
    return max(done, key=lambda trial: trial.value)  # type: ignore[arg-type, return-value]


def _trial_keys(search: Search) -> list[str]:
    return [f"trial-{n:04d}" for n in range(search.trials)]


def started(study: optuna.Study, search: Search) -> float | None:
    """Return the first trial's value; None if it did not finish, or if not all of its settings were the spec's own."""
    if len(own_values(search.spec, search.fixed)) < len(search.space):
        return None
    trials = [t for t in study.trials if t.user_attrs.get("key") == "trial-0000" and t.value is not None]
    return trials[-1].value if trials else None


def fresh(search: Search, chosen: dict[str, Setting], seeds: list[int]) -> list[RunSpec]:
    """Return the runs that report chosen settings, on seeds the search has not seen."""
    made = registry.recorded_method(search.spec.method, {**search.spec.settings, **chosen})
    return [dataclasses.replace(search.spec, seed=seed, settings=made.settings()) for seed in seeds]
