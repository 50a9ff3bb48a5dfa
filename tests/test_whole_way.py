"""Every kind of task the whole way, as a user types it: data, run, show, export, verify, study, report.

An own folder of images goes through search, bench and check too.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from console import Console
from PIL import Image

from kfbench.data import sources


@dataclass(frozen=True)
class Way:
    """What is typed for one kind of task. `default` names the methods that find teachers by themselves."""

    task: str
    recipe: tuple[str, ...]
    default: tuple[str, ...]
    named: dict[str, str]  # method -> teachers
    alone: str = ""  # what a method without default teachers says


IMAGES = ("network=cnn-4", "epochs=1", "batch_size=64", "evaluations=1")
GAME = "frames=256+environments=2+rollout=8+minibatches=2+evaluations=1+evaluation_environments=1+test_episodes=1"
GAME += "+evaluation_frames=80"
WAYS = {
    "a data set": Way(
        "digits",
        IMAGES,
        ("kf", "kd", "finetune"),
        {"kf": "digits/low/cnn-8", "kd": "digits/cnn-8", "finetune": "digits/high/cnn-4"},
    ),
    "an own folder": Way(
        "imagefolder/pets",
        IMAGES,
        ("kd",),
        {
            "kf": "digits/low/cnn-8,torchvision:resnet18",
            "kd": "imagefolder/pets/cnn-8",
            "finetune": "imagefolder/pets/1-2/cnn-4",
        },
        "for task 'imagefolder/pets', which has no default ones; give ",
    ),
    "a class range": Way(
        "digits/0-3",
        IMAGES,
        ("kf", "kd", "finetune"),
        {"kf": "digits/high/cnn-8", "kd": "digits/0-3/cnn-8", "finetune": "random:digits/high/cnn-4"},
    ),
    "a variant": Way(
        "digits/low",
        IMAGES,
        ("kf", "kd", "finetune"),
        {"kf": "digits/7-9/cnn-8", "kd": "digits/low/cnn-8", "finetune": "digits/high/cnn-4"},
    ),
    "a game": Way(
        "atari/krull",
        tuple(GAME.split("+")),
        (),
        {
            "kf": f"atari/pong@smoke:{GAME}",
            "finetune": f"atari/pong@smoke:{GAME}",
            "kickstarting": f"atari/krull@smoke:{GAME}",
        },
    ),
}


@pytest.fixture
def console(type_in: Console, packed_digits: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Console:
    """A user's command line in an empty folder, with digits at hand and photographs of pets that are to be imported."""
    monkeypatch.setenv("KFBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "digits").symlink_to(packed_digits / "digits")
    monkeypatch.setattr(sources, "LOCAL", {})
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 3)):
        for label in ("cat", "dog", "Größe 2"):
            for number in range(count):
                path = tmp_path / "photographs" / split / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(path)
    return type_in


def done(console: Console, *words: object) -> str:
    """Type a command that must work, and return what it printed."""
    found = console(*words)
    assert found.code == 0, found.err
    return found.out


@pytest.mark.parametrize("kind", WAYS)
def test_a_task_goes_the_whole_way(kind: str, console: Console, tmp_path: Path) -> None:
    way, own = WAYS[kind], kind == "an own folder"
    if own:
        told = done(console, "data", "import", "pets", "photographs", "--size", "16x16")
        assert "pets: 36 training and 9 test images, 3×16×16, 3 classes" in told
    changes = [word for field in way.recipe for word in ("--set-recipe", field)]
    recipe = ("--budget", "smoke", *changes, "--threads", "1", "--json")

    def run(method: str, *words: str) -> dict:
        return json.loads(done(console, "run", "--method", method, "--task", way.task, *words, *recipe))

    records = [run("scratch")]
    for method in way.default:
        records.append(run(method))
        assert records[-1]["spec"]["teachers"]
    for method in {"kf", "finetune"} - set(way.default) if way.alone else ():
        refused = console("run", "--method", method, "--task", way.task, *recipe)
        assert refused.code == 2 and way.alone in refused.err and len(refused.lines) == 1
    for method, teachers in way.named.items():
        records.append(run(method, "--teachers", teachers))
        assert len(records[-1]["spec"]["teachers"]) == len(teachers.split(","))
    for record in records:
        assert record["status"] == "done" and record["spec"]["task"] == way.task and record["scores"]["last"]
        assert way.task in done(console, "show", record["key"])
    last = records[-1]["key"]
    assert done(console, "export", last, "student.safetensors") and Path("student.safetensors").is_file()
    assert "bit-equal" in done(console, "verify", last)
    study(way, console, tmp_path / "reports" / "mine", seeds=2 if own else 1)
    if own:
        words = ("--method", "kd", "--task", way.task, "--budget", "smoke", *changes)
        done(console, "search", *words, "--trials", "1", "--seeds", "0")
        words = ("--network", "cnn-4", "--teacher", "cnn-8", "--repeats", "3", "--batch-size", "4")
        done(console, "bench", "--task", way.task, "--method", "pathnet", "--method", "kf", *words)
        done(console, "export", last, "student.pt2")
        assert torch.export.load("student.pt2").graph
        assert "BROKEN" not in done(console, "check", way.task)
        shutil.rmtree(tmp_path / "data" / "pets")  # what is recorded can be read without the images
        assert "4 of 4 runs" in done(console, "report", tmp_path / "reports" / "mine")
        assert way.task in done(console, "show", last) and way.task in done(console, "list", "runs")
        gone = console("run", "--method", "scratch", "--task", way.task)
        assert gone.code == 2 and len(gone.lines) == 1 and "kfbench data import pets PATH" in gone.err


def study(way: Way, console: Console, folder: Path, *, seeds: int) -> None:
    """Ask for a study whose first seed has been run already: what else it needs goes through workers."""
    folder.mkdir(parents=True)
    pairs = (field.split("=") for field in way.recipe)
    recipe = ", ".join(f"{name} = {value if value.isdigit() else json.dumps(value)}" for name, value in pairs)
    teachers = json.dumps(way.named["kf"].split(","))
    (folder / "study.toml").write_text(
        f'title = "Mine"\nbudget = "smoke"\nseeds = {seeds}\nmethods = ["scratch", "kf"]\n'
        f'tasks = [{{ task = "{way.task}", teachers = {teachers}, recipe = {{ {recipe} }} }}]\n'
        '[[claims]]\ntext = "it helps"\nbetter = "kf"\nthan = "scratch"\n'
    )
    assert f"{2 * seeds} runs, {2 * seeds - 2} to make" in console("study", folder, "--dry-run").out
    done(console, "study", folder)
    page = (folder / "index.html").read_text()
    assert way.task in page and "it helps" in page
    assert f"{2 * seeds} of {2 * seeds} runs" in done(console, "report", folder)
