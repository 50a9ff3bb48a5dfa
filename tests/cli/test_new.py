"""New methods, from anywhere, and their check."""

import json
import os
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from console import TINY, in_a_process

import kfbench.folders
import kfbench.networks
import kfbench.tasks
from kfbench import registry
from kfbench.cli import methods_page, new, templates
from kfbench.folders import PACKAGE, folders
from kfbench.running import records


def for_images(text: str) -> str:
    """A method's text with fewer rules to check: those of images alone."""
    return text.replace("    teachers = ", '    kinds = ("images",)\n    teachers = ')


def test_the_template_passes_its_check_and_runs(type_in: Any) -> None:
    done = type_in("new", "method", "brand_new", "--folder", "mine")
    assert done.code == 0 and done.out == "mine/brand_new.py\nnext: kfbench check mine/brand_new.py\n"
    assert len(Path("mine/brand_new.py").read_text().splitlines()) <= 30 and "#" in templates.METHOD
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
    new.write("methods", "brand_new", Path("mine"))
    path = Path("mine/brand_new.py")
    text = path.read_text().replace("output = student", "student.eval(); output = student")
    path.write_text(for_images(text))
    done = type_in("check", str(path))
    assert done.code == 1 and "BROKEN  mine/brand_new.py: student_trains_in_training_mode" in done.out
    rows = json.loads(type_in("check", str(path), "--json").out)
    assert {"of", "rule", "broken"} == set(rows[0]) and any(row["broken"] for row in rows)


def test_check_takes_tasks_and_variants_too(type_in: Any) -> None:
    for name in ("digits", "imagefolder", "atari", "finetune/last"):
        done = type_in("check", name)
        assert done.code == 0 and done.out.startswith(f"ok      {name}: "), done


def test_a_new_method_goes_to_ones_own_folder(type_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, page = tmp_path / "mine", methods_page.page()
    monkeypatch.setenv("KFBENCH_METHODS", str(mine))
    done = type_in("new", "method", "brand_new")
    assert (done.code, done.out) == (0, f"{mine}/brand_new.py\nnext: kfbench check brand_new\n")
    assert "brand_new" in type_in("list", "methods").out
    assert methods_page.page() == page  # it is of the suite's own methods
    assert "the name 'brand_new' is taken" in type_in("new", "method", "brand_new").err


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own, whose methods and page may be written."""
    place = tmp_path / "checkout"
    for kind in ("methods", "tasks"):
        shutil.copytree(folders(kind)[0], place / kind)
    shutil.copytree(folders("networks")[0], place / "kfbench" / "networks")
    (place / "docs").mkdir()
    for module in (new, methods_page, kfbench.folders):
        monkeypatch.setattr(module, "PACKAGE", place / "kfbench")
    (place / "docs" / "methods.md").write_text(methods_page.page())
    return place


def test_in_a_checkout_the_page_of_methods_is_refreshed(type_in: Any, checkout: Path) -> None:
    assert not methods_page.is_stale()
    done = type_in("new", "method", "brand_new")
    assert done.code == 0 and (checkout / "methods" / "brand_new.py").is_file(), done
    assert done.err == f"{checkout / 'docs' / 'methods.md'} is written anew\n"
    assert "## brand_new" in (checkout / "docs" / "methods.md").read_text() and not methods_page.is_stale()
    path = checkout / "methods" / "brand_new.py"
    path.write_text(path.read_text().replace("weight: float = 1.0", "weight: float = 2.0"))
    assert methods_page.is_stale()
    assert type_in("check", "digits").err == ""  # which is no method of the page
    note = type_in("check", "dist").err
    assert "docs/methods.md' is not what the method files say" in note and "python -m kfbench.cli.methods_page" in note
    methods_page.refresh()
    assert not methods_page.is_stale() and type_in("check", "dist").err == ""


@pytest.mark.parametrize("kind", ["method", "task", "network"])
def test_an_installed_package_is_never_written_to(
    kind: str, type_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "lib" / "site-packages" / "kfbench"
    for inside in ("methods", "tasks", "networks"):
        (package / inside).mkdir(parents=True)
    for module in (new, kfbench.folders):
        monkeypatch.setattr(module, "PACKAGE", package)
    done = type_in("new", kind, "brand_new")
    assert done.code == 2 and len(done.lines) == 1
    assert f"export KFBENCH_{kind.upper()}S=~/{kind}s, or give --folder" in done.err
    assert not list(package.rglob("*.py"))


def test_a_new_task_runs_at_once(type_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFBENCH_TASKS", str(tmp_path / "mine"))
    monkeypatch.setattr("kfbench.tasks.__path__", [*kfbench.tasks.__path__, str(tmp_path / "mine")])
    done = type_in("new", "task", "brand_new_task")
    line = "next: kfbench run --method scratch --task brand_new_task --budget smoke"
    assert done.code == 0 and done.out.splitlines() == [f"{tmp_path}/mine/brand_new_task.py", line]
    assert "brand_new_task/low" in type_in("list", "tasks").out
    for task in ("brand_new_task", "brand_new_task/low"):
        done = type_in(*line.split()[2:4], "scratch", "--task", task, *TINY, "--json")
        assert done.code == 0 and json.loads(done.out)["spec"]["task"] == task, done
    done = type_in("check", "brand_new_task")
    assert done.out.count("ok  ") == 3 and done.err == ""


def test_a_new_network_trains_at_once(type_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFBENCH_NETWORKS", str(tmp_path / "mine"))
    monkeypatch.setattr("kfbench.networks.__path__", kfbench.networks.__path__)
    done = type_in("new", "network", "brand_new_net")
    assert done.code == 0 and "next: kfbench check brand_new_net, and --network brand_new_net" in done.out
    words = ["run", "--method", "scratch", "--task", "digits", "--budget", "smoke", "--epochs", "1", "--json"]
    done = type_in(*words, "--network", "brand_new_net")
    assert done.code == 0 and json.loads(done.out)["spec"]["recipe"]["network"] == "brand_new_net", done


def test_a_new_study_is_planned_at_once(type_in: Any) -> None:
    done = type_in("new", "study", "my-study")
    assert done.out.splitlines() == ["reports/my-study/study.toml", "next: kfbench study reports/my-study --dry-run"]
    done = type_in("study", "reports/my-study", "--dry-run")
    assert done.code == 0 and "kf, random teachers" in done.err + done.out, done
    assert type_in("new", "study", "my-study").code == 2 and type_in("new", "study", "../up").code == 2


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
    new.write("methods", "foldered", tmp_path / "mine")
    package = tmp_path / "site"
    new.write("methods", "packaged", package)
    (package / "the_package.py").write_text(for_images((package / "packaged.py").read_text()))
    (package / "packaged.py").unlink()
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


def test_a_file_of_ones_own_that_hides_behind_another_is_told(
    type_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, name in (("methods", "kf"), ("networks", "cnn")):
        monkeypatch.setenv(f"KFBENCH_{kind.upper()}", str(tmp_path / kind))
        new.write(kind, name, tmp_path / kind)
    done = type_in("run", "--method", "kf", "--task", "digits")
    assert done.code == 2 and len(done.lines) == 1
    assert f"two files are called 'kf', '{folders('methods')[0]}/kf.py' and '{tmp_path}/methods/kf.py'" in done.err
    done = type_in("run", "--method", "scratch", "--task", "digits", "--network", "mynet")
    assert f"('{tmp_path}/networks/cnn.py' is passed over: rename it, there is a 'cnn' already)" in done.err
    monkeypatch.setenv("KFBENCH_METHODS", str(tmp_path / "nowhere"))
    assert (
        f"($KFBENCH_METHODS names '{tmp_path}/nowhere', which is no folder)"
        in type_in("run", "--method", "mine", "--task", "digits").err
    )
