"""What makes a run another one: who edits a method or a network of their own has new runs, and never half of both."""

import hashlib
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from console import TINY, Console

import kfbench
from kfbench import registry
from kfbench.cli import new
from kfbench.errors import KfbenchError
from kfbench.networks import family
from kfbench.running import execute, identity, records, resolve, verify
from kfbench.spec import RunSpec, digest

RUN = ["run", "--method", "mine", "--task", "digits", "--teachers", "random:digits/cnn-4", *TINY, "--json"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed_digits: Path) -> Path:
    """A folder with a method and a network of one's own, found by their names."""
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)  # as in a user's shell: what Python keeps may be of before
    monkeypatch.chdir(tmp_path)
    for kind in ("methods", "networks"):
        monkeypatch.setenv(f"KFBENCH_{kind.upper()}", str(tmp_path / kind))
        new.write(kind, {"methods": "mine", "networks": "mynet"}[kind], tmp_path / kind)
        package = __import__(f"kfbench.{kind}", fromlist=["x"])
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / kind)])
        for name in ("mine", "mynet"):  # of another test's folder
            monkeypatch.delitem(sys.modules, f"kfbench.{kind}.{name}", raising=False)
    return tmp_path


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def key(type_in: Console, *words: str) -> str:
    done = type_in(*RUN, *words)
    assert done.code == 0, done.err
    return str(json.loads(done.out)["key"])


def test_an_edited_method_or_network_of_ones_own_is_another_run(type_in: Console, own: Path) -> None:
    net = ("--network", "mynet")
    first = key(type_in, *net)
    assert key(type_in, *net) == first
    edit(own / "methods" / "mine.py", "weight: float = 1.0", "weight: float = 1.0  # of the difference")
    second = key(type_in, *net)
    edit(own / "networks" / "mynet.py", '"""', '"""Edited. ')
    assert len({first, second, key(type_in, *net)}) == 3
    made = registry.load_method("mine")
    edit(own / "methods" / "mine.py", "weight: float = 1.0", "weight: float = 4.0")
    assert (made.weight, registry.load_method("mine").weight) == (1.0, 4.0)  # type: ignore[attr-defined]
    spec = resolve.resolve("kd", "digits", budget="smoke", teachers=["digits/cnn-8"], recipe={"network": "cnn-4"})
    assert identity.own_files(spec) == {}  # ours have revisions, and their records keep their keys


def test_a_file_named_by_its_path_is_as_it_was_last_written(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = own / "methods" / "mine.py"
    for before, after in (("weight: float = 1.0", "weight: float = 2.0"), ("float = 2.0", "float = 3.0")):
        edit(path, before, after)
        assert registry.load_method(str(path)).settings()["weight"] == float(after[-3:])
    monkeypatch.setenv("HOME", str(own))
    assert resolve.resolve("~/methods/mine.py", "digits", teachers=["random:digits"]).method == "mine"


def test_however_a_file_is_named_it_is_one_run(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method in a folder of methods by its own name, others by the path from the working folder, else the whole."""
    monkeypatch.setenv("HOME", str(own))
    for path in (
        "methods/mine.py",
        "./methods/../methods/mine.py",
        str(own / "methods" / "mine.py"),
        "~/methods/mine.py",
    ):
        assert registry.named(f"{path}/light") == "mine/light" and registry.named(path) == "mine"
    (own / "other").mkdir()
    (own / "methods" / "mine.py").rename(own / "other" / "mine.py")
    for path in ("other/mine.py", "./other/mine.py", str(own / "other" / "mine.py"), "~/other/mine.py"):
        assert registry.named(path) == "other/mine.py"
    monkeypatch.chdir(own / "methods")
    assert registry.named("../other/mine.py/light") == f"{(own / 'other' / 'mine.py').as_posix()}/light"
    assert registry.named("kf/guided") == "kf/guided"


def test_a_folder_is_no_method(own: Path) -> None:
    package = own / "methods" / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for name, called in (("pack", package), ("pack/light", package), ("methods/pack", "methods/pack")):
        with pytest.raises(KfbenchError, match=f"^'{called}' is a folder; a method is one file"):
            registry.require("methods", name)


def test_so_is_one_whose_teacher_has_an_edited_network(own: Path) -> None:
    """It has the same weights and answers otherwise, so what was remembered of its answers is not taken for its."""
    before = identity.of_teacher("0" * 64, "mynet")
    edit(own / "networks" / "mynet.py", "nn.ReLU", "nn.SiLU")
    assert identity.of_teacher("0" * 64, "mynet") != before != identity.of_teacher("1" * 64, "mynet")
    assert identity.of_teacher("0" * 64, "cnn-4") == "0" * 64


def test_so_is_one_whose_imports_from_beside_it_were_edited(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name and by path, a module's own imports and those of a function too, and what is imported is what counts."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder, path = own / "methods", own / "methods" / "mine.py"
    alone = hashlib.sha256(path.read_bytes()).hexdigest()
    for called in ("mine", str(path)):
        spec = resolve.resolve(called, "digits", budget="smoke", teachers=["random:digits/cnn-4"])
        assert identity.own_files(spec) == {"method_file": alone}
    edit(path, "\nfrom", "\nimport random\nfrom _losses import SCALE\nfrom")
    edit(path, "float = 1.0", "float = SCALE")
    (folder / "random.py").write_text("raise RuntimeError('this name is taken by Python')\n")
    (folder / "_losses.py").write_text("from shared.scales import SCALE\n")
    (folder / "shared").mkdir()
    scales = folder / "shared" / "scales.py"
    scales.write_text("from . import more\n\nSCALE = more.TWO\n")
    seen = set()
    for value in (2.0, 3.0, 4.0):
        (folder / "shared" / "more.py").write_text(f"TWO = {value}\n")
        for called in ("mine", str(path)):
            spec = resolve.resolve(called, "digits", budget="smoke", teachers=["random:digits/cnn-4"])
            assert registry.load_method(called).settings()["weight"] == value
            seen.add(identity.own_files(spec)["method_file"])
    assert len(seen) == 3 and "_losses" not in registry.names("methods")
    assert {"methods/_losses.py", "shared/scales.py", "shared/more.py"} < {*identity.code(spec)}
    net = own / "networks" / "mynet.py"
    edit(net, "\nfrom", "\nfrom ._width import WIDTH\nfrom")
    digests = set()
    for width in (8, 16):
        (net.parent / "_width.py").write_text(f"WIDTH = {width}\n")
        assert vars(family.load(family.of_name("mynet")[0]))["WIDTH"] == width
        digests.add(identity.of_teacher("0" * 64, "mynet"))
    assert len(digests) == 2


def test_a_relative_import_by_a_path_is_told_what_to_write(own: Path) -> None:
    path = own / "methods" / "mine.py"
    (own / "methods" / "_losses.py").write_text("SCALE = 2.0\n")
    edit(path, "\nfrom", "\nfrom ._losses import SCALE\nfrom")
    assert registry.load_method("mine").settings()["weight"] == 1.0
    with pytest.raises(KfbenchError, match="no known parent package; by a path, write it without the dots"):
        registry.load_method(str(path))


def test_two_modules_of_ones_own_that_are_called_alike_are_not_taken_for_each_other(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    net, method = own / "networks" / "mynet.py", own / "methods" / "mine.py"
    for path in (net, method):
        edit(path, "\nfrom", "\nfrom twins import ONE\nfrom")
        (path.parent / "twins.py").write_text("ONE = 1\n")
    registry.load_method("mine")
    with pytest.raises(KfbenchError, match=r"networks/twins.py' is imported as 'twins', but .*/methods' too"):
        family.load(family.of_name("mynet")[0])


def test_a_teacher_with_a_network_of_ones_own_is_not_deleted_under_its_pupils(type_in: Console, own: Path) -> None:
    """Trained for a run, it is called by its task and network, not by its key; its digest is that of the file too."""
    teacher = "digits/mynet@smoke:epochs=1+evaluations=1"
    done = type_in("run", "--method", "kd", "--task", "digits", "--teachers", teacher, *TINY, "--json")
    pupil = json.loads(done.out)["key"]
    [stored] = Path("results/teachers").rglob("*.json")
    done = type_in("delete", stored.stem, "--yes")
    assert done.code == 2 and f"taught '{pupil}'" in done.err and stored.exists()


def test_a_student_whose_network_was_edited_since_is_no_longer_taken_for_itself(type_in: Console, own: Path) -> None:
    """Its weights would fit and mean something else: for what it gives away, a teacher it becomes, and the library."""
    student = key(type_in, "--network", "mynet")
    path = own / "networks" / "mynet.py"
    path.write_text(path.read_text() + "\n# edited\n")
    said = f"the file of network 'mynet' has changed since run '{student}'"
    done = type_in("export", student, "student.pt2")
    assert done.code == 2 and said in done.err and not Path("student.pt2").exists()
    done = type_in("run", "--method", "kd", "--task", "digits", "--teachers", f"run:{student}", *TINY)
    assert done.code == 2 and said in done.err
    with pytest.raises(KfbenchError, match=said):
        kfbench.load(student)
    path.write_text(path.read_text().removesuffix("\n# edited\n"))
    assert type_in("export", student, "student.pt2").code == 0


def test_so_is_an_edited_task(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which says what part of a data set is taken; that of a stage, too."""
    (own / "tasks").mkdir()
    path = own / "tasks" / "part.py"
    text = '"""Part of the digits.\n\nSource: made for a test.\n"""\n\nfrom kfbench.tasks import ImageTask\n\n'
    path.write_text(f'{text}TASK = ImageTask(shape=(1, 8, 8), classes=10, dataset="digits", keep=(0, 1, 2))\n')
    monkeypatch.setenv("KFBENCH_TASKS", str(own / "tasks"))
    runs = [
        resolve.resolve("scratch", "part", budget="smoke"),
        resolve.resolve("pathnet", "digits", budget="smoke", settings={"source": "part"}),
    ]
    before = [identity.of(spec, []) for spec in runs]
    assert "task_file" in before[0] and "part task_file" in before[1]
    edit(path, "keep=(0, 1, 2)", "keep=(7, 8, 9)")
    assert registry.load_task("part").keep == (7, 8, 9)  # type: ignore[attr-defined]

    def record_of(spec: RunSpec, of: dict[str, Any]) -> records.RunRecord:
        return records.RunRecord(key=digest(of), spec=spec.to_json(), identity=of, status="done")

    after = [identity.of(spec, []) for spec in runs]
    for then, now, spec in zip(before, after, runs, strict=True):
        old, new = (record_of(spec, each) for each in (then, now))
        told = verify.compare(old, new, [])
        assert old.key != new.key and told.word == "different"
        assert told.told.endswith("the lines of a task's file, or of one that it imports, are not those of the record")


def test_a_changed_file_of_the_checkout_is_told_and_ends_no_run_of_before(
    type_in: Console, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the folder were the checkout's: who finds a record of before is told, and half a run does not go on."""
    monkeypatch.setattr(identity, "folders", lambda kind: [str(own / kind)])
    path, words = own / "methods" / "mine.py", (*RUN, "--seed", "1")
    first = key(type_in, "--seed", "1")
    edit(path, '"""', '"""Words only. ')
    again = type_in(*words)
    assert "recorded already" in again.err and "changed since" not in again.err
    edit(path, "self.weight *", "2 * self.weight *")
    told = type_in(*words)
    assert json.loads(told.out)["key"] == first and "note: methods/mine.py changed since; run it again with" in told.err

    class Stop(execute.Watcher):
        def step(self, loop, row):  # type: ignore[no-untyped-def]
            signal.raise_signal(signal.SIGINT)

    spec = resolve.resolve("mine", "digits", budget="smoke", teachers=["random:digits/cnn-4"], seed=2)
    with pytest.raises(execute.Interrupted):
        execute.run(spec, results=Path("results"), watcher=Stop())
    edit(path, "self.weight *", "3 * self.weight *")
    with pytest.raises(execute.KfbenchError, match=r"was made before methods/mine.py changed; delete it, or start"):
        execute.run(spec, results=Path("results"))
    assert execute.run(spec, results=Path("results"), force=True).status == "done"


def test_records_of_a_task_that_is_gone_trouble_nobody_else(type_in: Console, own: Path) -> None:
    done = type_in("run", "--method", "scratch", "--task", "digits", *TINY, "--json")
    record = records.read(Path("results/digits/scratch") / f"{json.loads(done.out)['key']}.json")
    values = record.model_dump()
    values["spec"]["task"] = values["identity"]["spec"]["task"] = "gone"
    values["key"] = records.digest(values["identity"])
    records.write(Path("results"), records.RunRecord(**values))
    words = ('title = "A"\nbudget = "smoke"\nmethods = ["scratch"]\n', 'tasks = ["digits"]\nseeds = 1\n')
    Path("reports/a").mkdir(parents=True)
    Path("reports/a/study.toml").write_text("".join(words))
    done = type_in("study", "reports/a", "--dry-run")
    assert done.code == 0 and "1 run, 1 to make" in done.out, done
    shown = type_in("show", values["key"])
    assert shown.code == 0 and "gone" in shown.out, shown
    assert registry.names("tasks")
