"""`kfbench teacher import`: a file of somebody's weights becomes a teacher that runs, lists, shows and verifies."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kfbench import library, networks
from kfbench.data import images
from kfbench.errors import KfbenchWarning
from kfbench.networks import weights
from kfbench.registry import load_task
from kfbench.running import imported, records, resolve, stand_in

IMPORT = ("teacher", "import", "best.pth", "--network", "resnet8", "--task", "digits")


@pytest.fixture(autouse=True)
def data_folder(packed_digits: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def body() -> nn.Module:
    """A network that somebody trained on grey digits normalised by 0.3 and 0.4, saved by a distributed run."""
    torch.manual_seed(0)
    network = networks.make("resnet8", shape=(1, 8, 8), outputs=10)
    network.normalise_by(torch.tensor([0.3]), torch.tensor([0.4]))
    data = images.load(load_task("digits"))  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    taken, labels = images.to_float(data.train.images[:256]), data.train.labels[:256]
    for _ in range(12):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(taken).logits, labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    renamed = {}
    for name, value in network.eval().body.state_dict(prefix="module.").items():
        name = re.sub(r"stages\.(\d)", lambda found: f"layer{int(found[1]) + 1}", name).replace("norm", "bn")
        renamed[name.replace("shortcut", "downsample").replace("head", "fc")] = value
    torch.save({"epoch": 240, "model": renamed, "best_acc": 98.5, "optimizer": optimizer.state_dict()}, "best.pth")
    return network


def test_from_a_file_to_a_run(type_in: Any, body: Any) -> None:
    code, out, err = type_in(*IMPORT, "--name", "theirs", "--mean", "0.3", "--std", "0.4")
    assert code == 0 and "imported:theirs  resnet8 on digits, 10 classes" in out and not err, err
    data = images.load(load_task("digits"))  # type: ignore[arg-type]
    with torch.no_grad():
        wrong = body(images.to_float(data.val.images)).logits.argmax(1) != data.val.labels
    shown = float(re.search(r"validation  ([\d.]+) % error", out)[1])  # type: ignore[index]
    assert shown == pytest.approx(100 * float(wrong.float().mean()), abs=0.01) and shown < 60
    network, about = imported.load("theirs", Path("results"))
    taken = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(network.eval()(taken).logits, body(taken).logits)
    assert about["file"] == "best.pth" and about["mean"] == [pytest.approx(0.3)] and len(about["classes"]) == 10

    assert torch.equal(library.load("imported:theirs").state_dict()["mean"], network.mean)

    run = ("run", "--method", "kd", "--task", "digits", "--budget", "smoke", "--network", "cnn-4", "--epochs", "1")
    code, _, err = type_in(*run, "--teachers", "imported:theirs", "--threads", "1")
    assert code == 0, err
    [record] = records.records(Path("results"))
    assert record.spec["teachers"] == ["imported:theirs"]
    assert record.identity["teachers"] == [about["digest"]] == [record.provenance["teachers"][0]["digest"]]

    code, out, _ = type_in("list", "teachers")
    assert code == 0 and re.search(rf"imported:theirs .*digits .*resnet8 .*{shown:.2f} \(val\)", out)
    code, out, _ = type_in("teacher", "list", "--json")
    assert json.loads(out)["teachers"][0]["val_score"] == about["val_error"]
    code, out, _ = type_in("teacher", "show", "imported:theirs")
    assert code == 0 and f"{shown:.2f} % error" in out and "--teachers imported:theirs" in out
    assert type_in("teacher", "verify", "theirs")[:2] == (0, "imported:theirs: equal: its weights, and its score\n")
    told = json.loads(type_in("teacher", "verify", "theirs", "--json").out)
    assert told == {"name": "imported:theirs", "word": "equal", "where": ""}
    told = json.loads(type_in("verify", record.key, "--json").out)
    assert (told["key"], told["word"], told["where"]) == (record.key, "bit-equal", [])
    code, out, _ = type_in("verify", record.key)
    assert code == 0 and "bit-equal" in out


def test_an_imported_teacher_that_was_changed_is_refused(type_in: Any, body: Any) -> None:
    assert type_in(*IMPORT)[0] == 0  # by the file's name, and normalised as the task's training images are
    network, about = imported.load("best", Path("results"))
    data = images.load(load_task("digits"))  # type: ignore[arg-type]
    torch.testing.assert_close(network.mean.flatten(), data.mean)
    assert type_in(*IMPORT)[0] == 0  # once more: the same
    code, _, err = type_in(*IMPORT, "--mean", "0", "--std", "1")
    assert code == 2 and "there is a teacher 'imported:best' with other weights; give another --name, or --force" in err
    assert type_in(*IMPORT, "--mean", "0", "--std", "1", "--force")[0] == 0
    about |= {"val_error": 1.0}
    weights.save(network, imported.path_of(Path("results"), "best"), about)
    code, out, _ = type_in("teacher", "verify", "best")
    assert code == 1 and "different; val_error: 1.0 before" in out
    network.body.head.bias.data += 1  # type: ignore[operator, union-attr]
    weights.save(network, imported.path_of(Path("results"), "best"), about)
    for command in (("teacher", "show", "best"), ("teacher", "verify", "best")):
        code, _, err = type_in(*command)
        assert code == 2 and "was changed since it was imported" in err


def test_what_cannot_be_imported_is_one_line(type_in: Any, body: Any) -> None:
    Path("text.pth").write_text("no weights")
    for words, said in {
        ("--network", "resnet14"): "are not those of 'resnet14': layer 7 in the file is 'layer2.0.conv1'",
        ("--network", "resnet9"): "no network 'resnet9': its depth must be 6n+2",
        ("--task", "atari/pong"): "is a game; teachers are imported for image tasks only",
        ("--task", "digits/0-4"): "layer 19 in the file is 'fc' (weight 10x64, bias 10), where",
        ("--from", "repdistiler"): "no code base 'repdistiler' is known; did you mean 'repdistiller'?",
        ("--from", "repdistiller"): "'repdistiller' normalises images of cifar100, not of digits; give mean and std",
        ("--mean", "0.5"): "mean and std go together",
        ("--mean", "a,b", "--std", "1"): "--mean 'a,b' is not numbers",
        ("--mean", "1,2", "--std", "1,2"): "2 statistics for images of 1 channels",
        ("--mean", "0.5", "--std", "0"): "std of the images of 'best.pth' must be above 0",
        ("--name", "../x"): "'../x' cannot be a teacher's name",
        ("--part", "students"): "no part 'students' in 'best.pth'",
    }.items():
        code, out, err = type_in(*IMPORT, *words)
        lines = [line for line in err.splitlines() if not line.endswith("is given twice: the last counts")]
        assert code == 2 and len(lines) == 1 and said in lines[0] and not out, (words, err)
    code, _, err = type_in("teacher", "import", "text.pth", *IMPORT[3:])
    assert code == 2 and "'text.pth' is neither what torch.save writes nor a whole safetensors" in err
    code, _, err = type_in("teacher", "show", "bset")
    assert code == 2 and "no teacher 'imported:bset'" in err
    assert not Path("results/teachers").exists()


def test_a_file_is_a_teacher_once_it_is_described(type_in: Any, body: Any) -> None:
    run = ("run", "--method", "kd", "--task", "digits", "--budget", "smoke", "--network", "cnn-4", "--epochs", "1")
    run = (*run, "--teachers", "file:best.pth", "--threads", "1")
    about = Path("best.pth.json")
    for text, said in {
        "": "kfbench teacher import best.pth --network NAME --task TASK takes it, or write 'best.pth.json' beside it",
        "{": "'best.pth.json' is not JSON",
        "[]": "'best.pth.json' is not a JSON object",
        '{"network": "resnet8", "task": "digits", "mean": ["a"], "std": 1}': "of 'best.pth': ['a'] are not statistics",
        '{"network": "resnet8", "task": "digits", "mean": [0.1, 0.2, 0.3], "std": 1}': (
            "what is said of 'best.pth': 3 statistics for images of 1 channels"
        ),
        '{"network": "resnet8", "task": "digits"}': "does not say how its images were normalised",
    }.items():
        if text:
            about.write_text(text)
        code, _, err = type_in(*run)
        assert code == 2 and said in err and len(err.splitlines()) == 1, err
    about.write_text('{"network": "resnet8", "task": "digits", "mean": [0.3], "std": [0.4]}')
    code, _, err = type_in(*run)
    assert code == 0, err
    [record] = records.records(Path("results"))
    [teacher] = record.provenance["teachers"]
    assert teacher["digest"] == weights.digest(body.state_dict()) and teacher["task"] == "digits"
    about.write_text('{"network": "resnet8", "shape": [1, 8, 8], "outputs": 10, "mean": 0.3, "std": 0.4}')
    assert torch.equal(imported.of_file(Path("best.pth"))[0].mean, body.mean)


def test_no_image_is_read_to_look_up_a_file_of_weights(body: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large set's would be minutes, and a study looks up its teachers many times."""

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("images were read")

    Path("best.pth.json").write_text('{"network": "resnet8", "task": "digits", "mean": 0.3, "std": 0.4}')
    monkeypatch.setattr(images, "load", forbidden)
    network, about, _ = imported.of_file(Path("best.pth"))
    assert torch.equal(network.mean, body.mean) and about["classes"] == list(load_task("digits").labels(None))  # type: ignore[arg-type]


def test_what_is_said_beside_a_file_holds_for_its_import_too(type_in: Any, body: Any) -> None:
    Path("best.pth.json").write_text(
        '{"network": "resnet8", "task": "digits", "mean": 0, "std": [0.5], "part": "model"}'
    )
    for words, mean, std in ((), 0, 0.5), (("--mean", "0.3", "--std", "0.4"), 0.3, 0.4):
        code, _, err = type_in(*IMPORT, "--name", f"at-{mean}", *words)
        network, about = imported.load(f"at-{mean}", Path("results"))
        assert code == 0 and about["mean"] == pytest.approx([mean]) and float(network.std) == pytest.approx(std), err


def test_a_file_of_ours_is_another_teacher_with_other_statistics(type_in: Any, body: Any) -> None:
    ours = Path("ours.safetensors")
    digest = weights.save(body, ours, {"task": "digits", "classes": load_task("digits").labels(None)})  # type: ignore[arg-type]
    assert imported.of_file(ours)[2] == digest
    for about in {"network": "resnet8", "task": "digits"}, {}:
        for mean, std in ([0.3], [0.4]), ([0.7], [0.1]):
            Path("ours.safetensors.json").write_text(json.dumps({**about, "mean": mean, "std": std}))
            network, _, found = imported.of_file(ours)
            assert float(network.mean) == pytest.approx(mean[0]) and (found == digest) == (mean == [0.3])


def test_weights_of_other_classes_are_described_as_the_messages_say(type_in: Any, body: Any) -> None:
    torch.manual_seed(0)
    torch.save(networks.make("resnet8", shape=(1, 8, 8), outputs=5).body.state_dict(), "best.pth")
    _, _, err = type_in(*IMPORT)
    wanted = 'write "network", "shape", "outputs", "mean" and "std" into'
    assert wanted.replace("into", "into PATH.json") in err
    about: dict[str, Any] = {"network": "resnet8", "task": "digits", "outputs": 5, "mean": 0, "std": 1}
    rank = ("rank", "--task", "digits", "--train-size", "100", "--teachers", "file:best.pth")
    for change, said in {
        "": f"'best.pth.json' says 5 outputs, and 'digits' has 10; {wanted} it, without \"task\"",
        "task": 'what is said of \'best.pth\' lacks "shape"; write into \'best.pth.json\' "network", "shape",',
    }.items():
        about.pop(change, None)
        Path("best.pth.json").write_text(json.dumps(about))
        code, _, err = type_in(*rank)
        assert code == 2 and said in err and len(err.splitlines()) == 1, err
    Path("best.pth.json").write_text(json.dumps(about | {"shape": [1, 8, 8]}))
    assert type_in(*rank)[0] == 0


def test_outputs_without_names_are_taken_for_the_tasks_and_that_is_told(type_in: Any, body: Any) -> None:
    about = {"network": "resnet8", "shape": [1, 8, 8], "outputs": 10, "mean": 0.3, "std": 0.4}
    Path("best.pth.json").write_text(json.dumps(about))
    run = ("run", "--task", "digits", "--budget", "smoke", "--epochs", "0.2", "--teachers", "file:best.pth")
    code, _, err = type_in(*run, "--method", "kd")
    assert code == 0 and err.count("does not say which classes its 10 outputs are; they are taken for those of") == 1
    assert "does not say which" not in type_in(*run, "--method", "kf")[2]


def test_classes_that_a_file_states_are_not_taken_for_the_tasks(type_in: Any, body: Any) -> None:
    digits = load_task("digits").labels(None)  # type: ignore[arg-type]
    about = {"network": "resnet8", "task": "digits", "mean": [0.3], "std": [0.4]}
    run = ("run", "--method", "kd", "--task", "digits", "--budget", "smoke", "--teachers", "file:best.pth")
    other = ["cat", *digits[1:]]
    for classes, said in {
        tuple(other): "its class 1 is 'cat', and that of 'digits' is '0'; use the task whose classes it has",
        digits[:9]: "it has 9 classes, and 'digits' has 10",
    }.items():
        Path("best.pth.json").write_text(json.dumps({**about, "classes": classes}))
        for command in (IMPORT, run):
            code, _, err = type_in(*command)
            assert code == 2 and f"'best.pth' says that {said}" in err and len(err.splitlines()) == 1, err
            assert "or correct 'best.pth.json'" in err
    Path("best.pth.json").write_text(json.dumps({**about, "classes": digits}))
    assert type_in(*IMPORT)[0] == 0

    weights.save(body, Path("ours.safetensors"), {"task": "pets", "classes": other})
    ours = ("teacher", "import", "ours.safetensors", *IMPORT[3:])
    code, _, err = type_in(*ours)
    assert code == 2 and "'cat'" in err and "it has, 'pets', or --teachers file:ours.safetensors with" in err
    Path("ours.safetensors.json").write_text(json.dumps({**about, "classes": digits}))  # the file's own word holds
    assert type_in(*ours)[0] == type_in(*run[:-1], "file:ours.safetensors")[0] == 2


def test_outputs_in_another_order_are_put_into_the_tasks(type_in: Any, body: Any) -> None:
    digits = load_task("digits").labels(None)  # type: ignore[arg-type]
    turned = [*digits[3:], *digits[:3]]
    taken = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        said = body(taken).logits
    wanted = said[:, [turned.index(name) for name in digits]]
    told = "'best.pth' has the classes of 'digits' in another order; its outputs are put into the task's"
    about = {"network": "resnet8", "task": "digits", "mean": [0.3], "std": [0.4], "classes": turned}
    content = torch.load("best.pth", weights_only=True)
    stated = {
        "beside": ((), {}, about),
        "asked": (("--classes", ", ".join(turned)), {"classes": digits}, None),
        "in it": ((), {"classes": turned}, None),
        "torchvision": ((), {"class_to_idx": {name: place for place, name in enumerate(turned)}}, None),
    }
    for name, (words, more, beside) in stated.items():
        torch.save({**content, **more}, "best.pth")
        Path("best.pth.json").write_text(json.dumps(beside)) if beside else Path("best.pth.json").unlink(
            missing_ok=True
        )
        done = type_in(*IMPORT, "--name", name.replace(" ", "-"), "--mean", "0.3", "--std", "0.4", *words)
        assert done.code == 0 and done.err.splitlines()[0] == f"note: {told}", (name, done.err)
        network, kept = imported.load(name.replace(" ", "-"), Path("results"))
        with torch.no_grad():
            torch.testing.assert_close(network.eval()(taken).logits, wanted, rtol=1e-6, atol=1e-6)  # rounded otherwise
        rows = [turned.index(name) for name in digits]
        assert torch.equal(network.body.head.weight, body.body.head.weight[rows]), name  # type: ignore[union-attr]
        assert torch.equal(network.body.head.bias, body.body.head.bias[rows]), name  # type: ignore[union-attr]
        assert kept["classes"] == [*digits]
    Path("best.pth.json").write_text(json.dumps(about))
    with pytest.warns(KfbenchWarning, match=told):
        network, kept, digest = imported.of_file(Path("best.pth"))
    assert digest == weights.digest(imported.load("beside", Path("results"))[0].state_dict())
    assert kept["classes"] == [*digits] and torch.equal(network.get_buffer("mean"), body.mean)
    weights.save(body, Path("ours.safetensors"), {"task": "digits", "classes": turned})
    assert type_in("teacher", "import", "ours.safetensors", *IMPORT[3:])[0] == 0
    assert imported.load("ours", Path("results"))[1]["digest"] == digest
    done = type_in("teacher", "import", "ours.safetensors", *IMPORT[3:], "--classes", ",".join(digits))
    assert done.code == 2 and "'ours.safetensors' states other classes than --classes" in done.err
    done = type_in(*IMPORT, "--classes", "a,b")
    assert done.code == 2 and "--classes says that it has 2 classes, and 'digits' has 10" in done.err


def test_a_network_that_always_says_the_commonest_class_is_told(
    type_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFBENCH_DATA", str(tmp_path / "data"))
    pixels, labels = np.random.default_rng(0).integers(0, 256, (200, 8, 8), np.uint8), (np.arange(200) < 40) * 1
    np.savez("uneven.npz", train_images=pixels, train_labels=labels, test_images=pixels[::9], test_labels=labels[::9])
    assert type_in("data", "import", "uneven", "uneven.npz").code == 0
    network = networks.make("cnn-4", shape=(1, 8, 8), outputs=2)
    nn.init.zeros_(network.body.head.weight)  # type: ignore[arg-type, union-attr]
    torch.save(network.state_dict() | {"body.head.bias": torch.tensor([1.0, 0.0])}, "always.pth")
    done = type_in("teacher", "import", "always.pth", "--network", "cnn-4", "--task", "imagefolder/uneven", "--json")
    assert done.code == 0 and json.loads(done.out)["val_error"] == json.loads(done.out)["val_error_guessing"] == 20.0
    assert done.err.startswith("note: hardly better than always saying the commonest class (20.0 %)")


def test_outputs_that_are_not_finite_are_told_of_the_teacher(type_in: Any, body: Any) -> None:
    body.body.head.weight.data.fill_(3e38)  # finite as it is
    weights.save(body, Path("huge.safetensors"), {"task": "digits", "classes": load_task("digits").labels(None)})  # type: ignore[arg-type]
    code, _, err = type_in("teacher", "import", "huge.safetensors", *IMPORT[3:])
    assert code == 2 and "the outputs of 'resnet8' for validation images are not finite" in err, err
    run = ("run", "--method", "kd", "--task", "digits", "--budget", "smoke", "--network", "cnn-4", "--epochs", "1")
    code, _, err = type_in(*run, "--teachers", "file:huge.safetensors", "--threads", "1")
    assert code == 1 and "the outputs of teacher 'file:huge.safetensors' are not finite: choose another" in err, err
    assert "a lower rate" not in err


def test_a_stand_in_has_the_network_of_an_imported_teacher(type_in: Any, body: Any) -> None:
    assert type_in(*IMPORT)[0] == 0
    spec = resolve.resolve("kd", "digits", budget="smoke", teachers=["imported:best"], recipe={"network": "cnn-4"})
    assert stand_in.setup(spec, rows=10).teachers[0].network.name == "cnn-4"  # not known without the results
    assert stand_in.setup(spec, rows=10, results=Path("results")).teachers[0].network.name == "resnet8"
