"""RunSpec: one run as data. Everything a run does follows from it; it reads and writes JSON and imports no torch."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le, Lt

Setting = bool | int | float | str | None
MOST_SEED = 2**63 - 1  # tables of runs (Parquet) have whole numbers of 64 bits


class All:
    """In a field's type: the word "all" stands for None."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import PydanticCustomError
        from pydantic_core.core_schema import no_info_before_validator_function

        def read(value: Any) -> Any:
            if isinstance(value, str) and value.strip().isalpha():
                if value.strip().lower() == "all":
                    return None
                raise PydanticCustomError("number_or_all", "give a whole number above 0, or all")
            return value

        return no_info_before_validator_function(read, handler(source))


NumberOrAll = Annotated[Annotated[int, Gt(0)] | None, All()]


@dataclass(frozen=True)
class AnyRecipe:
    """How a student is trained, whatever the method; each kind of task has a recipe of its own."""

    network: str  # of the student
    optimizer = ""  # no field here: a kind that has one names its optimisers, and a method may have defaults for each

    @classmethod
    def of(cls, spec: "RunSpec") -> Self:
        """Return a run's recipe, which is of this kind."""
        assert isinstance(spec.recipe, cls), f"the recipe of a run on '{spec.task}' is no {cls.__name__}"
        return spec.recipe


@dataclass(frozen=True)
class Recipe(AnyRecipe):
    """How an image classifier is trained, whatever the method; equal for all methods that are compared."""

    network: str = "cnn-16"  # of the student: see kfbench list networks
    epochs: Annotated[float, Gt(0)] = 12  # passes over the training images
    batch_size: Annotated[int, Gt(1)] = 64  # images a step
    train_size: NumberOrAll = None  # training images, balanced over classes
    optimizer: Literal["adamw", "sgd"] = "adamw"  # sgd: with momentum
    lr: Annotated[float, Gt(0)] = 3e-3  # the largest rate of the schedule
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9  # of sgd
    nesterov: bool = True  # of sgd: momentum in Nesterov's form
    weight_decay: Annotated[float, Ge(0)] = 5e-4  # of all parameters; adamw: decoupled
    schedule: Literal["one-cycle", "step", "constant"] = "one-cycle"  # of the rate
    # of "step": parts of the budget after which the rate falls
    milestones: tuple[Annotated[float, Gt(0), Lt(1)], ...] = (0.5, 0.75)
    decay: Annotated[float, Gt(0)] = 0.1  # of "step": what the rate is multiplied by
    pad: Annotated[int, Ge(0)] = 0  # random crops from images padded with this many zeros a side
    flip: bool = False  # random horizontal flips
    crop: Annotated[float, Ge(0), Lt(1)] = 0.0  # random crops of at least this share of the area, resized; 0: none
    views: NumberOrAll = None  # fixed augmentations an image, so teachers are remembered
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0  # of the student's targets
    evaluations: Annotated[int, Gt(0)] = 10  # looks at the validation split, evenly spread
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: autocast; weights stay fp32

    def __post_init__(self) -> None:
        if self.pad and self.crop:
            raise ValueError("pad and crop are two ways to cut; set one of them to 0")


OWN: Any = None  # a default that stands for the algorithm's own value, filled in from ALGORITHMS
ALGORITHMS: dict[str, dict[str, Any]] = {
    # OpenAI baselines' a2c, the synchronous form of A3C (Mnih et al. 2016, arXiv 1602.01783)
    "a2c": {"rollout": 5, "trace": 1.0, "optimizer": "rmsprop", "lr": 7e-4, "passes": 1, "minibatches": 1},
    # Schulman et al. 2017, arXiv 1707.06347, table 5, with 16 environments for 8 and minibatches of 256 rows as there;
    # the limit of the gradient's norm and Adam's epsilon, below, are OpenAI baselines', as the value's weight is of
    # their a2c; in their ppo2, which halves the square, it is half as much
    "ppo": {"rollout": 128, "trace": 0.95, "optimizer": "adam", "lr": 2.5e-4, "passes": 3, "minibatches": 8},
}


@dataclass(frozen=True)
class GameRecipe(AnyRecipe):
    """How an actor-critic is trained, whatever the method; equal for all methods that are compared.

    A frame is the emulator's; an agent step is 4 of them in one environment.
    """

    network: str = "a3c"  # of the student
    algorithm: Literal["a2c", "ppo"] = "ppo"  # a2c: one update a rollout; ppo: several passes over it
    frames: Annotated[int, Gt(0)] = 400_000  # of all emulators together
    environments: Annotated[int, Gt(0)] = 16  # emulators that are played at once
    rollout: Annotated[int, Gt(0)] = OWN  # agent steps of each environment between two updates
    gamma: Annotated[float, Ge(0), Le(1)] = 0.99  # discount of a reward, an agent step
    trace: Annotated[float, Ge(0), Le(1)] = OWN  # lambda of generalised advantages; 1: n-step returns
    optimizer: Literal["rmsprop", "adam"] = OWN  # rmsprop: with TensorFlow's epsilon
    lr: Annotated[float, Gt(0)] = OWN  # at the start
    schedule: Literal["linear", "constant"] = "linear"  # of the rate; linear: down to 0
    epsilon: Annotated[float, Gt(0)] = 1e-5  # of the optimiser; rmsprop: inside the root
    clip_norm: Annotated[float, Gt(0)] = 0.5  # largest norm of the gradient of all weights together
    entropy: Annotated[float, Ge(0)] = 0.01  # weight of the policy's entropy
    value: Annotated[float, Ge(0)] = 0.5  # weight of the squared error of the value
    passes: Annotated[int, Gt(0)] = OWN  # over a rollout, when learning
    minibatches: Annotated[int, Gt(0)] = OWN  # of a pass
    # 1: act on another thread while learning, by weights that are a rollout old
    overlap: Annotated[int, Ge(0), Le(1)] = 0
    correction: Literal["none", "vtrace"] = "none"  # a2c: of returns and advantages, where older weights acted
    clip: Annotated[float, Gt(0)] = 0.1  # ppo: how far the policy's ratio may leave 1
    clip_rewards: bool = True  # to -1..1, for learning only
    lost_life_ends: bool = True  # a return ends at a lost life, for learning only
    sticky: Annotated[float, Ge(0), Lt(1)] = 0.0  # chance of the console repeating the last action; often 0.25
    full_actions: bool = False  # all 18 of the console
    noops: Annotated[int, Ge(0)] = 30  # a start of 0 to noops - 1 of them
    fire: bool = False  # press fire at the start of a game
    episode_frames: Annotated[int, Gt(0)] = 108_000  # limit of an episode when training; its no-op start does not count
    evaluations: Annotated[int, Gt(0)] = 4  # looks at the student alone, evenly spread, after one before the start
    evaluation_environments: Annotated[int, Gt(0)] = 8  # emulators of a look
    evaluation_episodes: Annotated[int, Gt(0)] = 1  # whole episodes of each environment, at a look
    test_episodes: Annotated[int, Gt(0)] = 2  # and at the end
    # limit of an episode when evaluating, counted alike: five minutes of play
    evaluation_frames: Annotated[int, Gt(0)] = 18_000
    greedy: bool = False  # evaluate the likeliest action, not a sampled one
    precision: Literal["fp32", "bf16"] = "fp32"  # of acting and learning; evaluations are fp32

    def __post_init__(self) -> None:
        for name, value in ALGORITHMS[self.algorithm].items():
            if getattr(self, name) is OWN:
                object.__setattr__(self, name, value)
        rows = self.rollout * self.environments
        if rows % self.minibatches:
            raise ValueError(
                f"{self.minibatches} minibatches do not divide a rollout of {rows} rows; change minibatches"
            )
        if self.frames < 4 * rows:
            raise ValueError(f"{self.frames:,} frames are less than a rollout, {rows:,} steps of 4 frames; give more")
        if self.correction == "vtrace" and (self.algorithm, self.passes, self.minibatches) != ("a2c", 1, 1):
            raise ValueError(
                "correction=vtrace needs algorithm=a2c, passes=1 and minibatches=1: one pass over whole rollouts"
            )


YOUNGER: dict[str, Any] = {
    "overlap": 0,
    "correction": "none",
    "crop": 0.0,
    "nesterov": True,
}  # fields that specs leave out, as they did before


@dataclass(frozen=True)
class RunSpec:
    """One run: a method with all its settings, on a task, with teachers, a seed and a recipe."""

    method: str  # "kf", or with a variant "kf/alone"
    task: str  # "cifar100", or with a variant "cifar100/0-49"
    budget: str = "small"
    teachers: tuple[str, ...] = ()
    seed: int = 0
    recipe: AnyRecipe = field(default_factory=Recipe)  # of the class that the task's kind has
    settings: dict[str, Setting] = field(default_factory=dict)  # all of the method's, defaults too

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values. Fields younger than the first records are left out at their defaults."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        recipe = values["recipe"]
        values["recipe"] = {name: v for name, v in recipe.items() if name not in YOUNGER or v != YOUNGER[name]}
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any], recipe: type[AnyRecipe]) -> "RunSpec":
        """Build a spec from what `to_json` gave, with the task's class of recipe: `registry.read_spec` knows it."""
        given: dict[str, Any] = values["recipe"]
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
        return cls(**{**values, "teachers": tuple(values["teachers"]), "recipe": recipe(**fields)})


def typed(value: Any) -> str:
    """Return a field's or a setting's value as a user types it."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)


def digest(values: Any, *, length: int = 12) -> str:
    """Return the first hex digits of the sha256 of plain JSON values, whatever their order in dicts."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]
