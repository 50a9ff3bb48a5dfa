"""Small vision transformers for small images.

Source: Dosovitskiy et al., ICLR 2021, arXiv 2010.11929, section 3.1, in the plain form of Beyer, Zhai, Kolesnikov 2022,
    arXiv 2205.01580: fixed sine-cosine positions, the mean of all patches in the place of a class token.
Differs: patches of 4x4 pixels by default, since images are small, and heads of 32 numbers; linear layers are drawn from
    a normal of deviation 0.02 cut at two deviations, biases 0 (Touvron et al. 2021, arXiv 2012.12877), those of the
    patches by 1/sqrt(numbers in a patch); no dropout.
    What a layer puts out is laid out as maps [B, width, H/patch, W/patch], so that methods read and mix it as such.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kfbench.errors import KfbenchError
from kfbench.networks.family import Family
from kfbench.networks.network import Network
from kfbench.networks.parts import Parts

FAMILY = Family(
    about="vision transformer, patches of 4x4 pixels or as named (Dosovitskiy 2021, Beyer 2022)",
    pattern=r"vit-(?P<depth>[1-9]\d*)-(?P<width>[1-9]\d*)(-p(?P<patch>[1-9]\d*))?",
    form="vit-DEPTH-WIDTH[-pPATCH]",
    examples=("vit-6-128", "vit-6-256", "vit-12-192", "vit-6-256-p8"),
)
HEAD, DEEPER, LONGEST = 32, 4, 10_000.0  # numbers a head; hidden units over width; longest wave of positions


class Block(nn.Module):
    """LayerNorm and attention, LayerNorm and two linear layers, each added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.put = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.gelu, self.down = nn.Linear(width, DEEPER * width), nn.GELU(), nn.Linear(DEEPER * width, width)

    def attend(self, x: Tensor) -> Tensor:
        """Map tokens [B, N, width] to what each takes from all, of the same shape."""
        query, key, value = self.mixed(x).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)  # each [B, heads, N, HEAD]
        taken = F.scaled_dot_product_attention(query, key, value)
        put: Tensor = self.put(taken.transpose(1, 2).flatten(2))
        return put

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [B, N, width] to the same shape."""
        x = x + self.attend(self.norm1(x))
        summed: Tensor = x + self.down(self.gelu(self.up(self.norm2(x))))
        return summed


class Vit(nn.Module):
    """Patches, fixed positions, three stages of blocks, LayerNorm, the mean of all patches, a linear head."""

    positions: Tensor

    def __init__(self, shape: tuple[int, int, int], depth: int, width: int, patch: int, outputs: int) -> None:
        super().__init__()
        self.rows, self.columns = shape[1] // patch, shape[2] // patch
        self.patches = nn.Conv2d(shape[0], width, patch, stride=patch)
        self.register_buffer("positions", positions(self.rows, self.columns, width), persistent=False)
        ends = [round(depth * (stage + 1) / 3) for stage in range(3)]
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width) for _ in range(end - start)))
            for start, end in zip((0, *ends), ends, strict=False)
        )
        self.norm = nn.LayerNorm(width)
        self.outs = nn.ModuleList(nn.Identity() for _ in ends)
        self.apply(cut_normal)
        self.head = nn.Linear(width, outputs)
        cut_normal(self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to logits [B, K]."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions  # [B, N, width]
        for number, (stage, out) in enumerate(zip(self.stages, self.outs, strict=True), 1):
            x = stage(x)
            x = self.norm(x) if number == len(self.stages) else x
            maps = out(x.transpose(1, 2).unflatten(2, (self.rows, self.columns)))  # [B, width, H/patch, W/patch]
            x = maps.flatten(2).transpose(1, 2)
        logits: Tensor = self.head(x.mean(1))
        return logits


def positions(rows: int, columns: int, width: int) -> Tensor:
    """Return sines and cosines of each patch's column and row, [1, rows * columns, width]."""
    waves = LONGEST ** -torch.linspace(0, 1, width // 4)  # [width/4]
    down, along = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [place.flatten()[:, None] * waves for place in (along, down)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], 1)[None]


def cut_normal(module: nn.Module) -> None:
    """Draw a linear layer's weights, or those of the patches, from a normal cut at two deviations; biases 0."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        # a patch has few numbers: Glorot's deviation of LeCun's kind keeps their scale
        deviation = 0.02 if isinstance(module, nn.Linear) else 1 / math.sqrt(module.weight[0].numel())
        nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        assert module.bias is not None
        nn.init.zeros_(module.bias)


def make(name: str, parts: Parts, *, shape: tuple[int, int, int], outputs: int) -> Network:
    """Make `vit-DEPTH-WIDTH` or `vit-DEPTH-WIDTH-pPATCH`, three blocks or more, the width a multiple of 32."""
    depth, width, patch = int(parts["depth"] or 0), int(parts["width"] or 0), int(parts["patch"] or 4)
    if width % HEAD or depth < 3:
        nearest = f"vit-{max(3, depth)}-{max(1, round(width / HEAD)) * HEAD}"
        raise KfbenchError(f"no network '{name}': its depth must be at least 3, its width 32n; nearest: {nearest}")
    if shape[1] % patch or shape[2] % patch:
        raise KfbenchError(
            f"network '{name}' needs images whose sides are multiples of {patch}, not {shape[1]}x{shape[2]}; name "
            f"another patch, as vit-{depth}-{width}-p{math.gcd(*shape[1:])}"
        )
    body = Vit(shape, depth, width, patch, outputs)
    layers = tuple(f"body.outs.{stage}" for stage in range(3))
    return Network(body, name=name, shape=shape, outputs=outputs, layers=layers, heads=("body.head",))
