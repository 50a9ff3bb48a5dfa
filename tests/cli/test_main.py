"""The command line: what a newcomer types, and what is wrong, each in one line with exit code 2."""

import dataclasses
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from console import Done

import kfbench.methods
from kfbench import networks, registry
from kfbench.cli import main, new
from kfbench.folders import PACKAGE
from kfbench.networks import weights
from kfbench.run import export, records

CODE = "from kfbench.cli.main import main; main()"
TINY = ["--budget", "smoke", "--network", "cnn-4", "--epochs", "1", "--batch-size", "256", "--threads", "1"]


@pytest.fixture(autouse=True)
def data_folder(packed_digits: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def in_a_process(*words: str, environment: dict[str, str] | None = None, code: str = CODE) -> Done:
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1", **(environment or {})}
    done = subprocess.run([sys.executable, "-c", code, *words], env=env, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def recorded(packed_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one short run of scratch, and a teacher in its store."""
    from kfbench.run import execute, resolve

    results = tmp_path_factory.mktemp("recorded") / "results"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KFBENCH_DATA", str(packed_digits))
        recipe = {"network": "cnn-4", "epochs": 1, "batch_size": 256}
        for folder in (results, results / "teachers"):
            execute.run(resolve.resolve("scratch", "digits", budget="smoke", recipe=recipe), results=folder)
    torch.set_num_threads(threads)
    return results


def key_of(results: Path) -> str:
    [record] = records.records(results)
    return record.key


# --- bad input -----------------------------------------------------------------------------------------------------

RUN = "run --task digits --budget smoke"
BAD = {
    "method": ("run --method kff --task digits", "no method 'kff'; did you mean 'kf'?"),
    "variant": (f"{RUN} --method kf/alnoe", "method 'kf' has no variant 'alnoe'; did you mean 'alone'?"),
    "task": ("run --method kf --task cifar10O", "no task 'cifar10O'; did you mean 'cifar10'?"),
    "task's variant": ("run --method kf --task digits/lwo", "no variant 'lwo' of task 'digits'; did you mean 'low'?"),
    "classes": ("run --method kf --task digits/5-10", "task 'digits' has no classes '5-10'; it has 0-9"),
    "network": (f"{RUN} --method scratch --network resnet9", "resnet9"),
    "network's name": (f"{RUN} --method scratch --network resnit8", "did you mean 'resnet8'?"),
    "budget": ("run --method kf --task digits --budget smoek", "no budget 'smoek'; did you mean 'smoke'?"),
    "teacher": (f"{RUN} --method kf --teachers digts/low", "no task 'digts'; did you mean 'digits'?"),
    "teacher's network": (f"{RUN} --method kf --teachers random:digits/cnn-0", "cnn-0"),
    "teacher's budget": (f"{RUN} --method kf --teachers digits/low@smal", "no budget 'smal'; did you mean 'small'?"),
    "teacher's recipe": (f"{RUN} --method kf --teachers digits/low@smoke:epoch=2", "did you mean 'epochs'?"),
    "teacher's library": (
        f"{RUN} --method kf --teachers torchvision:resnett18",
        "did you mean 'torchvision:resnet18'?",
    ),
    "teacher's run": (f"{RUN} --method kf --teachers run:0123", "begins with '0123'"),
    "teacher's file": (f"{RUN} --method kf --teachers file:nowhere.safetensors", "no weights 'nowhere.safetensors'"),
    "no teachers": (f"{RUN} --method kf --teachers ,", "method 'kf' needs a teacher for task 'digits'; give"),
    "too many teachers": (f"{RUN} --method scratch --teachers digits", "method 'scratch' takes no teachers"),
    "setting": (f"{RUN} --method kd --set temprature=2", "has no setting 'temprature'; did you mean 'temperature'?"),
    "setting's type": (
        f"{RUN} --method kd --set temperature=hot",
        "setting 'temperature' of method 'kd' cannot be 'hot'",
    ),
    "setting's range": (f"{RUN} --method kd --set alpha=2", "less than or equal to 1"),
    "setting's choice": (f"{RUN} --method kf --set share=lerned", "'learned' or 'scheduled'"),
    "setting without value": (f"{RUN} --method kd --set temperature", "write --set temperature=VALUE"),
    "recipe": (f"{RUN} --method scratch --set-recipe lrr=1", "has no field 'lrr'; did you mean 'lr'?"),
    "recipe's range": (f"{RUN} --method scratch --epochs -1", "field 'epochs' .* greater than 0"),
    "precision": (f"{RUN} --method scratch --precision fp8", "field 'precision'"),
    "train size": (f"{RUN} --method scratch --train-size 99999", "give --train-size 1295 or less"),
    "links": (f"{RUN} --method kf --teachers random:digits/low --set links=nowhere=0:x", "nowhere"),
    "other outputs": (f"{RUN} --method kd --teachers digits/low", "needs a teacher with the classes of 'digits'"),
    "other network": (
        f"{RUN} --method finetune --teachers digits/low/cnn-4",
        "needs a teacher of the student's network",
    ),
    "kind": ("run --method kd --task atari/pong", "method 'kd' is for images, task 'atari/pong' is of games"),
    "game": ("run --method kf --task atari/pongg", "did you mean 'pong'?"),
    "missing data": (
        "run --method scratch --task svhn",
        "type: kfbench data download svhn, or with a copy: kfbench data",
    ),
    "imagefolder": ("run --method scratch --task imagefolder/ants", "kfbench data import ants PATH"),
    "device": (f"{RUN} --method scratch --device cuda:7", "no GPU 'cuda:7'"),
    "device's name": (f"{RUN} --method scratch --device gpu", "no device 'gpu'"),
    "results": (f"{RUN} --method scratch --results /proc/kfbench", "cannot write to '/proc/kfbench'"),
    "game's teacher": (
        "run --method kickstarting --task atari/pong --teachers digits",
        "copies a policy, but 'digits/cnn-32@small' is of images; use --teachers atari/pong",
    ),
    "bench's precision": ("bench --task atari/pong --precision fp8", "field 'precision'"),
    "bench's network": ("bench --task atari/pong --network resnet8", "games are timed with the a3c network"),
    "bench's kind": ("bench --task atari/pong --method kd", "method 'kd' is for images, task 'atari/pong' is of games"),
    "key": ("show 0123456789ab", "no run in 'results'"),
    "key like a path": ("show /etc/passwd", "no run in 'results' with a key that begins with '/etc/passwd'"),
    "key like a pattern": ("play [ --out game.gif", "no run in 'results' with a key that begins with '['"),
    "export's key": ("export 0123456789ab student.pt2", "no run in 'results'"),
    "export's path": ("export 0123456789ab student.pth", "must end in .safetensors .* or .pt2"),
    "list": ("list method", "nothing to list as 'method'; did you mean 'methods'?"),
    "check": ("check kff", "no method or task 'kff'; did you mean 'kf'?"),
    "check's file": ("check nowhere.py", "no file 'nowhere.py'"),
    "bench": ("bench --method kff", "no method 'kff'; did you mean 'kf'?"),
    "template's name": ("new method Two-Words", "cannot be a method's name"),
    "template's place": ("new method kf", "there is a method 'kf' already"),
    "trained teacher": ("teacher train timm:resnet18", "is not trained; give TASK"),
    "data": ("data download cifar11", "did you mean 'cifar1"),
    "archive": ("data import bugs nowhere.zip", "no file or folder 'nowhere.zip'"),
    "size": ("data import bugs . --size big", "big"),
}


@pytest.mark.parametrize(("words", "said"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_and_exit_code_2(words: str, said: str, type_in: Any, tmp_path: Path) -> None:

    done = type_in(*words.split())
    assert done.code == 2, done
    assert len(done.lines) == 1 and done.lines[0].startswith("error: ") and not done.out, done
    assert re.search(said if ".*" in said else re.escape(said), done.err), done.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]  # nothing half done


def test_the_debug_option_shows_where(type_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["kfbench", "--debug", "run", "--method", "kff", "--task", "digits"])
    with pytest.raises(main.KfbenchError, match="no method 'kff'"):
        main.main()
    assert type_in("show", "0123").code == 2  # and the next command does without


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("executed", "w"))


def test_teacher_files_that_are_not_whole_safetensors_are_refused(type_in: Any, recorded: Path, tmp_path: Path) -> None:
    [good] = recorded.glob("digits/scratch/*.safetensors")
    Path("cut.safetensors").write_bytes(good.read_bytes()[:-100])
    Path("pickle.safetensors").write_bytes(pickle.dumps(Evil()))
    torch.save({"weight": torch.zeros(2)}, "torch.pt")
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, "foreign.safetensors")
    save_file({"weight": torch.zeros(2)}, "other.safetensors")
    Path("other.safetensors.json").write_text('{"network": "cnn-4", "shape": [1, 8, 8], "outputs": 10}')
    for name, said in {
        "cut.safetensors": "not a whole safetensors file",
        "pickle.safetensors": "are refused: save",
        "torch.pt": "are refused: save",
        "foreign.safetensors": "does not say what it is",
        "other.safetensors": "are not those of 'cnn-4'",
    }.items():
        done = type_in(*RUN.split(), "--method", "kf", "--teachers", f"file:{name}")
        assert done.code == 2 and len(done.lines) == 1 and said in done.err and name in done.err, done
    assert not Path("executed").exists()


def test_a_teacher_file_of_other_outputs_or_network_is_refused(type_in: Any) -> None:
    network = networks.make("cnn-4", shape=(1, 8, 8), outputs=5)
    weights.save(network, Path("five.safetensors"), {"classes": list("abcde")})
    done = type_in(*RUN.split(), "--method", "kd", "--teachers", "file:five.safetensors")
    assert done.code == 2 and "has 5 others" in done.err and len(done.lines) == 1
    done = type_in(*RUN.split(), "--method", "finetune", "--teachers", "file:five.safetensors", "--network", "cnn-8")
    assert done.code == 2 and "is a 'cnn-4'" in done.err and len(done.lines) == 1


def test_bad_archives_are_one_line(type_in: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KFBENCH_DATA", str(tmp_path / "data"))
    Path("bad.zip").write_bytes(b"PK\x03\x04 and no more")
    with zipfile.ZipFile("image.zip", "w") as archive:
        for split in ("train", "test"):
            archive.writestr(f"{split}/ant/0.png", b"no image")
    with zipfile.ZipFile("classes.zip", "w") as archive:
        archive.writestr("train/ant/0.png", b"")
        archive.writestr("test/bee/0.png", b"")
    Path("empty").mkdir()
    for name, said in {
        "bad.zip": "is no sound zip archive",
        "image.zip": "ant/0.png",
        "classes.zip": "class 'ant' is in train/ and not in test/",
        "empty": "holds no images",
    }.items():
        done = type_in("data", "import", "bugs", name)
        assert done.code == 2 and len(done.lines) == 1 and said in done.err and name in done.err, done
    assert not list((tmp_path / "data").glob("*"))


def test_a_user_meets_the_same_in_a_process_of_its_own() -> None:
    done = in_a_process("run", "--method", "kff", "--task", "digits")
    assert (done.code, done.out) == (2, "") and done.err == "error: no method 'kff'; did you mean 'kf'?\n"


# --- list ----------------------------------------------------------------------------------------------------------

LISTS = """
import resource, sys
from kfbench.cli.main import main
try:
    main()
except SystemExit:
    pass
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, sorted({"torch", "numpy", "pandas", "optuna"} & set(sys.modules)), file=sys.stderr)
"""


def test_list_is_instant_and_imports_no_torch() -> None:
    seconds = []
    for _ in range(5):
        done = in_a_process("list", code=LISTS)
        assert done.code == 0 and "Knowledge Flow" in done.out
        taken, _, imported = done.lines[-1].partition(" ")
        assert imported == "[]"
        seconds.append(float(taken))
        if min(seconds) < 0.3:
            return
    pytest.fail(f"kfbench list takes {min(seconds):.2f} s of CPU time")


def test_lists_are_json_too(type_in: Any, recorded: Path) -> None:
    found = json.loads(type_in("list", "--json", "--results", recorded).out)
    assert list(found) == ["methods", "tasks", "networks", "teachers", "budgets"]
    assert [row["name"] for row in found["methods"]] == registry.names("methods")
    assert [row["name"] for row in found["tasks"]] == registry.names("tasks")
    assert [row["name"] for row in found["budgets"]] == ["smoke", "small", "standard", "paper"]
    [teacher] = found["teachers"]
    [run] = json.loads(type_in("list", "runs", "--json", "--results", recorded).out)["runs"]
    assert run["name"] == key_of(recorded) and run["score"] == next(records.records(recorded)).scores["last"]["error"]
    assert json.loads(type_in("teacher", "list", "--json", "--results", recorded).out)["teachers"] == [teacher]
    data = json.loads(type_in("data", "list", "--json").out)
    [digits] = [row for row in data["data"] if row["name"] == "digits"]
    assert digits["here"] and digits["train"] + digits["test"] == 1797
    for words in (["list"], ["list", "runs"], ["teacher", "list"]):
        assert key_of(recorded) in type_in(*words, "--results", recorded).out or words == ["list"]


@pytest.mark.parametrize("name", registry.names("methods"))
def test_what_is_listed_of_a_method_is_what_its_class_says(name: str) -> None:
    told, made = registry.describe("methods", name), registry.method_class(name)

    assert set(told["settings"]) == {field.name for field in dataclasses.fields(made)}
    for attribute in (
        "kinds",
        "teachers",
        "needs",
        "teacher_is_twin",
        "variants",
        "keeps_teachers",
        "starts_from_teacher",
    ):
        default = getattr(kfbench.methods.Method, attribute)
        assert told["attributes"].get(attribute, default) == getattr(made, attribute)
    for setting, value in told["settings"].items():
        if isinstance(value, bool | int | float):
            assert value == getattr(made(), setting)


# --- run, show, export ---------------------------------------------------------------------------------------------


def test_run_show_and_run_again(type_in: Any) -> None:
    command = ["run", "--method", "kf", "--task", "digits", "--teachers", "digits/low/cnn-4@smoke:epochs=1", *TINY]
    first = type_in(*command)
    assert first.code == 0, first
    assert "about" in first.lines[0] and "on this machine" in first.lines[0]
    assert "teachers to train first: digits/low/cnn-4" in first.lines[1]
    for word in ("test error", "student alone", "share ", "kept ", "parameters", "time ", "record ", "before cut"):
        assert word in first.out, first.out
    [record] = records.records(Path("results"))
    again = type_in(*command)
    assert again.code == 0 and again.lines[-1].startswith("recorded already") and record.key in again.lines[-1]
    assert again.out == first.out and "on this machine" not in again.err
    shown = type_in("show", record.key[:6])
    assert shown.code == 0 and first.out.strip().splitlines()[0] in shown.out
    assert "settings" in shown.out and "versions" in shown.out and "recipe" in shown.out
    told = json.loads(type_in("show", record.key, "--json").out)
    assert told["key"] == record.key and told["curve"] == record.curve
    assert json.loads(type_in(*command, "--json").out) == told


@pytest.mark.parametrize(
    "teachers",
    [
        "digits/low/cnn-4@smoke:epochs=1,digits/high/mlp-30@smoke:epochs=1,random:digits",
        "torchvision:mobilenet_v3_small",
        "timm:test_resnet",
        "run:KEY,file:FILE",
    ],
)
def test_teachers_of_every_origin(teachers: str, type_in: Any, recorded: Path) -> None:
    if "timm" in teachers:
        pytest.importorskip("timm")
    shutil.copytree(recorded, "results")
    [file] = Path("results").glob("digits/scratch/*.safetensors")
    teachers = teachers.replace("KEY", key_of(recorded)).replace("FILE", str(file))
    command = ["run", "--method", "kf", "--task", "digits", "--teachers", teachers, *TINY, "--train-size", "60"]
    done = type_in(*command, "--batch-size", "20", "--json")
    assert done.code == 0, done
    record = json.loads(done.out)
    assert len(record["spec"]["teachers"]) == len(record["provenance"]["teachers"]) == len(teachers.split(","))
    for teacher in record["provenance"]["teachers"]:
        assert len(teacher["digest"]) == 64
        shares = [name for name in record["curve"][-1] if name.endswith(teacher["name"])]
        assert shares, record["curve"][-1]


LOADS = """
import sys
assert not any("kfbench" in name for name in sys.modules)
import torch
from safetensors.torch import load_file
program, cases = torch.export.load(sys.argv[1]).module(), load_file(sys.argv[2])
for size in (1, 2, 3, 7):
    images = cases["images"][:size]
    with torch.no_grad():
        assert torch.equal(program(images), cases[f"logits.{size}"]), size
try:
    import kfbench
except ImportError:
    print("equal, without kfbench")
"""


def test_export_for_a_program_that_has_no_kfbench(type_in: Any, recorded: Path, tmp_path: Path) -> None:
    key = key_of(recorded)
    done = type_in("export", key, "out/student.pt2", "--results", recorded)
    assert (done.code, done.out) == (0, "out/student.pt2\n"), done
    _, network, _ = export.load(key, results=recorded)
    images = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    cases = {"images": images}
    torch.set_num_threads(1)
    with torch.no_grad():
        for size in (1, 2, 3, 7):
            cases[f"logits.{size}"] = network.eval()(images[:size]).logits
    from safetensors.torch import save_file

    save_file(cases, "cases.safetensors")
    # -S and a path of links: the process has torch's site-packages, and not kfbench's
    site = tmp_path / "site"
    site.mkdir()
    for folder in {Path(torch.__file__).parents[1]}:
        for entry in folder.iterdir():
            if "kfbench" not in entry.name and entry.suffix != ".pth":
                (site / entry.name).symlink_to(entry)
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-S", "-c", LOADS, "out/student.pt2", "cases.safetensors"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "equal, without kfbench\n", done.stderr


def test_export_of_weights_describes_itself_and_serves_as_a_teacher(type_in: Any, recorded: Path) -> None:
    done = type_in("export", key_of(recorded), "student.safetensors", "--results", recorded)
    assert done.code == 0 and done.out.split() == ["student.safetensors", "student.safetensors.json"]
    told = json.loads(Path("student.safetensors.json").read_text())
    record = next(records.records(recorded))
    assert (told["network"], told["shape"], told["outputs"]) == ("cnn-4", [1, 8, 8], 10)
    assert told["scores"] == record.scores and told["spec"] == record.spec
    _, network, _ = export.load(record.key, results=recorded)
    loaded, about, digest = weights.load(Path("student.safetensors"))
    assert digest == record.provenance["weights"] and len(about["classes"]) == 10
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in network.state_dict().items())


def test_export_without_the_weights_says_how_to_get_them(type_in: Any, recorded: Path) -> None:
    shutil.copytree(recorded, "results")
    [file] = Path("results").glob("digits/scratch/*.safetensors")
    file.unlink()
    done = type_in("export", key_of(recorded), "student.safetensors")
    assert done.code == 2 and f"kfbench verify {key_of(recorded)} puts them back" in done.err and len(done.lines) == 1


# --- new methods, from anywhere ------------------------------------------------------------------------------------


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
