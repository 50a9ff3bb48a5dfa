"""The families of networks by name, as plain literals: listing them needs no torch."""

from typing import NamedTuple


class Family(NamedTuple):
    """A family: its file in this folder, its names as people read them and as a regular expression, and examples."""

    file: str
    form: str
    pattern: str
    examples: tuple[str, ...]
    about: str


FAMILIES = (
    Family(
        "mlp",
        "mlp-WIDTH[-dropout]",
        r"mlp-(?P<width>[1-9]\d*)(?P<dropout>-dropout)?",
        ("mlp-30", "mlp-800", "mlp-1200", "mlp-1200-dropout"),
        "two hidden layers (Hinton 2015)",
    ),
    Family(
        "cnn",
        "cnn-WIDTH",
        r"cnn-(?P<width>[1-9]\d*)",
        ("cnn-16", "cnn-32"),
        "four convolutions, the suite's small network",
    ),
    Family(
        "resnet",
        "resnetDEPTH[xWIDTH]",
        r"resnet(?P<depth>[1-9]\d*)(x(?P<width>[1-9]\d*))?",
        (
            "resnet8",
            "resnet14",
            "resnet20",
            "resnet32",
            "resnet44",
            "resnet56",
            "resnet110",
            "resnet8x4",
            "resnet32x4",
        ),
        "CIFAR ResNet, depth 6n+2 (He 2016)",
    ),
    Family(
        "wide_resnet",
        "wrn-DEPTH-WIDTH[-dropout]",
        r"wrn-(?P<depth>[1-9]\d*)-(?P<width>[1-9]\d*)(?P<dropout>-dropout)?",
        ("wrn-16-2", "wrn-40-1", "wrn-40-2", "wrn-28-10", "wrn-28-10-dropout"),
        "wide ResNet, depth 6n+4 (Zagoruyko 2016)",
    ),
    Family(
        "vgg",
        "vggDEPTH",
        r"vgg(?P<depth>[1-9]\d*)",
        ("vgg8", "vgg11", "vgg13", "vgg16", "vgg19"),
        "CIFAR VGG with batch normalisation (Simonyan 2015, Tian 2020)",
    ),
    Family(
        "densenet",
        "densenet-[bc-]DEPTH-GROWTH[-dropout]",
        r"densenet-(?P<bc>bc-)?(?P<depth>[1-9]\d*)-(?P<growth>[1-9]\d*)(?P<dropout>-dropout)?",
        (
            "densenet-40-12",
            "densenet-100-12",
            "densenet-100-24",
            "densenet-bc-100-12",
            "densenet-bc-250-24",
            "densenet-bc-190-40",
        ),
        "DenseNet, depth 3n+4, or 6n+4 with bc (Huang 2017)",
    ),
    Family(
        "actor_critic",
        "a3c | nature | impala | pnn",
        r"(?P<trunk>a3c|nature|impala|pnn)",
        ("a3c", "nature", "impala", "pnn"),
        "Atari actor-critics (Mnih 2016, Mnih 2015, Espeholt 2018, Rusu 2016)",
    ),
    Family(
        "zoo",
        "torchvision:NAME[:pretrained] | timm:NAME[:pretrained]",
        r"(?P<library>torchvision|timm):(?P<model>[^:]+)(?P<pretrained>:pretrained)?",
        ("torchvision:resnet18", "timm:resnet18"),
        "networks of other libraries",
    ),
)

EXAMPLES = tuple(example for family in FAMILIES for example in family.examples)
