"""The files of a report: the same bytes each time, stale ones removed, those of others left alone; and its readme."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from kfbench.errors import KfbenchError, KfbenchWarning
from kfbench.reporting import grid, readme
from kfbench.reporting import page as report
from kfbench.studies import definition


def test_records_alone_decide_every_byte(reported, tmp_path):
    """A second process, with other settings and hash seed, writes the same files."""
    folder, results = reported
    before = {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    assert len(before) > 25
    for path in before:
        if path.name not in ("study.toml", "plan.json"):
            (folder / path).unlink()
    (tmp_path / "matplotlibrc").write_text("axes.facecolor: red\nsvg.fonttype: path\n")
    code = (
        "import pathlib, sys\nfrom kfbench.reporting import page as report\n"
        f"report.make(pathlib.Path({str(folder)!r}), pathlib.Path({str(results)!r}))\n"
        "assert not {'torch', 'optuna', 'torchvision'} & set(sys.modules)"
    )
    environment = {**os.environ, "MATPLOTLIBRC": str(tmp_path), "PYTHONHASHSEED": "77"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    after = {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    assert [name for name in before if before[name] != after.get(name)] == []
    assert set(after) == set(before)


def test_a_changed_record_is_refused(small):
    folder, results = small
    path = next(path for path in results.rglob("*.json"))
    values = json.loads(path.read_text())
    values["spec"]["seed"] = 99
    path.write_text(json.dumps(values))
    with pytest.raises(KfbenchError, match="was changed by hand"):
        report.make(folder, results)


def test_plots_that_no_longer_exist_are_removed(reported):
    folder, results = reported
    stale = [folder / "plots" / name for name in ("old.svg", "old.png")]
    for path in (*stale, mine := folder / "plots" / "mine.png"):  # as `compare --out` draws one
        path.write_text("<svg/>")
    report.make(folder, results)
    assert not any(path.exists() for path in stale) and (folder / "plots" / "gains.svg").exists()
    assert mine.exists()


def test_tables_that_no_longer_exist_are_removed(small):
    folder, results = small
    shutil.rmtree(results)  # the tables are there all the same, and no plot takes its time
    report.make(folder, results)
    assert (folder / "tables" / "scores.tex").exists()
    (folder / "tables" / "mine.tex").write_text("")
    path = folder / "study.toml"
    path.write_text(path.read_text() + '\n[[tables]]\nname = "a"\ntitle = "A"\n')
    report.make(folder, results)
    names = {path.name for path in (folder / "tables").iterdir()}
    assert {"a.md", "a.tex", "a.csv", "mine.tex"} <= names and not [name for name in names if "scores" in name]


def test_files_of_the_users_own_are_left_as_they_are(small):
    folder, results = small
    shutil.rmtree(results)
    places = [folder / "README.md", folder / "index.html", folder.parent / "index.html"]
    for path in places:
        path.write_text("mine")
    with pytest.warns(KfbenchWarning, match="is left as it is: it is no page of kfbench") as told:
        report.index(folder.parent, results, {folder.resolve(): report.make(folder, results)}, str)
    assert len(told) == 3 and {path.read_text() for path in places} == {"mine"}
    for path in places:
        path.unlink()
    report.index(folder.parent, results, {folder.resolve(): report.make(folder, results)}, str)
    before = [path.read_bytes() for path in places]
    for path in places:
        path.write_text(path.read_text() + "\n")
    report.index(
        folder.parent, results, {folder.resolve(): report.make(folder, results)}, str
    )  # its own it writes anew
    assert [path.read_bytes() for path in places] == before


def test_the_readme_has_tables_and_pictures(reported):
    folder, _ = reported
    text = (folder / "README.md").read_text()
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert len(pictures) == 9 and all((folder / picture).exists() for picture in pictures)
    assert "| kf beats scratch on images (this study) | **reproduced** |" in text


@pytest.mark.parametrize(("task", "is_said"), [("cifar10", True), ("imagefolder/pets", False)])
def test_the_papers_numbers_are_missed_on_its_tasks_not_on_the_readers_own(task, is_said, tmp_path):
    (tmp_path / "study.toml").write_text(f'title = "T"\nmethods = ["scratch", "kf"]\ntasks = [{{ task = "{task}" }}]\n')
    made = grid.Grid(definition.load(tmp_path), {})
    assert ("are not known to this project" in readme.note(made)) == is_said
