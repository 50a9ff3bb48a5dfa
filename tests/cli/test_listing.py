"""Lists: instant, as text and as JSON, and true."""

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from console import in_a_process, key_of

import kfbench.methods
from kfbench import registry
from kfbench.cli import listing
from kfbench.running import records
from kfbench.running.files import record_files
from kfbench.spec import digest

RESULTS = Path(__file__).resolve().parents[2] / "results"
SPEC = ("method", "task", "network", "budget", "teachers", "recipe", "settings")
TOLD = """
import resource, sys
{code}
used = resource.getrusage(resource.RUSAGE_SELF)
used = used.ru_utime + used.ru_stime
print(used, sorted({{"torch", "numpy", "pandas", "optuna"}} & set(sys.modules)), file=sys.stderr)
"""
LISTS = """
from kfbench.cli.main import main
try:
    main()
except SystemExit:
    pass
"""
BARE = "import pydantic.types, rich.console, rich.table, typer"


def test_list_is_instant_and_imports_no_torch() -> None:
    """Whatever the processor and its load: at most a few times what the command line's own packages take to import."""

    def seconds(code: str) -> float:
        done = in_a_process("list", code=TOLD.format(code=code))
        assert done.code == 0 and ("Knowledge Flow" in done.out) == (code == LISTS)
        taken, _, imported = done.lines[-1].partition(" ")
        assert imported == "[]"
        return float(taken)

    pairs = []
    for _ in range(5):
        pairs.append((seconds(LISTS), seconds(BARE)))
        ours, bare = (min(column) for column in zip(*pairs, strict=True))
        if ours < 3.5 * bare:
            return
    pytest.fail(
        f"kfbench list takes {ours:.2f} s of CPU time, {ours / bare:.1f} times what its packages take to import"
    )


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
        assert told["attributes"].get(attribute, default) == getattr(made(), attribute)  # at its default settings
    for setting, value in told["settings"].items():
        if isinstance(value, bool | int | float):
            assert value == getattr(made(), setting)


def test_damaged_records_are_named(type_in: Any, recorded: Path) -> None:
    shutil.copytree(recorded, "results")
    [good] = record_files(Path("results"))
    told = json.loads(good.read_text())
    for name, content in {
        "aaaaaaaaaaaa": "{",
        "bbbbbbbbbbbb": "[]",
        "cccccccccccc": json.dumps({key: value for key, value in told.items() if key != "scores"}),
        "dddddddddddd": json.dumps({**told, "identity": {}}),
    }.items():
        good.with_name(f"{name}.json").write_text(content)
    done = type_in("list", "runs")
    named = [line for line in done.out.splitlines() if line.startswith("  damaged: ")]
    assert done.code == 0 and len(named) == 4 and told["key"] in done.out
    assert "cccccccccccc.json: misses 'scores'" in named[2] and "changed by hand" in named[3]
    rows = json.loads(type_in("list", "runs", "--json").out)["runs"]
    assert [row["status"] for row in rows].count("damaged") == 4


def test_a_record_of_a_newer_version_is_told_in_a_line(type_in: Any, recorded: Path) -> None:
    shutil.copytree(recorded, "results")
    [path] = record_files(Path("results"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "energy": 3}))
    done = type_in("show", path.stem)
    assert done.code == 0 and path.stem in done.out
    told = [line for line in done.err.splitlines() if "newer kfbench" in line]
    assert told and all(line.startswith("note: ") and "(energy)" in line for line in told)


@pytest.mark.parametrize("what", ["", "methods", "tasks", "networks", "teachers", "budgets", "recipe", "runs"])
def test_a_list_is_no_wider_than_the_terminal(what: str, type_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (None, 100):  # 80 on a pipe
        monkeypatch.setenv("COLUMNS", str(columns)) if columns else monkeypatch.delenv("COLUMNS", raising=False)
        code, out, _ = type_in("list", *([what] if what else []), "--results", RESULTS)
        assert code == 0 and max(map(len, out.splitlines())) <= (columns or 80)
    assert any(len(line) > 80 for line in out.splitlines()) or what in ("budgets", "teachers")  # a wide one is used


@pytest.mark.parametrize("what", ["runs", "teachers"])
def test_runs_that_differ_in_more_than_their_seed_are_told_apart(what: str, type_in: Any) -> None:
    rows = json.loads(type_in("list", what, "--json", "--results", RESULTS).out)[what]
    known = {row["name"]: json.dumps({k: row[k] for k in row if k in SPEC}, sort_keys=True) for row in rows}
    contenders: dict[str, set[str]] = {}
    heading, is_open = "", False
    for line in type_in("list", what, "--results", RESULTS).out.splitlines():
        if run := re.match(r" {4}([0-9a-f]{12})  seed ", line):
            contenders.setdefault(heading, set()).add(known.pop(run[1]))
        heading, is_open = (heading + line if is_open and not run else heading if run else line), not run
    assert not known, "all are listed"
    assert all(len(of) == 1 for of in contenders.values())
    assert len(set().union(*contenders.values())) == len(contenders), "runs of one contender stand together"


def test_what_a_run_has_that_its_budget_has_not_is_always_said(type_in: Any, recorded: Path) -> None:
    """Not only where another run stands beside it: a name means the same whatever else is recorded."""
    said = type_in("list", "runs", "--results", recorded).out.splitlines()[0]
    assert said == "  scratch on digits, cnn-4, smoke: batch_size=256, epochs=1"


def test_two_records_of_one_spec_say_when_they_were_made(type_in: Any, recorded: Path) -> None:
    shutil.copytree(recorded, "results")
    [path] = record_files(Path("results"))
    record = json.loads(path.read_text())
    other = record["identity"] | {"data": "of another day"}
    copy = {**record, "identity": other, "key": digest(other)}
    path.with_name(f"{copy['key']}.json").write_text(json.dumps(copy))
    out = type_in("list", "runs").out
    assert out.count("on digits") == 1 and out.count(f"  made {record['provenance']['made']}") == 2


def test_a_file_that_says_too_little_is_listed_as_what_it_is(type_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file of a user's own is no one else's trouble, and not the list's."""
    own = Path("own")
    own.mkdir()
    head = "from dataclasses import dataclass\nfrom kfbench.methods import Method\n\n\n@dataclass(frozen=True)\n"
    (own / "empty.py").write_text("")
    (own / "odd.py").write_text(
        f"{head}class Odd(Method):\n    x: float = 1.0\n    teachers = 1\n    variants = dict(a={{}})\n"
    )
    (own / "leaves.py").write_text('"""Leaves: at once."""\n\nraise SystemExit(3)\n')
    (own / "kd.py").write_text("")
    for kind in ("METHODS", "TASKS", "NETWORKS"):
        monkeypatch.setenv(f"KFBENCH_{kind}", "own:nowhere")
    done = type_in("list", "--json")
    assert done.code == 0 and all(
        f"note: $KFBENCH_{kind} names '" in done.err for kind in ("METHODS", "TASKS", "NETWORKS")
    )
    found = json.loads(done.out)
    methods = {row["name"]: row for row in found["methods"]}
    assert methods["empty"]["about"] == methods["odd"]["about"] == "no docstring, whose first line stands here"
    assert methods["odd"]["teachers"] == [] and methods["odd"]["variants"] == []
    assert methods["kd"]["about"].startswith("two files are called so, '")
    assert {"empty", "odd"} <= {row["name"] for row in found["tasks"]}
    assert any(
        "empty.py' has no FAMILY = Family(…); call a file of helpers _empty.py" in row["about"]
        for row in found["networks"]
    )
    assert "no docstring" in type_in("list", "methods").out
    run = ("run", "--task", "digits", "--budget", "smoke", "--method")
    assert "teachers = 1 is no range; write (fewest, most), as (1, 1)" in type_in(*run, "own/odd.py").err
    assert "leaves.py' cannot be imported: SystemExit: 3" in type_in(*run, "own/leaves.py").err
    family = 'FAMILY = Family(about="x", pattern="gone", form="gone", examples=("gone",))'
    (own / "gone.py").write_text(f"from kfbench.networks.family import Family\n\n{family}\nraise SystemExit(0)\n")
    done = type_in(*run, "scratch", "--network", "gone")
    assert done.code == 2 and "the network file 'gone' cannot be imported: SystemExit: 0" in done.err


def test_runs_are_chosen_by_task_method_and_date(type_in: Any) -> None:
    def names(*words: str) -> set[str]:
        done = type_in("list", "runs", "--json", "--results", RESULTS, *words)
        assert done.code == 0, done
        return {row["name"] for row in json.loads(done.out)["runs"]}

    every = json.loads(type_in("list", "runs", "--json", "--results", RESULTS).out)["runs"]
    tasks, methods = ({row[field].partition("/")[0] for row in every} for field in ("task", "method"))
    assert len(tasks) > 2 and len(methods) > 2
    for words, fits in (
        (("--task", "atari"), lambda row: row["task"].partition("/")[0] == "atari"),
        (
            ("--method", "kf,kd", "--task", "cifar100"),
            lambda row: row["method"].partition("/")[0] in ("kf", "kd") and row["task"].partition("/")[0] == "cifar100",
        ),
        (("--method", "kf", "--method", "scratch"), lambda row: row["method"].partition("/")[0] in ("kf", "scratch")),
    ):
        wanted = {row["name"] for row in every if fits(row)}
        assert wanted and names(*words) == wanted
    made = sorted(every, key=lambda row: row["made"])
    newest = names("--newest", "7")
    assert len(newest) == 7 and min(row["made"] for row in every if row["name"] in newest) >= made[-7]["made"]
    assert len(names("--newest", "2", "--method", "kd")) == 2
    shown = type_in("list", "runs", "--method", "kd", "--results", RESULTS).out
    assert "kd on " in shown and "scratch on " not in shown

    whole, some = (
        json.loads(type_in("list", "runs", "--json", "--results", RESULTS, *words).out)["runs"]
        for words in ((), ("--newest", "5"))
    )
    differs = {row["name"]: row["differs"] for row in whole}
    assert all(row["differs"] == differs[row["name"]] for row in some), "a run is called alike, whoever stands beside"
    assert any(differs.values())

    for words, said in (
        (("runs", "--task", "cifar10O"), "no run of task 'cifar10O' in '.*'; did you mean 'cifar100?'"),
        (("runs", "--method", "kff"), "no run of method 'kff' .*did you mean 'kf'"),
        (("runs", "--task", ","), "--task ',' names no task; leave it out for all of them"),
        (("methods", "--task", "digits"), "--task, --method and --newest choose runs, not methods: kfbench list runs"),
        (("--newest", "3"), "choose runs, not all"),
    ):
        done = type_in("list", *words, "--results", RESULTS)
        assert done.code == 2 and len(done.lines) == 1 and re.search(said, done.err), done


def test_teachers_of_older_data_are_marked(
    type_in: Any, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data set of that name is here, and has other images than they were trained on."""
    data = shutil.copytree(os.environ["KFBENCH_DATA"], tmp_path / "data")
    monkeypatch.setenv("KFBENCH_DATA", str(data))
    shutil.copytree(recorded, "results")
    [weights] = Path("results/teachers/digits/scratch").glob("*.safetensors")
    words = ("teacher", "import", weights, "--network", "cnn-4", "--task", "digits", "--name", "theirs")
    assert type_in(*words).code == 0
    (tmp_path / "mine").mkdir()
    text = "from kfbench.tasks import ImageTask\n\n"
    text += "TASK = ImageTask(variants={'v': {'dataset': 'bits'}}, dataset='digits')\n"
    (tmp_path / "mine" / "own.py").write_text(text)
    monkeypatch.setenv("KFBENCH_TASKS", str(tmp_path / "mine"))
    named = {
        "own": "digits",
        "own/0-4": "digits",
        "own/v": "bits",
        "imagefolder/ants/0-1": "ants",
        "mnist/5k": "mnist-5k",
    }
    assert {task: listing._dataset(task) for task in named} == named
    for is_older in (False, True):
        if is_older:
            told = json.loads((data / "digits" / "pack.json").read_text())
            told["checksums"]["train"] = "0" * 64
            (data / "digits" / "pack.json").write_text(json.dumps(told))
        done = type_in("teacher", "list")
        assert done.out.count("of older data") == 2 * is_older, done
        rows = json.loads(type_in("teacher", "list", "--json").out)["teachers"]
        assert [row["is_of_older_data"] for row in rows] == [is_older, is_older]
    shutil.rmtree(data / "digits")  # not here: nobody can tell
    assert "of older data" not in type_in("teacher", "list").out
