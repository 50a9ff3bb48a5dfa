"""Bi-tuning, against the authors' numbers: its two losses, the queues of keys, and the followers that make them."""

from typing import Any, cast

import pytest
import torch
from torch import nn
from tuning import THEIRS, module, numbers_task, parts_of, setup, trained, values, wave

from kfbench import registry
from kfbench.methods import Batch
from kfbench.transfer.companion import WithCompanions


def test_bi_tuning_is_the_authors() -> None:
    task, teacher = numbers_task()
    method = registry.load_method("bi_tuning", {"queue": 4, "momentum": 0.9, "dimensions": 5, "shift": 0})
    student = cast(WithCompanions, method.make_student(task, [teacher], torch.Generator().manual_seed(0)))
    student.network.requires_grad_(True)
    own, projection, queues = (
        cast(Any, each) for each in (student.network.body, student.parts["projection"], student.parts["queues"])
    )
    with torch.no_grad():
        own.fc.weight.copy_(wave(4, 3))
        own.fc.bias.copy_(0.1 * wave(4))
        own.head.weight.copy_(wave(3, 4, pace=0.4))
        own.head.bias.copy_(0.3 * wave(3))
        projection.weight.copy_(wave(5, 4, pace=2.3))
        projection.bias.copy_(0.2 * wave(5))
        for name, followed in (("encoder", student.network), ("follower", projection)):
            for kept, value in zip(student.parts[name].buffers(), followed.state_dict().values(), strict=True):
                kept.copy_(value)
        queues.features.copy_(nn.functional.normalize(wave(5, 3, 4, pace=0.83), dim=0))
        queues.projections.copy_(nn.functional.normalize(wave(5, 3, 4, pace=1.41), dim=0))
        queues.place.copy_(torch.tensor([3, 0, 1]))
        own.fc.weight += 0.05 * wave(4, 3, pace=3.1)  # the key encoder lags behind
        projection.weight += 0.05 * wave(5, 4, pace=0.2)
    labels = torch.tensor([0, 1, 0, 2, 0, 1])
    batch = Batch(wave(6, 3, pace=0.51).view(6, 3, 1, 1), torch.Generator(), labels=labels)
    _, parts = method.losses(student.train(), [teacher], batch, task, 0.0)
    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
    theirs = THEIRS["bi_tuning"]
    found = [float(parts[name].detach()) for name in ("projections", "scores")]
    assert found == pytest.approx(theirs["losses"], rel=1e-4)
    assert own.fc.weight.grad.flatten()[[0, 5, 11]].tolist() == pytest.approx(theirs["body"], rel=1e-3, abs=1e-5)
    assert projection.weight.grad.flatten()[[0, 7, 19]].tolist() == pytest.approx(theirs["projection"], rel=1e-3)
    assert own.head.weight.grad is None
    assert queues.place.tolist() == theirs["place"]
    for kept, of in ((queues.features, "features"), (queues.projections, "projections")):
        assert kept.flatten()[[0, 13, 30, 59]].tolist() == pytest.approx(theirs[of][:4], rel=1e-3, abs=1e-5)
        assert float(kept.sum()) == pytest.approx(theirs[of][4], rel=1e-3)


def test_a_queue_keeps_the_latest_keys_of_a_class_that_fills_it_twice() -> None:
    queues = module("bi_tuning").Queues(2, 3, 2, 2)
    keys = wave(8, 2)
    queues.take(torch.zeros(8, dtype=torch.int64), keys, keys)
    before = queues.features[:, 1].clone()
    assert torch.equal(queues.features[:, 0], keys[[6, 7, 5]].T)  # places 0 and 1 were written again, by 6 and 7
    assert queues.place.tolist() == [2, 0] and torch.equal(queues.features[:, 1], before)


def test_a_second_view_is_the_first_moved() -> None:
    images = torch.arange(5.0).view(1, 1, 1, 5).expand(4, 2, 3, 5).contiguous()
    made = module("bi_tuning").shifted(images, 2, torch.Generator().manual_seed(1))
    rows = {tuple(row) for row in made[:, 0, 0].tolist()}
    assert rows <= {(0, 0, 0, 1, 2), (0, 0, 1, 2, 3), (0, 1, 2, 3, 4), (1, 2, 3, 4, 4), (2, 3, 4, 4, 4)}
    assert len(rows) > 1 and torch.equal(made[:, 0], made[:, 1])


def test_keys_follow_by_momentum_with_statistics_of_their_own() -> None:
    live = setup("bi_tuning", momentum=0.5)
    student = cast(WithCompanions, live.student)
    encoder = cast(Any, student.parts["encoder"])
    before = {name: value.clone() for name, value in encoder._state().items()}
    loop = trained(live, 2)
    batch, live_now = loop.batch(), values(student.network)
    parts_of(live, batch)
    after = encoder._state()
    name, mean = "body.blocks.0.conv.weight", "body.blocks.0.norm.running_mean"
    assert not torch.equal(after[name], before[name]) and not torch.equal(after[name], live_now[name])
    assert not torch.equal(after[mean], before[mean]) and not torch.equal(after[mean], live_now[mean])
    assert not any(weight.requires_grad for weight in encoder.parameters()) and not list(encoder.parameters())


def test_keys_of_layers_that_share_a_weight_follow_it() -> None:
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight  # type: ignore[assignment]
    follower, x = module("bi_tuning").Follower(tied), torch.rand(2, 3)
    with torch.no_grad():
        assert torch.equal(follower(tied, x), tied(x))
        tied[0].weight.add_(1)  # type: ignore[operator]
        follower.follow(tied, 0.0)
        assert torch.equal(follower(tied, x), tied(x))
