"""The life of a run: teachers are there before training, the test split comes last, what was run is a record."""

import json
import shutil
import socket
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from short_runs import TEACHERS, Told, outcome, spec_of
from torch import nn

from kfbench import registry
from kfbench.conformance import tiny
from kfbench.errors import KfbenchError
from kfbench.networks import taps, weights
from kfbench.running import device, execute, prepare, records, stand_in, verify

pytestmark = pytest.mark.usefixtures("quiet_machine")


@pytest.fixture
def tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let torch.compile trace and guard as ever, and leave out the C++ compiler."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    import torch._dynamo.config

    with torch._dynamo.config.patch(skip_nnmodule_hook_guards=True):  # torch's own; put back at the end
        yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("tracing")
def test_hooks_that_come_after_a_network_was_compiled_are_called() -> None:
    setup = stand_in.setup(tiny.spec_of("scratch"), rows=tiny.ROWS)
    prepare.compile_networks(setup)
    network, images = setup.student.eval(), torch.rand(2, *setup.task.shape)
    with torch.no_grad():
        plain = network(images).logits
        with taps.read(network, network.layers) as found:
            network(images)
        assert set(found) == set(network.layers)
        [handle] = taps.rewrite(network, {network.layers[0]: torch.zeros_like})
        assert not torch.equal(network(images).logits, plain)
        handle.remove()
        assert torch.equal(network(images).logits, plain)


@pytest.mark.usefixtures("tracing")
def test_a_run_that_was_compiled_is_verified_compiled(tmp_path: Path) -> None:
    record = execute.run(spec_of(), results=tmp_path, compiled=True)
    again = verify.again(record, tmp_path, results=tmp_path, device="cpu")
    assert again.provenance["compiled"] and verify.compare(record, again, []).word == "bit-equal"


def test_the_test_split_is_not_even_there_before_the_last_step(
    packed_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    shutil.copytree(packed_digits, data)
    monkeypatch.setenv("KFBENCH_DATA", str(data))
    file, away = data / "digits" / "test.safetensors", tmp_path / "away"
    file.rename(away)
    spec = spec_of("kf", teachers=TEACHERS)  # evaluations, teachers and all
    told = Told()
    with pytest.raises(KfbenchError, match="test.safetensors' cannot be read"):
        execute.run(spec, results=tmp_path, watcher=told, checkpoint_seconds=0)
    assert told.position == told.total == 30 and not list(tmp_path.glob("digits/kf/*"))
    away.rename(file)  # and what was trained was not lost
    told = Told()
    record = execute.run(spec, results=tmp_path, watcher=told)
    assert told.lines == ["goes on from step 30 of 30"] and set(record.scores) == {"last", "best", "val"}
    assert outcome(record) == outcome(execute.run(spec, results=tmp_path / "whole"))


def test_the_same_spec_finds_its_record_and_force_runs_it_again(tmp_path: Path) -> None:
    first = execute.run(spec_of(), results=tmp_path)
    path = records.path_of(tmp_path, first.key, spec_of())
    written = path.read_text()
    told = Told()
    again = execute.run(spec_of(), results=tmp_path, watcher=told)
    [line] = told.lines
    assert line.startswith("recorded already") and first.key in line and told.position == 0
    assert again == first and path.read_text() == written
    told = Told()
    forced = execute.run(spec_of(), results=tmp_path, watcher=told, force=True)
    assert told.position == 30 and outcome(forced) == outcome(first)
    other = execute.run(spec_of(seed=1), results=tmp_path)
    assert other.key != first.key and other.provenance["weights"] != first.provenance["weights"]


def test_a_record_that_was_changed_by_hand_is_refused(tmp_path: Path) -> None:
    record = execute.run(spec_of(), results=tmp_path)
    path = records.path_of(tmp_path, record.key, spec_of())
    good = path.read_text()
    for bad, said in (
        (good.replace('"seed": 0', '"seed": 1', 1), "was changed by hand"),
        (good.replace('"harness_revision": 1', '"harness_revision": 2'), "was changed by hand"),
        (good[:-200], "is not a run record"),
        ("[]", "is not a run record"),
    ):
        assert bad != good
        path.write_text(bad)
        with pytest.raises(KfbenchError, match=said):
            execute.run(spec_of(), results=tmp_path)


def test_the_record_says_what_was_run_and_what_is_kept(tmp_path: Path) -> None:
    record = execute.run(spec_of("kf", teachers=TEACHERS), results=tmp_path)
    network, about, digest = weights.load(
        records.path_of(tmp_path, record.key, record.run_spec()).with_suffix(".safetensors")
    )
    plain = execute.run(spec_of(), results=tmp_path)
    assert record.cost["parameters"] == plain.cost["parameters"] == sum(p.numel() for p in network.parameters())
    assert digest == record.provenance["weights"] and about["key"] == record.key and about["task"] == "digits"
    assert record.run_spec() == spec_of("kf", teachers=TEACHERS) and len(record.provenance["teachers"]) == 2
    assert record.provenance["threads"] == 1 and record.provenance["data"] and record.status == "done"
    assert len(record.curve) == 3 and {"val_error", "share/student", "loss/cross-entropy"} <= set(record.curve[0])
    assert str(Path.home()) not in json.dumps(record.provenance)


def test_no_teacher_is_trained_for_a_student_that_cannot_be_made(tmp_path: Path) -> None:
    spec = spec_of("lora", teachers=["digits/low/cnn-4@smoke"], settings={"only": "no"})
    with pytest.raises(KfbenchError, match="no layer of network 'cnn-4' has 'no' in its name"):
        execute.run(spec, results=tmp_path)
    assert not (tmp_path / "teachers").exists()


def test_a_teacher_is_trained_once_and_its_file_is_verified(tmp_path: Path) -> None:
    spec = spec_of("kd", teachers=["digits/cnn-4@smoke:epochs=1+batch_size=128"])
    told = Told()
    record = execute.run(spec, results=tmp_path, watcher=told)
    assert any(line.startswith("teacher digits/cnn-4@smoke") for line in told.lines)
    twice = execute.run(spec_of("kf", teachers=[*spec.teachers] * 2), results=tmp_path)
    assert twice.cost["teacher_seconds"] == record.cost["teacher_seconds"]  # it was trained once
    assert record.cost["teacher_seconds"] > 0 and record.provenance["teachers"][0]["task"] == "digits"
    [path] = (tmp_path / "teachers").rglob("*.safetensors")
    stamp, whole = path.stat().st_mtime_ns, path.read_bytes()
    assert execute.run(spec_of("kd", teachers=list(spec.teachers), seed=1), results=tmp_path).status == "done"
    assert path.stat().st_mtime_ns == stamp  # it serves all seeds
    path.write_bytes(whole[: len(whole) // 2])
    again = "; delete it, and it is trained again: kfbench teacher delete [0-9a-f]{12} --force$"
    with pytest.raises(KfbenchError, match=f"is not a whole safetensors file .*{again}") as raised:
        execute.run(spec, results=tmp_path, force=True)
    assert str(path) in str(raised.value)
    path.write_bytes(whole)
    network, about, _ = weights.load(path)
    with torch.no_grad():
        next(network.parameters()).add_(1)
    weights.save(network, path, {"task": about["task"], "classes": about["classes"]}, half=True)
    with pytest.raises(KfbenchError, match=f"is not the teacher of its record{again}"):
        execute.run(spec, results=tmp_path, force=True)
    path.unlink()
    told = Told()
    assert outcome(execute.run(spec, results=tmp_path, watcher=told, force=True)) == outcome(record)
    assert any("no weights here: it is trained again" in line for line in told.lines) and path.read_bytes() == whole


@pytest.mark.parametrize(
    ("teachers", "network"),
    [
        (["run:0123abcd"], "cnn-4"),
        (["file:nowhere.pth"], "cnn-4"),
        (["torchvision:resnet18:pretrained"], "cnn-4"),
        ([], "torchvision:resnet18:pretrained"),
    ],
)
def test_what_cannot_be_had_is_found_before_a_teacher_is_trained(
    teachers: list[str], network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*anything: Any, **more: Any) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    spec, told = spec_of("kf", teachers=["digits/cnn-4@smoke", *teachers], network=network), Told()
    with pytest.raises(KfbenchError, match="0123abcd|nowhere.pth|could not make network 'torchvision:resnet18"):
        execute.run(spec, results=tmp_path / "results", watcher=told)
    assert not told.lines and not list(tmp_path.rglob("*.safetensors"))


def test_threads_go_back_to_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_own", [])  # a test before it may have asked for a number
    before = torch.get_num_threads()
    images, games = registry.kind_of("digits"), registry.kind_of("atari")
    try:
        torch.set_num_threads(3)
        for threads, kind, now in ((None, images, 3), (None, games, 1), (2, images, 2), (None, images, 3)):
            device.set_threads(threads, kind)
            assert torch.get_num_threads() == now
    finally:
        torch.set_num_threads(before)
