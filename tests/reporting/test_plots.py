"""Plots: what they draw, and that the same records give the same bytes."""

from dataclasses import replace
from types import SimpleNamespace

import gains
import numpy as np
import pytest
import seaborn as sns
from matplotlib.colors import to_rgb
from matplotlib.markers import CARETLEFT, CARETRIGHT
from scipy.stats import ttest_1samp

from kfbench.errors import KfbenchWarning
from kfbench.reporting import curve_plots, grid, mixing_plots, plots, score_plots, style
from kfbench.studies import definition


@pytest.fixture(scope="module")
def made(reported):
    folder, results = reported
    return grid.load(folder, definition.load(folder), results)


def test_every_plot_that_applies_is_drawn(reported, made):
    folder, _ = reported
    names = {"gains", "curves", "attached", "labels", "profile", "improvement", "cost"}  # parameters agree: no "size"
    names |= {"shares-1", "influence-1"}
    assert {path.stem for path in (folder / "plots").glob("*.svg")} == names
    assert {path.stem for path in (folder / "plots").glob("*.png")} == names


def test_the_same_figure_gives_the_same_bytes(reported, made, tmp_path):
    folder, _ = reported
    with style.in_style():
        drawn = plots.gains(made)
        assert drawn is not None
        style.save(drawn[2], tmp_path / "gains")
    for suffix in (".svg", ".png"):
        assert (tmp_path / f"gains{suffix}").read_bytes() == (folder / "plots" / f"gains{suffix}").read_bytes()
    text = (tmp_path / "gains.svg").read_text()
    assert "<dc:date>" not in text and "points of accuracy over scratch" in text  # text stays text


def test_curves_line_up_by_progress_and_skip_what_is_absent(made):
    times, values = curve_plots.curve(made, "kf", "cifar100", "val_error_attached")
    assert values.shape == (4, 9) and times.max() == 0.8  # teachers are cut off at 0.9
    assert curve_plots.curve(made, "scratch", "cifar100", "share/student")[1].size == 0
    assert curve_plots.curve(made, "pathnet", "cifar100", "val_error")[1].size == 0


def _longer(made, row, factor):
    """The same study with a row that trained for longer: its curves say the same of their progress."""
    cells = dict(made.cells)
    for place, cell in made.cells.items():
        if place[0] == row and cell.planned.spec is not None and place[1] != "atari/krull":
            recipe = replace(cell.planned.spec.recipe, epochs=factor * cell.planned.spec.recipe.epochs)
            cells[place] = replace(cell, planned=replace(cell.planned, spec=replace(cell.planned.spec, recipe=recipe)))
    return replace(made, cells=cells)


def _ends(axis):
    return {line.get_label(): np.max(line.get_xdata()) for line in axis.lines}


def test_a_row_that_trains_for_longer_is_drawn_over_its_own_length(made):
    epochs = made.cells["kf", "cifar100"].planned.spec.recipe.epochs
    longer = _longer(made, "kf", 3)
    with style.in_style():
        (_, whole, curves), (_, said, apart) = curve_plots.curves(made), curve_plots.curves(longer)
        shares, influence = mixing_plots.mixing(longer)
        attached = curve_plots.attached(longer)[2]
    panel = made.columns.index("cifar100")
    assert _ends(curves.axes[panel]) == {"scratch": epochs, "kf": epochs, "kd, T 4": epochs}
    assert _ends(apart.axes[panel]) == {"scratch": epochs, "kf": 3 * epochs, "kd, T 4": epochs}
    assert "longer than others" in said and "longer" not in whole
    assert {round(axis.get_xlim()[1], 6) for axis in influence.figure.axes if axis.get_visible()} == {3.0 * epochs}
    assert shares.figure.axes[0].get_xlim()[1] == 3 * epochs
    assert _ends(attached.axes[0])["alone"] == 3 * epochs


def test_the_band_is_students_interval_at_each_point():
    values = np.random.default_rng(0).normal(size=(5, 3))
    values[2, 1] = np.nan
    mean, low, high = curve_plots.band(values)
    assert mean == pytest.approx(np.nanmean(values, axis=0))
    for t in (0, 1, 2):
        there = values[~np.isnan(values[:, t]), t]
        exact = ttest_1samp(there, 0).confidence_interval(0.95)
        assert (low[t], high[t]) == pytest.approx((exact.low, exact.high))
    lone, bottom, top = curve_plots.band(values[:1])
    assert lone == pytest.approx(values[0]) and np.isnan(bottom).all() and np.isnan(top).all()


@pytest.mark.parametrize(("is_percent", "ends"), [(True, (0.0, 103.0)), (False, (-28.6, 128.6))])
def test_an_axis_of_percent_ends_where_percent_do(is_percent, ends):
    with style.in_style():
        figure, (axis,) = style.panels(1)
        curve_plots.draw_line(axis, np.array([0.0, 1.0]), np.array([[99.0, 1.0], [98.0, 2.0]]), "kf", 0)
        axis.plot([0.0, 1.0], [99.0, 1.0])
        curve_plots.draw_line(axis, np.array([0.0, 1.0]), np.array([[80.0, 9.0], [20.0, 9.0]]), "kd", 1)  # a wide band
        curve_plots.frame(axis, is_percent=is_percent)
    assert axis.get_ylim() == pytest.approx(ends, abs=0.5)


def test_shares_stack_to_one(made):
    with style.in_style():
        shares, _ = mixing_plots.mixing(made)
    for axis in shares.figure.axes:
        if axis.get_visible():
            top = axis.collections[-1].get_paths()[0].vertices[:, 1].max()
            assert len(axis.collections) == 3 and top == pytest.approx(1.0)


def test_shares_end_where_the_teachers_are_cut_off(made):
    """After it they stand still and weigh nothing; where curves do not tell of teachers they have no end."""

    def ends(plot):
        axes = [axis for axis in plot.figure.axes[:4] if axis.get_visible()]  # of the first column, one of images
        return [axis.collections[0].get_paths()[0].vertices[:, 0].max() for axis in axes]

    with style.in_style():
        shares, influence = mixing_plots.mixing(made)
    told = [list(zip(*line.get_data(), strict=True)) for line in influence.figure.axes[0].lines[1:]]
    last = max(time for points in told for time, value in points if np.isfinite(value))
    whole = shares.figure.axes[0].get_xlim()[1]
    assert last < whole and ends(shares) == pytest.approx([last] * 4)
    assert "Bands end where the teachers are cut off" in shares.caption
    silent = [_renamed(_older(record), "val_error_attached", "elsewhere") for record in made.done()]
    [bare] = _mixing_of(made, silent)
    assert ends(bare) == pytest.approx([whole] * 4) and "Bands end" not in bare.caption


def test_influence_is_drawn_where_curves_state_it_until_the_cut(made):
    """By hand: 3 (1 - share) (0.5 + 0.1 k), the largest of three layers; older records have none."""
    with style.in_style():
        _, influence = mixing_plots.mixing(made)
    axes = [axis for axis in influence.figure.axes if axis.get_visible()]
    assert len(axes) == 4 and "cifar100" in axes[0].get_ylabel() and axes[0].get_yscale() == "log"
    first = {line.get_label(): line.get_ydata() for line in axes[0].lines}
    assert first["cifar10/cnn-16"][0] == pytest.approx(3 * 0.53 * 0.7)
    assert first["digits/cnn-16"][0] == pytest.approx(3 * 0.53 * 0.5)
    assert np.isnan(first["digits/cnn-16"][-1]) and np.isfinite(first["digits/cnn-16"][-3])
    assert len({(line.get_linestyle(), line.get_marker()) for line in axes[0].lines}) == 3  # with the line of 1


def _mixing_of(made, records):
    with style.in_style():
        return mixing_plots.mixing(grid.join(made.study, [c.planned for c in made.cells.values()], records))


def _older(record):
    """Return the record as it was before curves stated influence."""
    curve = [{k: v for k, v in point.items() if not k.startswith("influence")} for point in record.curve]
    return record.model_copy(update={"curve": curve})


def test_records_without_influence_have_no_plot_of_it(made):
    assert [plot.name for plot in _mixing_of(made, [_older(record) for record in made.done()])] == ["shares-1"]


def _renamed(record, before, after):
    curve = [{key.replace(before, after): value for key, value in point.items()} for point in record.curve]
    return record.model_copy(update={"curve": curve})


def test_two_teachers_that_differ_in_their_budget_have_a_line_each_in_the_legend(made):
    names = sorted(
        {key.split("/", 2)[2] for r in made.done() for p in r.curve for key in p if key[:10] == "influence/"}
    )
    twins = [_renamed(record, names[1], names[0].partition("@")[0] + "@paper") for record in made.done()]
    for plot in _mixing_of(made, twins):
        (legend,) = plot.figure.legends
        labels = [text.get_text() for text in legend.get_texts()]
        assert labels.count(names[0].partition("@")[0] + "@paper") == labels.count(names[0]) == 1


def test_a_mean_over_some_of_the_runs_says_so(made):
    """One of the runs of kf is older than influence: its plot counts the others, that of shares counts all."""
    oldest = made.cells["kf", "cifar100"].done[0].key
    some = [_older(record) if record.key == oldest else record for record in made.done()]
    whole = [plot.caption for plot in _mixing_of(made, made.done())]
    shares, influence = (plot.caption for plot in _mixing_of(made, some))
    assert all("mean over seeds" in caption for caption in whole)
    assert "mean over seeds" in shares and "mean over the 3 of 4 runs that recorded it" in influence


def test_label_efficiency_has_students_intervals(made):
    with style.in_style():
        drawn = plots.labels(made)
    assert drawn is not None
    [axis] = drawn[2].axes
    values = made.scores("kf", ["cifar10, 250 images"])[:, 0]
    exact = ttest_1samp(values, 0).confidence_interval(0.95)
    segment = axis.collections[1].get_segments()[0]
    assert segment[:, 1] == pytest.approx([exact.low, exact.high])


def _labels_with(made, size, kept):
    """Draw label efficiency where kf has only its first `kept` runs of a size; the caption, and the lines of kf."""
    place = ("kf", f"cifar10, {size} images")
    records = tuple(record if n < kept else None for n, record in enumerate(made.cells[place].records))
    cells = made.cells | {place: replace(made.cells[place], records=records)}
    with style.in_style():
        _, caption, figure = plots.labels(grid.Grid(made.study, cells))
    kf = made.rows.index("kf")
    return caption, [line for line in figure.axes[0].lines if line.get_color() == style.colour(kf)]


def test_a_line_breaks_where_nothing_was_run(made):
    caption, [line] = _labels_with(made, "1,000", 0)
    assert list(np.isnan(line.get_ydata())) == [False, True] and line.get_marker() != "None"
    assert "Hollow" not in caption


def test_a_single_run_is_no_mean(made):
    caption, [_, lone] = _labels_with(made, "1,000", 1)
    assert len(lone.get_xdata()) == 1 and lone.get_markerfacecolor() == style.PAPER
    assert "Hollow: a single run." in caption and "Hollow" not in _labels_with(made, "1,000", 4)[0]


def test_a_curve_of_one_point_can_be_seen():
    with style.in_style():
        _, (axis,) = style.panels(1)
        curve_plots.draw_line(axis, np.array([0.5]), np.array([[9.0], [8.0]]), "kf", 0)
        curve_plots.draw_line(axis, np.array([0.5, 1.0]), np.array([[9.0, 8.0]]), "kd", 1)
    assert [line.get_marker() for line in axis.lines] == [style.marker(0), "None"]


def test_all_images_are_a_size_too(made):
    """How many they are is known from the steps of a recorded run."""
    columns = [
        column.model_copy(update={"train_size": "all"}) if column.train_size == 1000 else column
        for column in made.study.tasks
    ]
    with style.in_style():
        drawn = plots.labels(grid.Grid(made.study.model_copy(update={"tasks": columns}), made.cells))
    assert drawn is not None
    [axis] = drawn[2].axes
    recipe = made.cells["kf", "cifar10, 1,000 images"].done[0].spec["recipe"]
    assert list(axis.get_xticks()) == [250, int(1000 * recipe["batch_size"] / recipe["epochs"])]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["250", "all"]


def test_a_line_joins_no_columns_of_one_size_and_tells_what_else_differs(made):
    """Two recipes on 250 images each would be a vertical stroke; of two sizes the caption says what differs beside."""

    def drawn(**recipes):
        tasks = [
            column.model_copy(update={"recipe": recipes.get(f"of_{column.train_size}", {})})
            for column in made.study.tasks
        ]
        return plots.labels(grid.Grid(made.study.model_copy(update={"tasks": tasks}), made.cells))

    with style.in_style():
        assert "The columns differ in epochs too" in drawn(of_250={"epochs": 40})[1]
        assert "The columns differ" not in drawn()[1]
    sized = [(250, "a"), (1000, "b"), (250, "c"), (1000, "d")]
    columns = [(size, SimpleNamespace(recipe={"epochs": 3 if label < "c" else 9})) for size, label in sized]
    lines = score_plots._lines(columns)
    assert {told: [size for size, _ in part] for told, part in lines.items()} == {
        ", epochs 3": [250, 1000],
        ", epochs 9": [250, 1000],
    }


def _scaled(*spans):
    """Return panels of these values, scaled together, and the labels of their x axes."""
    with style.in_style():
        figure, axes = style.panels(len(spans), legend=False)
        for span, axis in zip(spans, axes, strict=True):
            for value in span:
                axis.plot(value, 1.0, "o")
        score_plots._scale(figure, axes, "time")
        figure.draw_without_rendering()
    return axes, [[tick for tick in axis.get_xticklabels() if tick.get_text()] for axis in axes]


@pytest.mark.parametrize("low", [1.0, 2.2, 3.7, 5.1, 8.3e4])
@pytest.mark.parametrize("times", [1.2, 2.5, 11, 49, 130, 3e4, 1e7])
def test_a_logarithmic_axis_can_be_read(low, times):
    """Whatever it spans: three labels at least, and none over another; the panel beside it has the same scale."""
    axes, labels = _scaled([low, low * times], [low, 12 * low])
    assert [axis.get_xscale() for axis in axes] == ["log", "log"]
    assert {axis.get_xlabel() for axis in axes} == {"time (logarithmic)"}
    for of_panel in labels:
        boxes = [label.get_window_extent() for label in of_panel]
        assert len(boxes) >= 3 and len({label.get_text() for label in of_panel}) == len(boxes)
        assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))


def test_an_axis_of_less_than_a_decade_begins_at_zero():
    axes, _ = _scaled([1.0, 9.0], [3.0])
    assert [(axis.get_xscale(), axis.get_xlim()[0], axis.get_xlabel()) for axis in axes] == [("linear", 0, "time")] * 2


def _relabelled(made, label):
    """The same study with another label for kf."""
    rows = [row.model_copy(update={"label": label}) if row.label == "kf" else row for row in made.study.methods]
    cells = {(label if row == "kf" else row, column): cell for (row, column), cell in made.cells.items()}
    return grid.Grid(made.study.model_copy(update={"methods": rows, "claims": []}), cells)


def test_short_labels_stay_as_they_are_and_long_ones_apart():
    whole = "x" * style.LONGEST
    long = ["kf " + "very " * 20 + end for end in ("a", "b", "b" * 30, "c" + "b" * 30)]
    names = style.short([whole, *long])
    assert names[whole] == whole and len(set(names.values())) == 5
    assert all(len(name) <= style.LONGEST for name in names.values())


def test_a_long_label_leaves_room_for_the_panels(made):
    with style.in_style():
        _, _, figure = plots.gains(_relabelled(made, "kf with everything " * 6))
        _, _, curves = plots.curves(_relabelled(made, "kf with everything " * 6))
        figure.draw_without_rendering()
    names = [axis.xaxis.label.get_window_extent() for axis in figure.axes if axis.get_visible()]
    assert all(axis.get_window_extent().width > 120 for axis in figure.axes)
    assert all(not one.overlaps(other) for n, one in enumerate(names) for other in names[:n])
    assert max(len(text.get_text()) for text in curves.legends[0].get_texts()) <= style.LONGEST


def test_characters_that_the_font_lacks_are_told_once(made, tmp_path):
    with pytest.warns(KfbenchWarning) as told, style.in_style():
        for name in ("one", "two"):
            style.save(plots.gains(_relabelled(made, "知識"))[2], tmp_path / name)
    assert len(told) == 1 and "(知 識)" in str(told[0].message)
    assert "知識" in (tmp_path / "one.svg").read_text(encoding="utf-8")


def test_a_label_with_dollars_is_drawn_as_it_is(made):
    """Unknown commands between dollars would stop the report."""
    rows = [
        row.model_copy(update={"label": r"$\nosuch$ 5$"}) if row.label == "kf" else row for row in made.study.methods
    ]
    cells = {(r"$\nosuch$ 5$" if row == "kf" else row, column): cell for (row, column), cell in made.cells.items()}
    with style.in_style():
        drawn = plots.gains(grid.Grid(made.study.model_copy(update={"methods": rows}), cells))
        assert drawn is not None
        drawn[2].canvas.draw()


def test_a_difference_without_an_interval_is_hollow():
    with style.in_style():
        _, caption, figure = plots.gains(gains.made({"kf": {"cifar100": [1.0, 2.0]}, "kd": {"cifar100": [3.0, None]}}))
    dots = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert [line.get_markerfacecolor() == style.PAPER for line in dots] == [False, True] and "Hollow" in caption


def test_a_row_that_diverged_does_not_hide_the_others():
    """Its interval is cut at the overview's scale, and says so; without it nothing is cut."""
    near = {"kf": {"cifar100": [1.0, 2.0, 3.0]}, "kd": {"cifar100": [-2.0, -1.0, 0.0]}}
    far = near | {"kf/guided": {"cifar100": [-80.0, 1.0, 2.0]}}
    for values, is_cut in ((near, False), (far, True)):
        with style.in_style():
            _, caption, figure = plots.gains(gains.made(values))
        [axis] = figure.axes
        arrows = [line for line in axis.lines if line.get_marker() in (CARETLEFT, CARETRIGHT)]
        assert ("beyond the scale" in caption) == is_cut
        assert [line.get_ydata()[0] for line in arrows] == ([2, 2] if is_cut else [])
        low, high = axis.get_xlim()
        dots = [line.get_xdata()[0] for line in axis.lines if line not in arrows and len(line.get_xdata()) == 1]
        assert all(low < dot < high for dot in dots) and len(dots) == len(values)
        assert high - low < (100 if is_cut else 20)
    assert {line.get_xdata()[0] for line in arrows} == {low, high}


def test_improvement_matrix_is_skew(made):
    with style.in_style():
        drawn = plots.improvement(made)
    assert drawn is not None
    texts = [float(text.get_text()) for text in drawn[2].axes[0].texts]
    assert len(texts) == 12  # four methods, no diagonal
    matrix = np.full((4, 4), 0.5)
    matrix[~np.eye(4, dtype=bool)] = texts
    assert matrix + matrix.T == pytest.approx(1.0, abs=0.011)


def test_all_names_and_numbers_of_axes_follow_the_pages_theme(made):
    """Ink becomes the page's own colour; what is drawn in another cannot be read on dark paper."""
    with style.in_style():
        for plot in plots.plots(made):
            plot.figure.draw_without_rendering()
            for axis in plot.figure.axes:
                words = [
                    axis.xaxis.label,
                    axis.yaxis.label,
                    axis.title,
                    *axis.get_xticklabels(),
                    *axis.get_yticklabels(),
                ]
                assert {text.get_color() for text in words} == {style.INK}, plot.name


def test_numbers_in_the_matrix_stand_out_from_their_cells(made):
    with style.in_style():
        _, _, figure = plots.improvement(made)
    [matrix] = [axis for axis in figure.axes if axis.texts]
    cells = matrix.collections[0].get_facecolors()
    for text in matrix.texts:
        right, down = (int(place) for place in text.get_position())
        shades = sorted(
            sns.utils.relative_luminance(to_rgb(c)) + 0.05 for c in (text.get_color(), cells[4 * down + right])
        )
        assert shades[1] / shades[0] > 3.8  # WCAG asks for 3 of large text, 4.5 of small


def test_a_plot_over_some_of_the_tasks_names_them(made):
    with style.in_style():
        for draw in (plots.profile, plots.improvement):
            _, caption, _ = draw(made)
            assert "2 of 4 tasks" in caption and "cifar10, 250 images · cifar10, 1,000 images" in caption
            study = made.study.model_copy(update={"methods": made.study.methods[:2]})  # scratch and kf ran all
            assert "the 4 tasks that every method shown has run" in draw(replace(made, study=study))[1]


def test_a_plot_tells_tasks_without_a_scale_from_tasks_that_were_not_run(made):
    unlike = gains.without_reference(made)
    whole = replace(unlike, study=unlike.study.model_copy(update={"methods": unlike.study.methods[:2]}))
    lacking = "Carnival has no human-normalised score: cifar10, 250 images · cifar10, 1,000 images"
    with style.in_style():
        for draw in (plots.profile, plots.improvement):
            assert f"3 of 4 tasks, as {lacking} · cifar100" in draw(whole)[1]
            assert f"2 of 4 tasks, as not all methods shown have run more and {lacking}" in draw(unlike)[1]


def test_a_study_without_records_draws_nothing(made):
    empty = grid.join(made.study, [cell.planned for cell in made.cells.values()], [])
    with style.in_style():
        assert plots.plots(empty) == []


def test_neighbours_differ_without_colour():
    """Grey print stays readable."""
    assert len({(style.colour(n), style.dash(n), style.marker(n)) for n in range(12)}) == 12
    assert all(style.dash(n) != style.dash(n + 1) and style.marker(n) != style.marker(n + 1) for n in range(11))


def test_of_many_rows_the_foremost_have_colours(made, monkeypatch):
    """The baseline and what claims name come first, then the best; the others are drawn, once named "others"."""
    monkeypatch.setattr(curve_plots, "MOST", 3)
    assert curve_plots.foremost(made) == ["scratch", "kf", "kd, T 4"]  # pathnet is named by a claim too, but later
    with style.in_style():
        _, caption, figure = curve_plots.curves(made)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels.count("others") == 1 and {"scratch", "kf"} <= set(labels) and "pathnet" not in labels
    assert "thin lines" in caption
