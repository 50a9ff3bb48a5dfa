"""Commands typed in the tests' own process, as the console script would run them."""

import sys
from typing import NamedTuple

import pytest

from kfbench.cli import main


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
