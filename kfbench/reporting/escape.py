"""Text that people wrote (titles, labels, claims, errors of runs), made safe for HTML, Markdown and LaTeX.

What stands in backticks is code; nothing else is taken as markup.
"""

import re

from markupsafe import Markup, escape

# a mark between two letters or digits is a mark of the word: attention_transfer
MARKS = re.compile(r"[\\*~\[\]`|]|(?<![^\W_])_|_(?![^\W_])|&(?=[#\w])|[<>]")
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{char: "\\" + char for char in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "→": r"$\rightarrow$",
        "←": r"$\leftarrow$",
        "×": r"$\times$",
        "÷": r"$\div$",
        "▲": r"$\blacktriangle$",
        "▼": r"$\blacktriangledown$",
        "−": "$-$",
        "–": "--",
        "—": "---",
        "…": r"\ldots{}",
        "λ": r"$\lambda$",
        "τ": r"$\tau$",
        "≥": r"$\geq$",
        "≤": r"$\leq$",
        "“": "``",
        "”": "''",
        "’": "'",
        "\n": " ",
    }
)


def html(text: str) -> Markup:
    """Escape text for HTML, and set what stands in backticks as code."""
    parts = re.split(r"(`[^`]+`)", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part[1:-1]) if n % 2 else escape(part) for n, part in enumerate(parts)
    )


def markdown(text: str, *, is_line: bool = True) -> str:
    """Escape text for Markdown, in a table's cell too; a line has its line breaks turned into spaces.

    Code stays as it is, but for the bar, which would end a cell. A backtick without a mate is a backtick.
    """
    parts = re.split(r"(`[^`]+`)", " ".join(text.split()) if is_line else text)
    return "".join(part.replace("|", r"\|") if n % 2 else MARKS.sub(_mark, part) for n, part in enumerate(parts))


def _mark(match: re.Match[str]) -> str:
    return ENTITIES.get(match[0], "\\" + match[0])


def tex(text: str) -> str:
    """Escape text for LaTeX, code as such; characters that pdflatex does not know become a question mark."""
    parts = (part.translate(SPECIAL) for part in re.split(r"`([^`]+)`", text))
    whole = "".join(rf"\texttt{{{part}}}" if n % 2 else part for n, part in enumerate(parts))
    return "".join(char if " " <= char < "\u0250" else "?" for char in whole)
