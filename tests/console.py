"""Commands typed in the tests' own process, as the console script would run them, or in one of their own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from kfbench.cli import main
from kfbench.folders import PACKAGE
from kfbench.running import records

CODE = "from kfbench.cli.main import main; main()"
SLOW = {"torch", "torch._dynamo", "numpy", "pandas", "scipy", "optuna", "matplotlib", "ale_py"}  # to import
TELLING = f"""
import sys
from kfbench.cli.main import main
try:
    main()
finally:
    print(*sorted({SLOW} & set(sys.modules)), file=sys.stderr)
"""
TINY = ["--budget", "smoke", "--network", "cnn-4", "--epochs", "1", "--batch-size", "256", "--threads", "1"]
RUN = "run --task digits --budget smoke"


class Done(NamedTuple):
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


class Console:
    """Type with `console("run", "--method", "kf")`."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.patch, self.capture = patch, capture

    def __call__(self, *words: object) -> Done:
        self.patch.setattr(sys, "argv", ["kfbench", *map(str, words)])
        self.capture.readouterr()
        try:
            main.main()
            code = 0
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
        return Done(code, *self.capture.readouterr())


def in_a_process(*words: str, environment: dict[str, str] | None = None, code: str = CODE) -> Done:
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1", **(environment or {})}
    done = subprocess.run([sys.executable, "-c", code, *words], env=env, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def kfbench(place: tuple[Path, dict[str, str]], *words: str, check: int | None = 0) -> str:
    """Type a command in a process of its own, in a folder and an environment; return all that it printed."""
    root, environment = place
    command = [sys.executable, "-c", CODE, *words]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=560)
    assert check is None or done.returncode == check, done.stdout + done.stderr
    return done.stdout + done.stderr


def imported_by(*words: str, environment: dict[str, str] | None = None) -> tuple[Done, set[str]]:
    """Type a command in a process of its own; return what it left, and what it imported of that which is slow."""
    done = in_a_process(*words, environment=environment, code=TELLING)
    *lines, last = done.err.splitlines(keepends=True)
    return done._replace(err="".join(lines)), set(last.split())


def key_of(results: Path) -> str:
    [record] = records.records(results)
    return record.key
