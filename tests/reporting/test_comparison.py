"""`kfbench compare`: contenders, their paired differences against numbers worked out here, curves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats as scipy_stats

from kfbench.errors import KfbenchError, KfbenchWarning
from kfbench.reporting import comparison
from kfbench.running import records
from kfbench.running.records import RunRecord
from kfbench.spec import digest

RESULTS = Path(__file__).resolve().parents[2] / "results"


def scores(results: Path, method: str, train_size: int) -> dict[int, float]:
    return {
        record.spec["seed"]: record.scores["last"]["error"]
        for record in records.records(results)
        if record.status == "done"
        and (record.spec["task"], record.spec["method"]) == ("cifar10", method)
        and record.spec["recipe"]["train_size"] == train_size
    }


def some(results: Path, method: str, task: str = "cifar100") -> list[RunRecord]:
    return [r for r in records.records(results) if (r.spec["method"], r.spec["task"]) == (method, task)]


def test_methods_on_a_task_are_a_table_a_recipe(small: tuple[Path, Path]) -> None:
    _, results = small
    tables = comparison.of_methods(results, ["scratch", "kf", "pathnet"], "cifar10")
    assert len(tables) == 2
    for table in tables:
        [size] = [size for size in (250, 1000) if f", {size:,} images, " in table.title]
        assert [contender.label for contender in table.contenders] == ["scratch", "kf", "pathnet"]
        for row, method in zip(comparison.rows(table), ("scratch", "kf", "pathnet"), strict=True):
            own = scores(results, method, size)
            assert dict(zip(row["seeds"], row["keys"], strict=True)).keys() == own.keys()
            assert np.isclose(row["score"], np.mean([*own.values()]))
            if method != "scratch":
                first = scores(results, "scratch", size)
                gaps = np.array([own[seed] - first[seed] for seed in own if seed in first])
                assert row["pairs"] == len(gaps) and np.isclose(row["difference"], gaps.mean())
                reach = scipy_stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps))
                low, high = row["difference_interval"]
                assert low <= gaps.mean() - reach + 1e-9 and high >= gaps.mean() + reach - 1e-9
                expected = "better" if high < 0 else "worse" if low > 0 else "undecided"
                assert row["verdict"] == expected


def test_a_run_by_which_a_search_chose_does_not_judge_what_it_chose(small: tuple[Path, Path]) -> None:
    """A search's trials have seeds from 1000 on; a run that is named by its key stays."""
    _, results = small
    first, *_ = some(results, "kf", "cifar10")
    spec = {**first.spec, "seed": 1000}
    identity = {**first.identity, "spec": spec}
    records.write(results, first.model_copy(update={"key": digest(identity), "spec": spec, "identity": identity}))
    [table] = [t for t in comparison.of_methods(results, ["scratch", "kf"], "cifar10") if t.of_search]
    assert all(seed < 1000 for row in comparison.rows(table) for seed in row["seeds"])
    assert "left out: 1 run with a seed by which searches choose (1000 or more)" in comparison.text(table)
    other = some(results, "scratch", "cifar10")[0].key
    keys = [record.key for record in records.records(results) if record.spec == spec]
    assert comparison.of_keys(results, [first.key, other], all_seeds=True).of_search == 1
    assert comparison.of_keys(results, [*keys, other], all_seeds=True).of_search == 0


def test_trials_of_a_search_are_no_contenders_of_what_it_chose(small: tuple[Path, Path]) -> None:
    _, results = small
    first, *_ = some(results, "kf", "cifar10")
    spec = {**first.spec, "seed": 1000, "settings": {**first.spec["settings"], "dep": 0.5}}
    identity = {**first.identity, "spec": spec}
    records.write(results, first.model_copy(update={"key": digest(identity), "spec": spec, "identity": identity}))
    tables = comparison.of_methods(results, ["scratch", "kf"], "cifar10")
    assert [table.of_search for table in tables] in ([1, 0], [0, 1])
    assert all(len(table.contenders) == 2 for table in tables)


def test_runs_that_are_equal_in_every_pair_are_called_equal(small: tuple[Path, Path]) -> None:
    _, results = small
    for record in some(results, "kf", "cifar10"):
        spec = {**record.spec, "method": "kf/alone"}
        identity = {**record.identity, "spec": spec}
        records.write(results, record.model_copy(update={"key": digest(identity), "spec": spec, "identity": identity}))
    for table in comparison.of_methods(results, ["kf", "kf/alone"], "cifar10"):
        assert [row.get("verdict") for row in comparison.rows(table)] == [None, "equal"]


def test_runs_on_other_data_are_no_pair(small: tuple[Path, Path]) -> None:
    """As after an import of other test images under the same name."""
    runs = {method: sorted(some(small[1], method), key=lambda r: r.spec["seed"]) for method in ("scratch", "kf")}
    other = [
        run.model_copy(update={"identity": {**run.identity, "data": "other"}}) if n == 0 else run
        for n, run in enumerate(runs["kf"])
    ]

    def row(ours: list[RunRecord]) -> dict[str, Any]:
        contenders = comparison.Contender("scratch", tuple(runs["scratch"])), comparison.Contender("kf", tuple(ours))
        return comparison.rows(comparison.Table("t", contenders))[1]

    assert row(other)["pairs"] == row(runs["kf"])["pairs"] - 1
    assert len(row(other)["data"]) == 2 and len(row(runs["kf"])["data"]) == 1


def test_one_label_is_one_line_in_all_panels(small: tuple[Path, Path]) -> None:
    """The legend is shared: who is missing in a panel leaves its colour unused there; a curve may lack its points."""
    runs = {method: tuple(some(small[1], method)) for method in ("scratch", "kf")}
    bare = tuple(run.model_copy(update={"curve": [{"loss": 1.0}], "scores": {}}) for run in runs["kf"])
    tables = [
        comparison.Table("both", tuple(comparison.Contender(name, runs[name]) for name in ("kf", "scratch"))),
        comparison.Table("one", (comparison.Contender("scratch", runs["scratch"]), comparison.Contender("kf", bare))),
    ]
    colours = []
    for table in tables:
        axis = Figure().subplots()
        comparison._draw(table, axis, ["kf", "scratch"])
        colours.append({line.get_label(): line.get_color() for line in axis.lines})
        assert axis.get_ylim()[0] >= 0 and axis.get_ylim()[1] <= 103
    assert colours[1] == {"scratch": colours[0]["scratch"]} and colours[0]["kf"] != colours[0]["scratch"]
    assert comparison.rows(tables[1])[1]["score"] is None


def test_games_are_better_when_they_are_higher(small: tuple[Path, Path]) -> None:
    _, results = small
    [table] = comparison.of_methods(results, ["scratch", "kf"], "atari/krull")
    row = comparison.rows(table)[1]
    assert row["metric"] == "return" and row["difference"] == pytest.approx(600)
    assert row["verdict"] == "undecided"  # the made-up runs all differ by the same, which tells no interval
    luck = np.random.default_rng(0)
    for record in some(results, "kf", "atari/krull"):
        record.scores["last"]["return"] += luck.normal(0, 9)
        records.write(results, record)
    [table] = comparison.of_methods(results, ["scratch", "kf"], "atari/krull")
    assert comparison.rows(table)[1]["verdict"] == "better"
    assert "return" in comparison.text(table).splitlines()[1]


def test_episodes_that_were_cut_are_told_of_whose_runs_they_are(small: tuple[Path, Path]) -> None:
    _, results = small
    [table] = comparison.of_methods(results, ["scratch", "kf"], "atari/krull")
    assert "cut at" not in comparison.text(table)
    first = table.contenders[0].runs[0]
    first.scores["last"] |= {"episodes": 4.0, "episodes_capped": 3.0}
    first.spec["recipe"]["evaluation_frames"] = 18_000
    [told] = [line for line in comparison.text(table).splitlines() if "cut at" in line]
    assert told.startswith("  scratch: 3 of ") and told.endswith("episodes cut at 18,000 frames")


def test_keys_are_compared_and_their_seeds_on_demand(small: tuple[Path, Path]) -> None:
    _, results = small
    kf, scratch = some(results, "kf"), some(results, "scratch")
    keys = [scratch[0].key, next(r.key for r in kf if r.spec["seed"] == scratch[0].spec["seed"])[:8]]
    row = comparison.rows(comparison.of_keys(results, keys))[1]
    assert row["pairs"] == 1 and row["difference_interval"] is None and row["verdict"] == "undecided"
    whole = comparison.rows(comparison.of_keys(results, keys, all_seeds=True))
    assert [len(row["seeds"]) for row in whole] == [4, 4] and whole[1]["difference_interval"] is not None
    other = next(r.key for r in kf if r.spec["seed"] != scratch[0].spec["seed"])
    row = comparison.rows(comparison.of_keys(results, [keys[0], other]))[1]
    assert row["difference"] is None and row["verdict"] == "no pairs"


def test_runs_of_one_spec_and_seed_are_no_contender_of_two(small: tuple[Path, Path]) -> None:
    """Made when the data were others: none of them is dropped without a word."""
    _, results = small
    kf, one = some(results, "kf")[0], some(results, "scratch")[0]
    identity = {**one.identity, "data": "1" * 64}
    twin = one.model_copy(update={"identity": identity, "key": digest(identity), "scores": {"last": {"error": 50.0}}})
    records.write(results, twin)
    with pytest.raises(KfbenchError, match=f"'{twin.key}' and '{one.key}' have one spec and seed, and differ in data"):
        comparison.of_keys(results, [kf.key, twin.key, one.key])
    for named in (one, twin):
        table = comparison.of_keys(results, [kf.key, named.key], all_seeds=True)
        assert named in table.contenders[1].runs and len(table.contenders[1].runs) == 4


def test_a_teachers_key_is_compared_with_all_seeds_too(small: tuple[Path, Path]) -> None:
    _, results = small
    kf, one = some(results, "kf")[0], some(results, "scratch")[0]
    (results / "cifar100" / "scratch").rename(results / "moved")
    for path in (results / "moved").iterdir():
        path.unlink()
    records.write(results / "teachers", one)
    rows = comparison.rows(comparison.of_keys(results, [one.key, kf.key], all_seeds=True))
    assert [len(row["seeds"]) for row in rows] == [1, 4]


def test_settings_tell_contenders_of_one_method_apart(small: tuple[Path, Path]) -> None:
    _, results = small
    for record in some(results, "kf"):
        for mix_rate, seeds in ((5.0, (0, 1)), (7.0, (0,))):
            if record.spec["seed"] in seeds:
                spec = {**record.spec, "settings": {**record.spec["settings"], "mix_rate": mix_rate}}
                identity = {**record.identity, "spec": spec}
                changed = record.model_copy(update={"spec": spec, "identity": identity})
                records.write(results, changed.model_copy(update={"key": digest(identity)}))
    [table] = comparison.of_methods(results, ["scratch", "kf"], "cifar100")
    assert [contender.label for contender in table.contenders] == ["scratch", "kf", "kf, mix_rate=5"]
    assert table.left_out == 1 and "left out: 1 single run with" in comparison.text(table)
    assert "    mix_rate=5" in comparison.text(table).splitlines()


def test_a_method_that_no_other_shares_a_recipe_with_is_told(small: tuple[Path, Path]) -> None:
    _, results = small
    for record in some(results, "kd"):
        spec = {**record.spec, "recipe": {**record.spec["recipe"], "network": "resnet20"}}
        identity = {**record.identity, "spec": spec}
        changed = record.model_copy(update={"spec": spec, "identity": identity, "key": digest(identity)})
        next((results / "cifar100" / "kd").glob(f"{record.key}.json")).unlink()
        records.write(results, changed)
    with pytest.warns(KfbenchWarning, match=r"'kd' is in no table: no other ran .* its recipe \(resnet20, "):
        [table] = comparison.of_methods(results, ["scratch", "kd", "kf"], "cifar100")
    assert [contender.label for contender in table.contenders] == ["scratch", "kf"]


def test_what_cannot_be_compared_is_told(small: tuple[Path, Path]) -> None:
    _, results = small
    kf, other = some(results, "kf")[0].key, some(results, "kf", "atari/krull")[0].key
    [failed] = [record for record in records.records(results) if record.status == "failed"]
    for keys, said in {
        (kf, other): "runs on different tasks",
        (kf,): "that is one contender",
        (kf, failed.key): "is failed: Diverged",
        (kf, "zzz"): "no run in",
    }.items():
        with pytest.raises(KfbenchError, match=said):
            comparison.of_keys(results, keys)
    for methods, task, said in (
        (["kf", "kff"], "cifar100", "no finished run of 'kff' .* did you mean 'kf'"),
        (["kf", "scratch"], "cifar-100", "no finished run on task 'cifar-100' .* did you mean 'cifar100'"),
        (["kf"], "cifar100", "no two of kf ran"),
    ):
        with pytest.raises(KfbenchError, match=said):
            comparison.of_methods(results, methods, task)


@pytest.mark.parametrize("name", ["curves.png", "deep/curves.svg", "curves.pdf"])
def test_curves_are_drawn(name: str, small: tuple[Path, Path], tmp_path: Path) -> None:
    tables = comparison.of_methods(small[1], ["scratch", "kf"], "cifar10")
    comparison.picture(tables, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    if name.endswith(".png"):
        image = np.asarray(Image.open(tmp_path / name).convert("RGB"))
        assert image.shape[1] > 800 and len(np.unique(image.reshape(-1, 3), axis=0)) > 50
    else:
        assert (b"scratch" in content and b"<svg" in content) if name.endswith(".svg") else content.startswith(b"%PDF")


def test_runs_of_other_lengths_are_drawn_over_their_own(small: tuple[Path, Path]) -> None:
    """Keys may be of any recipes: 12 epochs beside 36."""
    runs = some(small[1], "scratch")
    spec = runs[0].spec
    longer = {**spec, "recipe": {**spec["recipe"], "epochs": 3 * spec["recipe"]["epochs"]}}
    contenders = [
        comparison.Contender(label, tuple(run.model_copy(update={"spec": of}) for run in runs))
        for label, of in (("short", spec), ("long", longer))
    ]
    axis = Figure().subplots()
    comparison._draw(comparison.Table("t", tuple(contenders)), axis, ["short", "long"])
    ends = {line.get_label(): max(line.get_xdata()) for line in axis.lines}
    assert ends == {"short": spec["recipe"]["epochs"], "long": 3 * spec["recipe"]["epochs"]}


def test_the_command(type_in: Any, small: tuple[Path, Path], tmp_path: Path) -> None:
    _, results = small
    done = type_in("compare", "scratch", "kf", "--task", "cifar100", "--results", results, "--out", tmp_path / "c.png")
    assert done.code == 0 and (tmp_path / "c.png").is_file() and "minus scratch" in done.out, done
    [table] = json.loads(type_in("compare", "scratch", "kf", "--task", "cifar100", "--results", results, "--json").out)
    assert [row["label"] for row in table["rows"]] == ["scratch", "kf"]
    for words, said in {
        ("--out", tmp_path / "c.docx"): "give a name that ends in .png",
        ("--out", "/proc/there/c.png"): "cannot write",
    }.items():
        done = type_in("compare", "scratch", "kf", "--task", "cifar100", "--results", results, *words)
        assert done.code == 2 and len(done.lines) == 1 and said in done.err, done


def test_a_setting_that_older_records_lack_tells_them_apart() -> None:
    """Attention transfer's smallest map is 7 by default, and was every map, 1, before it could be set."""
    made = [records.read(path) for path in sorted((RESULTS / "cifar100" / "attention_transfer").glob("*.json"))]
    keys = {"smallest" in record.spec["settings"]: record.key for record in made if record.spec["seed"] == 0}
    assert len(keys) == 2, "one of each"
    table = comparison.of_keys(RESULTS, [keys[True], keys[False]])
    assert [contender.label for contender in table.contenders][0] == "attention_transfer"
    assert "smallest=1" in table.contenders[1].label


@pytest.mark.parametrize("columns", [None, 200])
def test_the_table_is_no_wider_than_the_terminal(columns: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns)) if columns else monkeypatch.delenv("COLUMNS", raising=False)
    methods = ["logit_standardisation", "factor_transfer", "kf"]
    tables = comparison.of_methods(RESULTS, methods, "cifar100")
    [table] = [table for table in tables if len(table.contenders) > 4]
    lines = comparison.text(table).splitlines()
    assert max(map(len, lines)) <= (columns or 80)
    for contender, row in zip(table.contenders, comparison.rows(table), strict=True):
        [place] = [n for n, line in enumerate(lines) if f" {row['score']:.2f} [" in line]
        name = contender.label.partition(",")[0]
        assert name in lines[place] if columns == 200 else name in "".join(lines[max(0, place - 2) : place])


def test_what_is_subtracted_is_named_if_one_has_its_name() -> None:
    for methods, told in ((["logit_standardisation", "kf"], "logit_standardisation"), (["kf", "scratch"], "the first")):
        tables = comparison.of_methods(RESULTS, methods, "cifar100")
        wide = [table for table in tables if len(table.contenders) > len(methods)]
        wide = [table for table in wide if {each.label.partition(",")[0] for each in table.contenders} >= set(methods)]
        assert wide and all(f"minus {told}  " in comparison.text(table) for table in wide)
