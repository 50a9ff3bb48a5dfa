"""Plots of scores over training sizes and costs, and their axes."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from kfbench.reporting import grid, plots, score_plots, style


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
