"""What tests of fine-tuning share: short runs on made-up digits, and numbers from the authors' code.

`THEIRS` was printed by that code (thuml/Transfer-Learning-Library 0.4, thuml/CoTuning, microsoft/LoRA) for the inputs
that `wave` makes.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kfbench import registry
from kfbench.conformance import tiny
from kfbench.methods import Batch
from kfbench.networks.network import Network
from kfbench.running import stand_in
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.train.setup import Setup
from kfbench.train.supervised import Supervised

ROWS = 48


def wave(*shape: int, pace: float = 1.7) -> Tensor:
    """Numbers in -1..1 that any library makes alike."""
    count = int(np.prod(shape))
    return torch.sin(torch.arange(1, count + 1, dtype=torch.float32) * pace).view(*shape)


def module(name: str) -> Any:
    return registry.load_module("methods", name)


def setup(method: str, **settings: Any) -> Setup:
    """A run of 12 steps on made-up digits with untrained teachers."""
    return stand_in.setup(tiny.spec_of(method, settings or None), rows=ROWS)


def trained(live: Setup, steps: int = 12) -> Supervised:
    loop = Supervised(live)
    for _ in zip(range(steps), loop, strict=False):
        pass
    return loop


def values(of: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in of.state_dict().items()}


def parts_of(live: Setup, batch: Batch, progress: float = 0.5) -> dict[str, Tensor]:
    return live.method.losses(live.student, live.teachers, batch, live.task, progress)[1]


def numbers_task(classes: int = 3) -> tuple[Task, Teacher]:
    """A task of three numbers an image, four features and as many classes, and a teacher with its own head."""
    body = nn.Sequential()
    body.add_module("flat", nn.Flatten())
    body.add_module("fc", nn.Linear(3, 4))
    body.add_module("head", nn.Linear(4, classes))
    network = Network(body, name="tiny", shape=(3, 1, 1), outputs=classes, layers=("body.fc",), heads=("body.head",))
    network.normalise_by(torch.zeros(3), torch.ones(3))
    made = Task("tiny", "images", (3, 1, 1), tuple("abc"), "tiny", 0, 6, 1, lambda _output, _batch: {})
    object.__setattr__(made, "make_network", lambda: network)
    return made, Teacher(network, "teacher", "tiny", tuple("abc"), "")


THEIRS: dict[str, Any] = {
    "bss": (0.9906826019287109, [-0.07870152592658997, -0.2890499532222748, -0.31292134523391724, -0.5110890865325928]),
    "stochnorm": {
        "made": [-0.13452567160129547, 0.9214615821838379, 1.0553408861160278, -0.35245630145072937],
        "slopes": [2.7434494495391846, 0.8633571863174438, -0.2766241431236267, -2.0621349811553955],
        "weight": [0.5789377689361572, 0.2748791575431824, -0.2262081503868103, 3.520617961883545],
        "bias": [-0.1947219967842102, -0.1825583577156067, 0.02365666627883911, 0.2047232985496521],
        "mean": [0.1243855357170105, -0.000330410897731781, -0.031018493697047234, -0.007096894085407257],
        "var": [1.3182941675186157, 1.2701787948608398, 0.8493840098381042, 0.47547656297683716],
    },
    "co_tuning": (1.2616527080535889, [0.08880429714918137, 0.048522964119911194, 0.059847619384527206]),
    "direct": [
        0.5100370645523071, 0.17891733348369598, 0.3110455572605133,
        0.22419218719005585, 0.49640193581581116, 0.2794059216976166,
        0.4752075672149658, 0.3695574998855591, 0.1552349478006363,
    ],
    "reverse": [
        0.5518766045570374, 0.00031424398184753954, 2.7022939320886508e-05, 0.44778209924697876,
        0.0013379044830799103, 0.811992347240448, 7.393206033157185e-06, 0.18666233122348785,
        0.2998378574848175, 2.8792223361051583e-07, 0.7000986337661743, 6.326709262793884e-05,
    ],
    "bi_tuning": {
        "losses": [9.759015083312988, 3.588566780090332],
        "body": [0.12293101102113724, -0.1242518275976181, 0.41168734431266785],
        "projection": [0.07578306645154953, -0.2275294065475464, 0.29716968536376953],
        "place": [2, 2, 2],
        "features": [0.4920307099, 0.0391611122, 0.3677708507, -0.2618238330, 4.845186233520508],
        "projections": [0.2786612809, 0.0863732845, -0.1667603850, 0.1380927116, -0.23027148842811584],
    },
    "lora": (
        [5.131900310516357, -0.16875965893268585, -2.896207332611084],
        [0.3006643056869507, 3.5887951850891113, 1.7782256603240967],
        [8.257776260375977, -5.085097312927246, 10.214027404785156],
    ),
    "lora 3x3": (
        [3.1337997913360596, -2.452136516571045, -0.4926445484161377],
        [1.9434493780136108, 2.913019895553589, 0.13003194332122803],
        [3.5592761039733887, 0.5434671640396118, -1.0063683986663818],
    ),
    "lora merged": [2.228044033050537, -2.7793073654174805, 1.832543134689331],
}  # fmt: skip
