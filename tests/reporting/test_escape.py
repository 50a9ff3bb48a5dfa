"""Text of people in HTML, Markdown and LaTeX: shown as they wrote it, never taken as markup."""

import pytest

from kfbench.reporting import escape

NASTY = '<img src=x onerror="alert(1)"> & <b>*bold*</b> [click](javascript:alert(1)) | a_b _em_ `code | <x>` `lone'


def test_html_is_text_and_backticks_are_code():
    text = escape.html("<b> & `a<b`")
    assert text == "&lt;b&gt; &amp; <code>a&lt;b</code>"


def test_markdown_keeps_no_markup():
    text = escape.markdown(NASTY)
    plain = text.replace("`code \\| <x>`", "")
    assert "<" not in plain and ">" not in plain and "`code \\| <x>`" in text
    assert r"\*bold\*" in text and r"\[click\](javascript" in text and r" \| " in plain
    assert "a_b" in text and r"\_em\_" in text and r"\`lone" in text
    assert escape.markdown("a & b &amp; &#60;") == "a & b &amp;amp; &amp;#60;"


def test_a_renderer_shows_the_text_as_it_was_written():
    """GitHub's dialect, by markdown-it, if it is there (it comes with rich)."""
    markdown_it = pytest.importorskip("markdown_it")
    import html
    import re

    page = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(escape.markdown(NASTY))
    assert set(re.findall(r"</?([a-z]+)", page)) == {"p", "code"}
    assert html.unescape(re.sub(r"</?(p|code)>", "", page)).strip() == NASTY.replace("`code | <x>`", r"code \| <x>")


def test_a_line_stays_a_line_and_a_paragraph_keeps_its_own():
    assert escape.markdown("a\nb\n\n# c") == "a b # c"
    assert escape.markdown("a\n\nb", is_line=False) == "a\n\nb"


def test_latex():
    assert escape.tex("50 % of a_b & c^d #1 {x} \\") == (
        r"50 \% of a\_b \& c\textasciicircum{}d \#1 \{x\} \textbackslash{}"
    )
    assert escape.tex("see `kfbench a_b` or `") == r"see \texttt{kfbench a\_b} or `"
    assert escape.tex("<b>|\n\x07") == r"\textless{}b\textgreater{}\textbar{} ?"


def test_a_backtick_without_a_mate_is_one() -> None:
    assert escape.html("a ` b") == "a ` b" and escape.html("`a` ` b") == "<code>a</code> ` b"
