"""`best:K` in the place of teachers: who is a candidate, who is chosen, and what the record says of it."""

from pathlib import Path

import pytest

from kfbench import library
from kfbench.errors import KfbenchError
from kfbench.ranking import best, ranking
from kfbench.running import execute, resolve, teacher_names

NAMES = ("digits/cnn-4@smoke:epochs=6", "digits/high/cnn-8@smoke", "digits/cnn-8@smoke")


@pytest.fixture(autouse=True)
def data_folder(packed_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))


@pytest.fixture(scope="module")
def results(packed_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with three teachers."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KFBENCH_DATA", str(packed_digits))
        for name in NAMES:
            execute.teacher(teacher_names.read(name, budget="smoke").spec(), results=folder)
    return folder


def choose(asked: str, results: Path, *, method: str = "kd", task: str = "digits") -> best.Choice:
    recipe = {} if task.startswith("atari") else {"train_size": 60, "network": "cnn-4"}
    student = resolve.student_of(method, task, budget="smoke", recipe=recipe)
    return best.choose(asked.split(","), student, budget="smoke", results=results)


def test_the_best_are_those_that_rank_first(results: Path) -> None:
    named = [*NAMES, "random:digits/cnn-4@smoke"]
    spec = resolve.resolve("scratch", "digits", budget="smoke", recipe={"train_size": 60})
    for score in ("logme", "parc"):
        first = ranking.rank(spec, named, by=score, results=results)
        choice = choose(f"best:2:{score}," + ",".join(named), results, method="kf")
        assert choice.teachers == [row.teacher for row in first[:2]]
        assert choice.told["score"] == score and set(choice.told["candidates"]) == set(named)
        values = [choice.told["candidates"][name] for name in choice.teachers]
        assert values == sorted(choice.told["candidates"].values(), reverse=True)[:2]


def test_a_candidate_counts_once(results: Path) -> None:
    with pytest.raises(KfbenchError, match="asks for 2 teachers, but 1 of those named suit"):
        choose("best:2,random:digits/cnn-4,random:digits/cnn-4", results)


def test_candidates_of_the_store_are_those_that_suit(results: Path) -> None:
    same = choose("best:1", results)  # copies outputs: the classes of the task itself
    assert set(same.told["candidates"]) == {NAMES[0], NAMES[2]} and same.told["asked"] == "best:1"
    with pytest.raises(KfbenchError, match="no teachers of other tasks than 'digits'"):
        choose("best:1", results, method="kf")  # reads features: those of the task's data have seen its labels


@pytest.mark.parametrize(
    ("asked", "method", "task", "match"),
    [
        ("best:0", "kd", "digits", "write best:K or best:K:SCORE, as best:3"),
        ("best:x", "kd", "digits", "write best:K"),
        ("best", "kd", "digits", "write best:K"),
        ("best:1:logme:parc", "kd", "digits", "write best:K"),
        ("best:1:log", "kd", "digits", "did you mean 'logme'"),
        ("digits,best:1", "kd", "digits", "candidates after it"),
        ("best:3", "kd", "digits", "asks for 3 teachers, but 2 of those"),
        (f"best:1,{NAMES[1]}", "kd", "digits", "use --teachers digits"),
        ("best:1,digits/high/cnn-4", "kf", "digits", "make it: kfbench teacher train"),
        ("best:1", "kf", "atari/pong", "ranked for images"),
    ],
)
def test_mistakes_are_a_line(asked: str, method: str, task: str, match: str, results: Path) -> None:
    with pytest.raises(KfbenchError, match=match) as caught:
        choose(asked, results, method=method, task=task)
    assert "\n" not in str(caught.value)


def test_a_run_with_the_best_has_the_key_of_one_that_names_them_and_tells_the_choice(results: Path) -> None:
    def run(teachers: str, *, force: bool = False):  # type: ignore[no-untyped-def]
        tiny = {"train_size": 60, "network": "cnn-4", "epochs": 1}
        return library.run(
            "kd", "digits", teachers=teachers, budget="smoke", recipe=tiny, results=results, force=force, progress=False
        )

    chosen = run(f"best:1,{NAMES[0]},{NAMES[2]}")
    (name,) = chosen.spec["teachers"]
    told = chosen.provenance["teachers_chosen"]
    assert told["candidates"][name] == max(told["candidates"].values()) and len(told["candidates"]) == 2
    named = run(name, force=True)
    assert named.key == chosen.key and named.scores == chosen.scores and "teachers_chosen" not in named.provenance
