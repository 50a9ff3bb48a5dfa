"""Names become classes: files, variants, folders of one's own, entry points; settings are checked at the door."""

import dataclasses
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Gt

from kfbench import registry
from kfbench.errors import KfbenchError, near
from kfbench.folders import PACKAGE
from kfbench.methods import Method

METHOD = '''"""A method.

Source: none.
"""

from dataclasses import dataclass

from kfbench.methods import Method

SIZE = 3


@dataclass(frozen=True)
class Mine(Method):
    """Settings."""

    weight: float = 0.5
    size: int = SIZE

    teachers = (1, None)
    variants = {"light": {"weight": 0.1}}
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with the method `mine`, and one that has a name of ours."""
    for name in ("mine", "kd", "_hidden"):
        (tmp_path / f"{name}.py").write_text(METHOD)
    monkeypatch.setenv("KFBENCH_METHODS", str(tmp_path))
    monkeypatch.setattr("kfbench.methods.__path__", [*sys.modules["kfbench.methods"].__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "kfbench.methods.mine", raising=False)
    return tmp_path


def test_files_of_a_users_folder_come_after_ours(mine: Path) -> None:
    found = registry.files("methods")
    assert found["mine"] == mine / "mine.py" and found["kd"].parent != mine and "_hidden" not in found
    assert registry.method_class("mine").__module__ == "kfbench.methods.mine"
    assert registry.load_method("mine").weight == 0.5  # type: ignore[attr-defined]
    assert registry.load_method("mine/light").weight == 0.1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("kf", ("kf", None)),
        ("kf/alone", ("kf", "alone")),
        ("kf/", ("kf", None)),
        ("a/b/mine.py", ("a/b/mine.py", None)),
        ("/a/mine.py/light", ("/a/mine.py", "light")),
    ],
)
def test_split(name: str, parts: tuple[str, str | None]) -> None:
    assert registry.split(name) == parts


def test_a_file_from_anywhere_has_variants(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.py"
    path.write_text(METHOD)
    made = registry.load_method(f"{path}/light", {"size": "7"})
    assert dataclasses.asdict(made) == {"weight": 0.1, "size": 7}
    with pytest.raises(KfbenchError, match="has no variant 'heavy'; "):
        registry.load_method(f"{path}/heavy")


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("weight: float = 0.5", "weight = 0.5", "'weight' is no setting; give it a type"),
        ("@dataclass(frozen=True)\n", "", "'weight' is no setting; .*the class @dataclass"),
        ("teachers = ", "teacher = ", "nothing looks at 'teacher'; did you mean 'teachers'"),
        ("teachers = (1, None)", "needs = 'output'", "needs = 'output' is not known; write one of nothing, features"),
        ("teachers = (1, None)", "needs: str = 'outputs'", "'needs' is no setting, but a part of .* without a type"),
        ("teachers = (1, None)", "kinds: tuple = ('images',)", "'kinds' is no setting"),
        ("teachers = (1, None)", "def loss(self): ...", "nothing looks at 'loss'; did you mean 'losses'"),
        ("teachers = (1, None)", "def stages(self): ...", "'stages' is read, not called; write @property"),
        (
            "teachers = (1, None)",
            "def losses(self, student, teachers, batch, task): ...",
            r"'losses' takes \(self, student, teachers, batch, task\), but is called with \(.*task, progress\)",
        ),
    ],
)
def test_what_a_methods_class_gets_wrong_is_one_line(tmp_path: Path, right: str, wrong: str, said: str) -> None:
    path = tmp_path / "elsewhere.py"
    path.write_text(METHOD.replace(right, wrong))
    with pytest.raises(KfbenchError, match=f"class 'Mine' in '.*elsewhere.py': {said}"):
        registry.load_method(str(path))


def test_a_helper_beside_a_function_of_the_contract_is_its_own_affair(tmp_path: Path) -> None:
    both = (
        "def loss(self, output): ...\n"
        "    def losses(self, student, teachers, batch, task, progress): ...\n"
        "    teachers = (1, None)"
    )
    path = tmp_path / "elsewhere.py"
    path.write_text(METHOD.replace("teachers = (1, None)", both))
    assert registry.load_method(str(path)).teachers == (1, None)


def test_entry_points_of_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("theirs", "kfbench.methods.kd:Distillation", "kfbench.methods"),
        EntryPoint("a_module", "kfbench.methods.scratch", "kfbench.methods"),
        EntryPoint("broken", "no_such_package:Thing", "kfbench.methods"),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: [p for p in points if p.group == group])
    assert {"theirs", "a_module", "broken", "kf"} <= set(registry.names("methods"))
    assert registry.method_class("theirs").__name__ == "Distillation"
    assert registry.method_class("a_module").__name__ == "Scratch"
    assert registry.describe("methods", "theirs")["about"].startswith("from the package 'kfbench.methods.kd")
    with pytest.raises(KfbenchError, match="'no_such_package:Thing' cannot be imported: ModuleNotFoundError"):
        registry.load_method("broken")


def test_a_files_literals_are_read_without_importing_it(mine: Path) -> None:
    (mine / "mine.py").write_text(METHOD + "\nraise RuntimeError('imported')\n")
    told = registry.describe("methods", "mine")
    assert told["about"] == "A method." and told["settings"] == {"weight": 0.5, "size": "SIZE"}
    assert told["attributes"] == {"teachers": (1, None), "variants": {"light": {"weight": 0.1}}}
    (mine / "mine.py").write_text("class Mine(:\n")
    assert registry.describe("methods", "mine")["about"].startswith("cannot be read: ")
    with pytest.raises(KfbenchError, match="mine.py' cannot be imported: SyntaxError"):
        registry.load_method("mine")


@dataclasses.dataclass(frozen=True)
class Settings:
    rate: Annotated[float, Gt(0)] = 1.0
    kind: Literal["all", "last"] = "all"
    is_on: bool = False
    most: int | None = None


@pytest.mark.parametrize(
    ("values", "made"),
    [
        ({}, Settings()),
        ({"rate": "2"}, Settings(rate=2.0)),
        ({"kind": "last", "is_on": "true"}, Settings(kind="last", is_on=True)),
        ({"most": "3"}, Settings(most=3)),
        ({"most": None}, Settings()),
    ],
)
def test_settings_may_be_words(values: dict[str, Any], made: Settings) -> None:
    assert registry.validated(Settings, values, of="method 'x'", word="setting") == made


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rat": 1}, "method 'x' has no setting 'rat'; did you mean 'rate'?"),
        ({"rate": "fast"}, "setting 'rate' of method 'x' cannot be 'fast'"),
        ({"rate": 0}, "greater than 0"),
        ({"kind": "some"}, "setting 'kind' of method 'x' cannot be 'some'"),
        ({"most": 1.5}, "setting 'most'"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(values: dict[str, Any], said: str) -> None:
    with pytest.raises(KfbenchError) as raised:
        registry.validated(Settings, values, of="method 'x'", word="setting")
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_the_nearest_name_or_all_of_them() -> None:
    assert near("cifar1O", ["cifar10", "svhn"]) == "did you mean 'cifar10'?"
    assert near("x", ["b", "a"]) == "there is: a, b" and near("x", []) == "there is none"
    assert near("x", "abc", most=2) == "there is: a, b, …"
    assert near("x", "abc", most=2, first=["c"]) == "there is: c, a, …"


def test_every_method_loads_with_every_variant_and_its_search_space_is_of_settings() -> None:
    for name in registry.names("methods"):
        made = registry.method_class(name)
        assert issubclass(made, Method) and dataclasses.is_dataclass(made) and made.__doc__
        for variant in made.variants:
            assert isinstance(registry.load_method(f"{name}/{variant}"), made)
        for setting, space in made.search.items():
            for value in space.get("choices", [space.get("low"), space.get("high")]):
                registry.load_method(name, {setting: value})  # the ends of the space are valid settings


def test_names_need_no_torch() -> None:
    code = (
        "import sys; from kfbench import registry; "
        "[registry.describe(kind, name) for kind in ('methods', 'tasks') for name in registry.names(kind)]; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


def test_a_setting_younger_than_the_records_is_left_out_at_its_old_value(tmp_path: Path) -> None:
    """Keys of old records hold, and a spec without the setting means its old value, whatever its default is now."""
    younger = 'variants = {"light": {"weight": 0.1}}\n    younger = {"weight": 0.0}'
    path = tmp_path / "mine.py"
    path.write_text(METHOD.replace('variants = {"light": {"weight": 0.1}}', younger))
    assert registry.load_method(str(path)).settings() == {"weight": 0.5, "size": 3}
    assert registry.load_method(str(path), {"weight": 0}).settings() == {"size": 3}
    for name in (str(path), f"{path}/light"):
        assert registry.recorded_method(name, {"size": 3}).settings() == {"size": 3}
    assert registry.recorded_method(str(path), {"size": 3, "weight": 0.2}).settings() == {"size": 3, "weight": 0.2}
