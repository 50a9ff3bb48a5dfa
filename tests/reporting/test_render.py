"""The text forms of a table (Markdown, CSV, LaTeX), and the way from a cell back to its runs."""

import csv
import io
import shutil
import subprocess
from dataclasses import replace

import pytest

from kfbench.reporting import render, tables
from kfbench.running import records


def test_markdown_has_every_cell_and_its_notes(made):
    table = tables.tables(made)[0]
    text = render.markdown(table)
    body = [line for line in text.splitlines() if line.startswith("|")]
    assert len(body) == 2 + len(made.rows) and len({line.count("|") for line in body}) == 1
    assert "(published 27.5)" in text and "Published: somebody 2020, table 1." in text
    assert "[^scores-1]:" in text and "**" in text


@pytest.mark.parametrize(("value", "shown"), [(1234567.891, "1234567.891"), (999383.0, "999383"), (27.5, "27.5")])
def test_a_published_number_stands_as_it_was_entered(made, value, shown):
    known = made.study.reference[0].model_copy(update={"value": value})
    table = tables.tables(replace(made, study=made.study.model_copy(update={"reference": [known]})))[0]
    assert f"(published {shown})" in render.markdown(table)
    published = {line["published"] for line in csv.DictReader(io.StringIO(render.as_csv(table)))}
    assert published == {"", shown}


def test_csv_is_unrounded_and_names_the_runs(made):
    table = tables.tables(made)[0]
    lines = list(csv.DictReader(io.StringIO(render.as_csv(table))))
    assert len(lines) == 16
    line = next(line for line in lines if line["row"] == "kf" and line["column"] == "cifar100")
    assert float(line["mean"]) == made.scores("kf", ["cifar100"]).mean()
    assert len(line["keys"].split()) == 4


def test_provenance_leads_to_the_records(made, small):
    _, results = small
    for table in tables.tables(made):
        for label, columns in table.provenance().items():
            for keys in columns.values():
                methods = {records.locate(results, key)[1].spec["method"] for key in keys}
                assert methods == {made.study.row(label).method}


def test_latex_escapes(made):
    text = render.latex(tables.tables(made)[0], "small")
    assert (
        r"\label{tab:small-scores}" in text
        and r"\toprule" in text
        and r"$\pm$" in text
        and text.count(r"\\") == 1 + len(made.rows)
    )


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(made, tmp_path):
    body = "\n".join(render.latex(table, made.study.name) for table in tables.tables(made))
    head = "\\documentclass{article}\n\\usepackage{booktabs,amssymb,graphicx}\n\\begin{document}\n"
    (tmp_path / "t.tex").write_text(f"{head}{body}\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
