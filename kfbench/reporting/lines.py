"""Lines that fit the terminal, or 80 columns where there is none. Imports no numpy."""

import shutil
import textwrap

LEAST = 24  # columns that text is given in any case


def columns() -> int:
    """Return how wide lines may be: $COLUMNS, the terminal's columns, or 80."""
    return shutil.get_terminal_size().columns


def folded(words: str, *, indent: int, first: int | None = None) -> list[str]:
    """Return text in lines that fit, the first with an indent of its own; words stay whole."""
    room = max(columns(), indent + LEAST)
    begin = " " * (indent if first is None else first)
    return textwrap.wrap(
        words,
        room,
        initial_indent=begin,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
