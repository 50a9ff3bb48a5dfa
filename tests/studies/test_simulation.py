"""What one driver sustains: the simulation against what its costs allow; the measuring runs on pretended runs."""

import pytest

from kfbench.studies import simulation
from kfbench.studies.simulation import Costs


def test_few_long_runs_are_bound_by_their_places_and_many_short_ones_by_the_driver():
    costs = Costs(own=0.05, start=0.05, look=0.0, events=0.0, pause=0.1)
    rate, busy = simulation.simulate(costs, places=8, seconds=60.0)
    assert rate == pytest.approx(8 * 60, rel=0.05) and busy < 0.05
    rate, busy = simulation.simulate(costs, places=512, seconds=10.0)
    assert rate == pytest.approx(3600 / (costs.own + costs.start), rel=0.15) and busy > 0.95
    slow = simulation.simulate(costs._replace(look=0.01), places=512, seconds=600.0)
    assert slow[1] > 0.9 > simulation.simulate(costs, places=512, seconds=600.0)[1]  # looking at each run costs too


def test_what_is_measured_is_the_real_driver(tmp_path, monkeypatch):
    monkeypatch.setattr(simulation, "PRETENDED", 4)
    monkeypatch.setattr(simulation, "REAL", 2)
    costs = simulation.measure("local", tmp_path)
    assert costs.own > 0 and costs.start > 0 and costs.events > 0 and costs.pause == 0.05
    assert len(list((tmp_path / "pretended" / "digits").rglob("*.json"))) == 4
    assert len(list((tmp_path / "local" / "digits").rglob("*.json"))) == 2
