"""Plots of shares and influence: how a student's layers are mixed over a run."""

import numpy as np
import pytest

from kfbench.reporting import grid, mixing_plots, style


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
