"""The command line where it is used: pipes, Ctrl-C, terminals without colour or with few letters, folders not ours."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from console import CODE, TINY, in_a_process, key_of

from kfbench.folders import PACKAGE

ENVIRONMENT = {"PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1"}


def started(*words: str, **more: Any) -> subprocess.Popen[str]:
    """Start a command whose Ctrl-C is heard, whatever the tests' own shell does."""
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + CODE
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


@pytest.mark.parametrize(("given", "found"), [({}, "20000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_do_not_wait_awake_for_long_unless_they_are_told_to(
    given: dict[str, str], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    code = "import os, sys\ntry:\n    from kfbench.cli.main import main; main()\n"
    code += "finally:\n    print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    done = in_a_process("--version", environment=given, code=code)
    assert done.out.splitlines()[-1] == f"{found} False"  # set before torch, which reads it when it is loaded


@pytest.mark.parametrize("words", [("list", "--json"), ("--help",), ("new",), ("show", "KEY", "--json")])
def test_a_reader_that_goes_away_is_no_mistake(words: tuple[str, ...], recorded: Path) -> None:
    os.symlink(recorded, "results")
    process = started(*(word.replace("KEY", key_of(recorded)) for word in words))
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # before anything is written
    assert process.stderr.read() == "" and process.wait() in (0, 1, 2)  # typer itself may see it first: 1
    process.stderr.close()


def test_ctrl_c_while_training_says_how_to_go_on(tmp_path: Path) -> None:
    process = started("run", "--method", "scratch", "--task", "digits", *TINY, "--epochs", "100000")
    assert process.stderr is not None
    while "steps" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in err and out == ""
    assert err.splitlines()[-1].endswith("the same command goes on from there")


def test_ctrl_c_elsewhere_is_one_word() -> None:
    code = "import kfbench.cli.listing as listing, time\nlisting.listing = lambda *_: time.sleep(60)\n" + CODE
    handler = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\nprint('here', flush=True)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", handler + code, "list"],
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "stopped\n")


def test_a_terminal_of_few_letters_shows_question_marks() -> None:
    done = in_a_process("data", "list", environment={"PYTHONIOENCODING": "ascii"})
    assert done.code == 0 and "C?H?W" in done.out and not done.err


def test_files_are_utf8_where_the_system_writes_another_code(small: tuple[Path, Path]) -> None:
    """As on Windows, whose code has no ▲: here by the bare C locale, whose code is ASCII."""
    folder, results = small
    study = folder / "study.toml"
    study.write_bytes(b"\xef\xbb\xbf" + study.read_bytes())  # the mark that Windows' editors begin a file with
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = in_a_process(environment=ascii_only, code="import locale; print(locale.getencoding())")
    assert done.out.strip() not in ("utf-8", "UTF-8"), "this test would show nothing"
    Path("own").mkdir()
    for words in (("report", str(folder), "--results", str(results)), ("list",), ("new", "method", "mine")):
        done = in_a_process(*words, environment={**ascii_only, "KFBENCH_METHODS": "own"})
        assert done.code == 0 and not done.err and "cannot be read" not in done.out, done
    written = [path for path in (*folder.rglob("*.*"), *Path("own").rglob("*.*")) if path.suffix not in (".png", "")]
    assert any("▼" in path.read_bytes().decode("utf-8") for path in written)


@pytest.mark.parametrize("columns", ["20", "60", "300"])
def test_no_colour_is_sent_to_a_pipe_at_any_width(columns: str) -> None:
    for words in (("list",), ("data", "list"), ("run", "--help"), ("status",)):
        done = in_a_process(*words, environment={"COLUMNS": columns, "NO_COLOR": "1"})
        assert done.code == 0 and "\x1b" not in done.out + done.err


NOT_OURS = {
    "a file": ("list", "runs", "--results", "file"),
    "a file's status": ("status", "--results", "file"),
    "a file to show": ("show", "0123", "--results", "file"),
    "a file to run in": ("run", "--method", "scratch", "--task", "digits", "--results", "file"),
    "no command": ("lst",),
    "no option": ("list", "--jason"),
    "no value": ("run", "--method"),
    "no number": ("run", "--method", "kf", "--task", "digits", "--seed", "one"),
    "too small a number": ("search", "--method", "kf", "--task", "digits", "--trials", "0"),
    "nothing": ("show",),
}


@pytest.mark.parametrize("words", NOT_OURS.values(), ids=NOT_OURS.keys())
def test_what_is_typed_wrongly_is_one_line(words: tuple[str, ...], type_in: Any) -> None:
    Path("file").write_text("x")
    done = type_in(*words)
    assert done.code == 2 and not done.out and len(done.lines) == 1 and done.lines[0].startswith("error: "), done


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_one_line(type_in: Any, recorded: Path) -> None:
    Path("results").mkdir(mode=0)
    done = type_in("show", "0123")
    assert done.code == 2 and len(done.lines) == 1, done
    Path("results").chmod(0o700)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere everyone has a home")
def test_an_account_without_a_home_is_told_what_to_set(type_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number of its own."""

    def nobody(_: int) -> None:
        raise KeyError

    for name in ("HOME", "KFBENCH_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    for words in (("data", "list"), ("run", "--method", "scratch", "--task", "digits", *TINY)):
        done = type_in(*words)
        assert done.code == 2 and len(done.lines) == 1 and "name a folder with KFBENCH_DATA" in done.err, done


def test_the_version_is_told(type_in: Any) -> None:
    import kfbench

    assert type_in("--version").out == f"kfbench {kfbench.__version__}\n"


@pytest.mark.parametrize(
    ("asked", "meant"), [("KF", "kf"), ("K-F/Alone", "kf"), ("Attention-Transfer", "attention_transfer")]
)
def test_case_and_punctuation_are_no_matter_for_a_near_match(asked: str, meant: str, type_in: Any) -> None:
    assert f"did you mean '{meant}'?" in type_in("run", "--method", asked, "--task", "digits").err


@pytest.mark.parametrize(
    ("asked", "meant"), [("CIFAR-100", "cifar100"), ("cifar_10", "cifar10"), ("Fashion MNIST", "fashion-mnist")]
)
def test_so_it_is_for_tasks(asked: str, meant: str, type_in: Any) -> None:
    assert f"did you mean '{meant}'?" in type_in("run", "--method", "kf", "--task", asked).err
