"""What Tab offers, through typer's own protocol of the shells."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from console import imported_by, in_a_process, key_of

from kfbench import registry
from kfbench.cli import complete


def offered(*words: str, shell: str = "zsh") -> list[str]:
    """Return what is offered for the last word."""
    variables = {"_KFBENCH_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": " ".join(("kfbench", *words))}
    if shell == "bash":
        variables = {
            "_KFBENCH_COMPLETE": "complete_bash",
            "COMP_WORDS": "\n".join(("kfbench", *words)),
            "COMP_CWORD": str(len(words)),
        }
    done = in_a_process(environment=variables)
    assert not done.err, done
    return done.out.splitlines()


@pytest.mark.parametrize(
    ("words", "there", "not_there"),
    [
        (("run", "--method", "k"), ["kf", "kd", "kickstarting"], ["scratch"]),
        (("run", "--method", "kf/"), ["kf/alone"], ["kf"]),
        (("run", "--task", "cifar"), ["cifar10", "cifar100"], ["digits"]),
        (("run", "--task", "atari/po"), ["atari/pong"], ["atari/krull"]),
        (("run", "--network", "resnet8"), ["resnet8", "resnet8x4"], ["resnet20"]),
        (("run", "--teachers", "digits,random:"), ["digits,random:"], ["random:"]),
        (("run", "--budget", ""), ["smoke", "small", "standard", "paper"], []),
        (("run", "--device", ""), ["auto", "cpu", "cuda", "mps"], []),
        (("check", ""), registry.names("methods") + registry.names("tasks"), []),
        (("check", "cnn"), ["cnn-16"], ["resnet8"]),
        (("compare", "--task", "digits", "kf/a"), ["kf/alone"], ["kf"]),
        (("bench", "--method", "scratch,k"), ["scratch,kf", "scratch,kd"], ["kf", "scratch,scratch"]),
        (("data", "download", "cifar"), ["cifar10", "cifar100"], ["mnist"]),
        (("data", "import", "c"), ["cifar10", "cub200"], ["mnist"]),
        (("list", "me"), ["methods"], ["runs"]),
        (("",), ["run", "study", "status"], []),
    ],
)
def test_names_are_offered(words: tuple[str, ...], there: list[str], not_there: list[str]) -> None:
    lines = offered(*words, shell="bash")
    assert set(there) <= set(lines) and not set(not_there) & set(lines), lines


def test_keys_are_offered_with_what_they_are(recorded: Path) -> None:
    key = key_of(recorded)
    os.symlink(recorded, "results")
    assert offered("show", key[:2], shell="bash") == [key]
    [line] = [line for line in offered("show", key[:2]) if key in line]
    assert "digits scratch, seed 0" in line, line


def test_studies_are_offered() -> None:
    for name in ("quick", "slow"):
        Path("reports", name).mkdir(parents=True)
        Path("reports", name, "study.toml").write_text("")
    assert offered("study", "reports/q", shell="bash") == ["reports/quick"]
    assert offered("report", "reports/slow", "reports/q", shell="bash") == ["reports/quick"]


def test_tasks_of_own_data_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFBENCH_DATA", str(tmp_path))
    for name in ("ants", "digits"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pack.json").write_text("{}")
    assert [name for name, _ in complete.tasks("imagefolder/")] == ["imagefolder/ants"]
    assert [name for name, _ in complete.teachers("digits,imagefolder/a")] == ["digits,imagefolder/ants"]
    assert "ants" in [name for name, _ in complete.imports("")]
    assert [name for name, _ in complete.packs("")] == ["ants", "digits"]


def test_teachers_of_the_store_are_offered(recorded: Path) -> None:
    shutil.copytree(recorded, "results")
    imported = Path("results/teachers/imported")
    imported.mkdir()
    (imported / "theirs.safetensors").touch()
    key = key_of(Path("results/teachers"))
    assert offered("teacher", "delete", "imp", shell="bash") == ["imported:theirs"]
    assert offered("teacher", "delete", key[:4], shell="bash") == [key]


def test_results_elsewhere_are_heeded(recorded: Path) -> None:
    key = key_of(recorded)
    assert offered("show", "--results", str(recorded), key[:3], shell="bash") == [key]
    assert offered("show", key[:3], shell="bash") == [""]


def test_completion_is_shown_and_needs_no_torch(type_in: Any) -> None:
    done = in_a_process("--show-completion", "bash", environment={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert done.code == 0 and "_KFBENCH_COMPLETE" in done.out
    variables = {"_KFBENCH_COMPLETE": "complete_bash", "COMP_WORDS": "kfbench\nrun\n--method\n", "COMP_CWORD": "3"}
    done, imported = imported_by(environment=variables)
    assert "kf" in done.out.split() and not imported
    done, imported = imported_by(environment=variables | {"COMP_WORDS": "kfbench\nrun\n--task\ndi\n"})
    assert "digits" in done.out.split() and not imported
