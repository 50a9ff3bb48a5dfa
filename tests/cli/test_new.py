"""New methods, from anywhere, and their check."""

import json
import os
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from console import TINY, in_a_process

from kfbench import registry
from kfbench.cli import new
from kfbench.folders import PACKAGE
from kfbench.run import records


def test_the_template_passes_its_check_and_runs(type_in: Any) -> None:
    done = type_in("new", "method", "brand_new", "--folder", "mine")
    assert done.code == 0 and done.out == "mine/brand_new.py\nnext: kfbench check mine/brand_new.py\n"
    assert len(Path("mine/brand_new.py").read_text().splitlines()) <= 30 and "#" in new.TEXT
    checked = type_in("check", "mine/brand_new.py")
    assert (
        checked.code == 0 and "BROKEN" not in checked.out and checked.out.count("ok ") == len(checked.out.splitlines())
    )
    command = ["run", "--method", "mine/brand_new.py", "--task", "digits", "--teachers", "random:digits/cnn-4"]
    done = type_in(*command, *TINY, "--set", "weight=0.5", "--json")
    assert done.code == 0 and json.loads(done.out)["spec"]["settings"]["weight"] == 0.5
    [record] = records.records(Path("results"))
    assert records.path_of(Path("results"), record.key, record.run_spec()).parent == Path("results/digits/brand_new")
    assert type_in("new", "method", "brand_new", "--folder", "mine").code == 2  # never over what is there


def test_a_broken_method_fails_its_check(type_in: Any) -> None:
    new.write("brand_new", Path("mine"))
    path = Path("mine/brand_new.py")
    path.write_text(path.read_text().replace("output = student", "student.eval(); output = student"))
    done = type_in("check", str(path))
    assert done.code == 1 and "BROKEN  mine/brand_new.py: student_trains_in_training_mode" in done.out
    rows = json.loads(type_in("check", str(path), "--json").out)
    assert {"of", "rule", "broken"} == set(rows[0]) and any(row["broken"] for row in rows)


def test_check_takes_tasks_and_variants_too(type_in: Any) -> None:
    for name in ("digits", "imagefolder", "atari", "finetune/last"):
        done = type_in("check", name)
        assert done.code == 0 and done.out.startswith(f"ok      {name}: "), done


DRIVER = """
import json, sys
from kfbench.cli.main import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["kfbench", *words]
    try:
        main()
    except SystemExit as stopped:
        print("exit", stopped.code or 0)
"""


def test_methods_in_a_folder_of_ones_own_and_in_an_installed_package(tmp_path: Path) -> None:
    new.write("foldered", tmp_path / "mine")
    package = tmp_path / "site"
    new.write("packaged", package)
    (package / "packaged.py").rename(package / "the_package.py")
    (package / "the_package-1.0.dist-info").mkdir()
    (package / "the_package-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: the-package\nVersion: 1.0\n"
    )
    entry = "[kfbench.methods]\npackaged = the_package:Packaged\n"
    (package / "the_package-1.0.dist-info" / "entry_points.txt").write_text(entry)
    environment = {
        "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), str(package)]),
        "KFBENCH_METHODS": str(tmp_path / "mine"),
    }
    tail = ["--task", "digits", "--teachers", "random:digits/cnn-4", *TINY]
    commands = [["list", "methods", "--json"], *(["run", "--method", name, *tail] for name in ("foldered", "packaged"))]
    commands += [["check", "packaged"]]
    done = in_a_process(json.dumps(commands), environment=environment, code=DRIVER)
    assert done.out.count("exit 0") == 4, done
    listed = json.loads(done.out.partition("exit 0")[0])["methods"]
    files = {row["name"]: row["file"] for row in listed}
    assert files["foldered"] == str(tmp_path / "mine" / "foldered.py") and "packaged" in files and "kf" in files
    assert {path.name for path in (tmp_path / "results" / "digits").iterdir()} == {"foldered", "packaged"}


def test_an_entry_point_that_cannot_be_loaded_is_one_line(type_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = EntryPoint("gone", "no_such_package:Gone", "kfbench.methods")
    monkeypatch.setattr(registry, "entry_points", lambda group: [gone] if group == "kfbench.methods" else [])
    assert "gone" in type_in("list", "methods").out
    done = type_in("run", "--method", "gone", "--task", "digits")
    assert done.code == 2 and len(done.lines) == 1 and "no_such_package" in done.err, done
