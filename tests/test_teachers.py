"""The door to teachers: what goes through it, how often, and in which shape."""

from pathlib import Path

import pytest
import torch

from kfbench import networks
from kfbench.errors import KfbenchError
from kfbench.methods import Batch
from kfbench.running import resolve, stand_in, teacher_names, teacher_store
from kfbench.teachers import Teacher, fit


def made(shape: tuple[int, int, int] = (3, 16, 16)) -> Teacher:
    return Teacher(networks.make("cnn-4", shape=shape, outputs=5), "t", None, (), "0")


def batch_of(*shape: int) -> Batch:
    return Batch(images=torch.rand(*shape), rng=torch.Generator())


def test_images_that_fit_are_not_copied() -> None:
    images = torch.rand(2, 3, 16, 16)
    assert fit(images, (3, 16, 16)) is images


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("wanted", [(1, 8, 8), (3, 20, 20), (4, 16, 16)])
def test_any_images_reach_any_shape(channels: int, wanted: tuple[int, int, int]) -> None:
    got = fit(torch.rand(2, channels, 16, 16), wanted)
    assert got.shape == (2, *wanted)
    assert got.min() >= 0 and got.max() <= 1


def test_grey_is_repeated_and_colour_averaged() -> None:
    grey = torch.rand(2, 1, 4, 4)
    assert torch.equal(fit(grey, (3, 4, 4)), grey.repeat(1, 3, 1, 1))
    colour = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(fit(colour, (1, 4, 4)), colour.mean(1, keepdim=True))


def test_uint8_and_float_say_the_same() -> None:
    frames = torch.randint(0, 256, (2, 4, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(fit(frames, (1, 8, 8)), fit(frames.float() / 255, (1, 8, 8)))


def test_a_batch_is_asked_for_once() -> None:
    teacher, batch = made(), batch_of(2, 3, 16, 16)
    calls = []
    teacher.network.register_forward_pre_hook(lambda *_: calls.append(1))
    layers = teacher.network.layers
    first = teacher.features(batch, layers[:1])
    assert teacher.features(batch, layers[:1])[layers[0]] is first[layers[0]]
    assert len(calls) == 1
    teacher.features(batch, layers, logits=True)
    teacher(batch)
    assert len(calls) == 2


def test_features_are_those_of_a_whole_pass_in_evaluation_mode() -> None:
    teacher, batch = made(), batch_of(2, 3, 16, 16)
    assert not any(module.training for module in teacher.network.modules())
    early = teacher.features(batch, teacher.network.layers[:2])
    whole = teacher.features(Batch(images=batch.images, rng=batch.rng), teacher.network.layers, logits=True)
    for layer, features in early.items():
        assert torch.equal(features, whole[layer])
        assert not features.requires_grad


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("digits", "digits/cnn-32@smoke"),
        ("digits/low", "digits/low/cnn-32@smoke"),
        ("cifar100/0-49/resnet20", "cifar100/0-49/resnet20@smoke"),
        ("digits/mlp-30@small:epochs=3+train_size=100", "digits/mlp-30@small:train_size=100+epochs=3"),
        ("random:digits/cnn-8", "random:digits/cnn-8@smoke"),
        ("run:abc", "run:abc"),
        ("file:a/b.safetensors", "file:a/b.safetensors"),
        ("torchvision:resnet18:pretrained", "torchvision:resnet18:pretrained"),
    ],
)
def test_names_of_teachers(text: str, canonical: str) -> None:
    named = teacher_names.read(text, budget="smoke")
    assert str(named) == canonical
    assert teacher_names.read(canonical, budget="paper") == named


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("digitz", "no task 'digitz'; did you mean 'digits'"),
        ("digits/lowe", "no variant 'lowe'"),
        ("digits@smal", "no budget 'smal'; did you mean 'small'"),
        ("digits@small:epochs", "field=value"),
        ("digits@small:epoch=3", "no field 'epoch'; did you mean 'epochs'"),
        ("digits/resnet9", "resnet9.*6n"),
        ("plain.pth", "'plain.pth' names no task; as a file of weights it is 'file:plain.pth'"),
        ("mine/Plain.SafeTensors", "it is 'file:mine/Plain.SafeTensors'"),
    ],
)
def test_wrong_names_of_teachers_are_told_in_a_line(text: str, said: str) -> None:
    with pytest.raises(KfbenchError, match=said):
        teacher_names.read(text, budget="smoke")


def test_no_teacher_was_trained_on_the_students_test_images() -> None:
    """`mnist/5k` is a part of MNIST's training images, with a test split of its own."""
    with pytest.raises(KfbenchError, match="'mnist/cnn-16@smoke' was trained on images that 'mnist/5k' is tested on"):
        resolve.resolve("kf", "mnist/5k", budget="smoke", teachers=["digits", "mnist"])
    for task, teacher in (("mnist", "mnist/5k"), ("mnist/5k", "random:mnist"), ("mnist/5k/0-4", "mnist/5k/5-9")):
        assert resolve.resolve("kf", task, budget="smoke", teachers=[teacher]).teachers[0].startswith(teacher)


def test_a_random_teacher_of_a_game_has_the_actions_that_are_asked_for(tmp_path: Path) -> None:
    spec = resolve.resolve("kf", "atari/pong", budget="smoke", teachers=["random:atari/pong"])

    def outputs(name: str) -> int:
        return teacher_store.find(name, spec=spec, index=0, results=tmp_path).load().network.outputs

    assert outputs("random:atari/pong") == 6 and outputs("random:atari/pong@small:full_actions=true") == 18


def test_a_stand_in_for_a_games_teacher_serves_a_student_of_images() -> None:
    spec = resolve.resolve("kf", "digits", budget="smoke", teachers=["random:atari/pong"])
    made = stand_in.teacher(spec.teachers[0], spec, 0)
    assert made.network.shape == (4, 84, 84) and made.network.outputs == 6
