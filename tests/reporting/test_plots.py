"""Plots: what they draw, and that the same records give the same bytes."""

from dataclasses import replace

import gains
import numpy as np
import pytest
import seaborn as sns
from matplotlib.colors import to_rgb
from matplotlib.markers import CARETLEFT, CARETRIGHT
from scipy.stats import ttest_1samp

from kfbench.errors import KfbenchWarning
from kfbench.reporting import curve_plots, grid, mixing_plots, plots, style


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


def test_a_curve_of_one_point_can_be_seen():
    with style.in_style():
        _, (axis,) = style.panels(1)
        curve_plots.draw_line(axis, np.array([0.5]), np.array([[9.0], [8.0]]), "kf", 0)
        curve_plots.draw_line(axis, np.array([0.5, 1.0]), np.array([[9.0, 8.0]]), "kd", 1)
    assert [line.get_marker() for line in axis.lines] == [style.marker(0), "None"]


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
