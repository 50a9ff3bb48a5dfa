"""What tests of Knowledge Flow share: short runs with two untrained teachers on made-up digits."""

import numpy as np

from kfbench.methods import Batch
from kfbench.running import resolve, stand_in
from kfbench.train.supervised import Supervised
from kfbench.transfer.mixing import MixedStudent

ROWS = 48
TEACHERS = ["digits/low/cnn-8", "digits/high/mlp-30"]


def live_with(teachers: list[str] | None = None, **settings: object) -> stand_in.Setup:
    spec = resolve.resolve(
        "kf",
        "digits",
        budget="smoke",
        teachers=teachers or TEACHERS,
        recipe={"network": "cnn-4", "batch_size": 16, "epochs": 4},
        settings=settings,  # type: ignore[arg-type]
    )
    return stand_in.setup(spec, rows=ROWS)


def begun(**settings: object) -> tuple[Supervised, MixedStudent, Batch]:
    loop = Supervised(live_with(**settings))
    next(iter(loop))
    assert isinstance(loop.setup.student, MixedStudent)
    return loop, loop.setup.student, loop.batch()


def softmax(values: np.ndarray) -> np.ndarray:
    raised = np.exp(values - values.max())
    return raised / raised.sum()
