"""The folders as they are shipped: where kfbench comes from, what the wheel holds, what must not be there."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import kfbench
from kfbench import registry
from kfbench.folders import PACKAGE, folders

ROOT = Path(__file__).resolve().parents[1]
OURS = [ROOT / name for name in ("kfbench", "methods", "tasks", "tests")]


def test_the_right_copy_is_tested() -> None:
    """tox sets KFBENCH_TESTED: a wheel that is shadowed by the checkout would be tested in name only."""
    tested = os.environ.get("KFBENCH_TESTED")
    is_wheel = "site-packages" in PACKAGE.parts
    assert tested is None or is_wheel == (tested == "wheel"), f"{tested} is to be tested, but kfbench is {PACKAGE}"
    beside = PACKAGE if is_wheel else ROOT
    assert folders("methods")[0] == str(beside / "methods") and folders("tasks")[0] == str(beside / "tasks")


@pytest.mark.parametrize("kind", ["methods", "tasks"])
def test_every_file_of_the_checkout_is_there_and_imports(kind: str) -> None:
    shipped = {path.stem for path in (ROOT / kind).glob("*.py")}
    assert shipped and shipped <= set(registry.names(kind))
    for name in shipped:
        module = registry.load_module(kind, name)
        assert module.__name__ == f"kfbench.{kind}.{name}" and Path(str(module.__file__)).parent.name == kind


def test_methods_and_tasks_are_no_packages_of_their_own() -> None:
    # an __init__.py there would take the place of the contract's module, in the wheel only
    for kind in ("methods", "tasks"):
        assert not (ROOT / kind / "__init__.py").exists() and not (PACKAGE / kind / "__init__.py").exists()


def test_all_packages_are_named_in_pyproject() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders_there = [path.parent.relative_to(ROOT) for path in (ROOT / "kfbench").rglob("__init__.py")]
    there = {".".join(folder.parts) for folder in folders_there}
    assert set(told["packages"]) == there | {"kfbench.methods", "kfbench.tasks"}


def test_templates_are_shipped() -> None:
    files = {path.relative_to(ROOT / "kfbench") for path in (ROOT / "kfbench" / "reporting" / "templates").iterdir()}
    assert files and all((PACKAGE / path).is_file() for path in files)


@pytest.mark.skipif("site-packages" not in PACKAGE.parts, reason="only a wheel has a list of its files")
def test_the_wheel_holds_the_code_and_nothing_else() -> None:
    files = [str(path) for path in metadata.files("kfbench") or []]
    held = {name for name in files if name.startswith("kfbench/") and "__pycache__" not in name}
    assert {
        f"kfbench/{kind}/{path.name}" for kind in ("methods", "tasks") for path in (ROOT / kind).glob("*.py")
    } <= held
    assert not [name for name in files if re.match(r"(methods|tasks|tests|results|reports)/", name)]


def test_the_version_is_said_once() -> None:
    if "site-packages" in PACKAGE.parts:
        assert metadata.version("kfbench") == kfbench.__version__


def test_importing_does_nothing() -> None:
    """No torch, no folder made, no device chosen by the import of the package, the registry or the command line."""
    code = "import kfbench, kfbench.registry, kfbench.cli, sys; print({'torch', 'pandas', 'optuna'} & set(sys.modules))"
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_nothing_imports_the_folders_by_their_bare_names() -> None:
    for folder in OURS:
        for path in folder.rglob("*.py"):
            assert not re.search(r"^\s*(import|from) (methods|tasks)\b", path.read_text(), re.MULTILINE), path


# what the files of the two folders may use of kfbench; `lint-imports` sees to the rooms themselves (pyproject.toml)
CONTRACT = {"batch", "kinds", "methods", "registry", "tasks", "teachers"}
MAY_IMPORT = {
    "methods": CONTRACT | {"errors", "games", "networks", "seeding", "spec", "transfer"},
    "tasks": {"kinds", "tasks"},
}


@pytest.mark.parametrize("kind", ["methods", "tasks"])
def test_methods_and_tasks_use_the_contract_and_what_stands_below(kind: str) -> None:
    for path in (ROOT / kind).glob("*.py"):
        used = {
            name.removeprefix("kfbench.").partition(".")[0] if name != "kfbench" else alias
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and (name := node.module or "").partition(".")[0] == "kfbench"
            for alias in (each.name for each in node.names)
        }
        assert used <= MAY_IMPORT[kind], f"{path.name} imports {sorted(used - MAY_IMPORT[kind])}"


@pytest.mark.parametrize("folder", ["kfbench", "methods", "tasks", "docs"])
def test_text_is_read_and_written_in_a_code_that_is_named(folder: str) -> None:
    """The system's own code is not UTF-8 on Windows: pages could not be written there."""
    for path in (ROOT / folder).rglob("*.py"):
        for call in (node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Call)):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            strings = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            modes = [text for text in strings if re.fullmatch(r"[rwax+tb]{1,3}", text)]
            is_text = name in ("read_text", "write_text") and isinstance(call.func, ast.Attribute)
            is_text |= name in ("open", "fdopen") and (bool(modes) or isinstance(call.func, ast.Name))
            if is_text and "b" not in "".join(modes):
                assert "encoding" in [word.arg for word in call.keywords], f"{path}:{call.lineno}"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a clone knows what is committed")
def test_what_is_committed_has_names_that_were_meant() -> None:
    """An editor's slip has blanks, quotes and brackets in its name."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [name for name in names.split("\0") if not re.fullmatch(r"[\w./+@-]*", name)] == []


def test_few_files_lie_loose() -> None:
    assert len(list((ROOT / "kfbench").glob("*.py"))) <= 13


@pytest.mark.skipif(not (ROOT / "CONTRIBUTING.md").is_file(), reason="the checkout's own pages")
@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_files_that_pages_walk_through_are_there(page: str) -> None:
    named = re.findall(r"`([\w/.-]+/[\w.-]+\.(?:py|json))`", (ROOT / page).read_text())
    assert len(named) > 10
    for name in named:
        assert (ROOT / name).is_file() or (ROOT / "kfbench" / name).is_file(), f"{page} names '{name}'"


@pytest.mark.skipif(not (ROOT / "tox.ini").is_file(), reason="the checkout's own file")
def test_what_tox_names_is_there() -> None:
    """With pytest-xdist a file that is gone means that none of the others is run."""
    named = re.findall(r"tests/[\w/.-]*", (ROOT / "tox.ini").read_text())
    assert len(named) > 10 and [name for name in named if not (ROOT / name).exists()] == []
