"""What frozen teachers said to views of training images, in files that the runs, seeds and methods of a study share.

It serves runs whose recipe fixes `views`: an image then has K of them, chosen by its row alone (`augment.fixed_views`),
and a teacher's answer to one never changes. Validation and test images never come here.

To the bit: answers are computed in canonical batches, never in the shuffled one that asks. Block b holds the rows 64 b
to 64 b + 63 of the task's training split, each at its own place in the batch, in evaluation mode and fp32. What the
other rows show does not touch a row's answer, so it has the same bits whichever run, seed or train size (a prefix of
the rows) asked first. When an epoch needs a block, rows whose view is known already take their next unknown one: among
runs of one train size that ask for the same layers no image goes through a teacher more than K times, nor more than
once an epoch.

Format: a flat file for each teacher, data set and layer (or "output"), pad, flip and K, and for whatever else decides
bits: torch, processor, threads, harness. Their digest ends its name. Record row · K + slot is the answer in fp16 with
channels last, then 64 bits of check: the sum of its 16-bit words + SALT · (record + 1). A record counts only if its
check fits, so a hole, half a write of a killed process and a damaged file are the same thing: not there, computed
again. Writers need no lock among each other, for they write the same bits; the lock is for the file's size.

Rounding: fp16 keeps 11 bits, an answer differs by at most 2^-11 of itself from the teacher's own (below 6e-5 by 3e-8),
and by what fp32 gives when a batch is composed otherwise. Where the recipe is bf16, a teacher that is asked in the step
answers in bf16, the memory in fp32: that difference is larger.
"""

import errno
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kfbench import machine
from kfbench.batch import Answering, Entry
from kfbench.data import images
from kfbench.data.augment import augment, fixed_views
from kfbench.errors import KfbenchError, unwritable
from kfbench.networks import taps
from kfbench.spec import Recipe, digest
from kfbench.teachers import fit

OUTPUT: Entry = ("output",)
BLOCK = 64  # rows of a canonical batch
LIMIT = 4 * 2**30  # bytes of a file; a layer that would need more is computed in every step
CHECK = 4  # words at a record's end
SALT = 0x9E3779B97F4A7C  # so that a record of zeros has a check unlike that of a hole


@dataclass(frozen=True)
class Door:
    """A batch's `Past`: good for its own images only, not for what a method makes of them."""

    memory: "Memory"
    taken: Tensor  # the batch's own images [B, C, H, W]
    rows: images.Rows

    def recall(self, teacher: Answering, entries: Sequence[Entry]) -> dict[Entry, Tensor]:
        """Return {entry: the teacher's answers [B, …], fp32}; nothing if an entry is too large to be kept."""
        return self.memory.recall(teacher, entries, self.rows)


class Memory:
    """A run's view of the files: `asked` rows of teachers so far, of which `computed` took a forward pass of this run.

    `source` names what decides the answers beside teacher and recipe: the data's checksum, the classes kept.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        split: images.Split,
        *,
        shape: tuple[int, int, int],
        device: torch.device,
        source: dict[str, Any],
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Remember in a folder what is said to a training split's views; `shape` [C, H, W] is that of the batches."""
        assert recipe.views is not None, "without fixed views there is nothing to remember"
        self.folder, self.say, self.device = folder, say, device
        self.split, self.shape, self.pad, self.flip = split, shape, recipe.pad, recipe.flip
        self.crop = recipe.crop
        self.table = fixed_views(
            len(self.split), recipe.views, pad=recipe.pad, flip=recipe.flip, crop=recipe.crop
        )  # [N, K]
        self.asked = self.computed = 0
        self._identity = {
            **source,
            "augmentation": [recipe.pad, recipe.flip, self.table.shape[1], *([recipe.crop] if recipe.crop else [])],
            "made by": [torch.__version__, machine.processor(str(device)), device.type],
            "threads": torch.get_num_threads(),
        }
        self._files: dict[tuple[int, Entry], File | None] = {}
        self._drawn: Tensor | None = None
        self._slots = torch.zeros(0)

    def past(self, taken: Tensor, rows: images.Rows) -> Door:
        """Return the door for a batch: its images as teachers get them, and the rows they were made from."""
        return Door(self, taken, rows)

    def recall(self, teacher: Answering, entries: Sequence[Entry], rows: images.Rows) -> dict[Entry, Tensor]:
        """Return {entry: answers [B, …]}, having computed what nobody has yet; nothing if an entry is too large."""
        files = {entry: self._file(teacher, entry) for entry in entries}
        index = rows.index.cpu()
        self.asked += len(index)
        stored = {entry: file for entry, file in files.items() if file is not None}
        if len(stored) < len(files):
            self.computed += len(index)
            return {}
        slots = self._slots_in(rows.drawn)
        places = index * self.table.shape[1] + slots[index]
        known = torch.stack([file.known[places] for file in stored.values()]).all(0)
        if not known.all():
            for block in sorted(set((index[~known] // BLOCK).tolist())):
                self._fill(teacher, stored, block * BLOCK, slots)
        return {entry: file.read(places, self.device) for entry, file in stored.items()}

    def cost(self) -> dict[str, float]:
        """Return for the record: rows asked of teachers by training steps, and those that took no pass of this run."""
        return {"teacher_rows_asked": self.asked, "teacher_rows_remembered": max(0, self.asked - self.computed)}

    def _slots_in(self, drawn: Tensor) -> Tensor:
        """Return the slot [N] of the view that an epoch shows of every row."""
        if drawn is not self._drawn:
            self._drawn, self._slots = drawn, (self.table == drawn.cpu()[:, None]).int().argmax(1)
        return self._slots

    def _fill(self, teacher: Answering, files: dict[Entry, "File"], first: int, slots: Tensor) -> None:
        """Compute what a block lacks of this epoch's views, unless another process has."""
        rows = torch.arange(first, min(first + BLOCK, len(self.split)))
        views = self.table.shape[1]
        known = torch.stack([file.look(first * views, len(rows) * views) for file in files.values()]).all(0)
        known = known.view(len(rows), views)
        if known.gather(1, slots[rows, None]).all():
            return
        ahead = (~known).int().argmax(1)  # a row's first unknown view
        chosen = torch.where(known.gather(1, slots[rows, None]).squeeze(1), ahead, slots[rows])
        new = ~known.gather(1, chosen[:, None]).squeeze(1)
        answers = self._compute(teacher, list(files), rows, chosen)
        self.computed += len(rows)
        for entry, file in files.items():
            file.write((rows * views + chosen)[new], answers[entry][: len(rows)].cpu()[new])

    def _compute(self, teacher: Answering, entries: list[Entry], rows: Tensor, chosen: Tensor) -> dict[Entry, Tensor]:
        """Return {entry: answers [BLOCK, …]} to views of a block's rows; a block cut short is filled up with blanks."""
        view = self.table[rows, chosen].to(self.device)
        taken = self.split.take(rows.to(self.device))
        whole = taken.new_zeros(BLOCK, *taken.shape[1:])
        whole[: len(rows)] = augment(taken, view, pad=self.pad, flip=self.flip, crop=self.crop)
        wanted = fit(fit(images.as_float(whole), self.shape), teacher.network.shape)
        layers = {layer: position for position, layer in (entry for entry in entries if entry != OUTPUT)}
        position: Any = next(iter(layers.values()), "post")
        stop = OUTPUT not in entries
        found: dict[Entry, Tensor] = {}
        reading = taps.read(teacher.network, list(layers), position, stop=stop)
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False), reading as features:
            found[OUTPUT] = teacher.network(wanted).logits
        return found | {(position, layer): answer for layer, answer in features.items()}

    def _file(self, teacher: Answering, entry: Entry) -> "File | None":
        """Return a layer's file, made on first use; None if it would be too large."""
        key = (teacher.index, entry)
        if key not in self._files:
            shape: tuple[int, ...] = (teacher.network.outputs,)
            if entry != OUTPUT:
                position: Any = entry[0]
                shape = taps.shapes(teacher.network, [entry[1]], position)[entry[1]]
            size = File.size(self.table.numel(), shape)
            what = {"teacher": teacher.digest, "network": teacher.network.name, "entry": entry, **self._identity}
            stem = re.sub(r"[^\w.-]+", "_", f"{teacher.network.name}-{'-'.join(entry)}-{digest(what)}")
            if size > LIMIT:
                self.say(
                    f"'{' '.join(entry)}' of teacher '{teacher.name}' is not remembered but computed: it would take "
                    f"{size / 1e9:.1f} GB, and a file of the memory holds {LIMIT / 1e9:.1f}"
                )
            self._files[key] = None if size > LIMIT else File(self.folder / f"{stem}.f16", self.table.numel(), shape)
        return self._files[key]


class File:
    """Answers of one teacher at one layer: `records` of them, [*shape] each; `known` are those whose check fits."""

    def __init__(self, path: Path, records: int, shape: tuple[int, ...]) -> None:
        self.path, self.shape = path, shape
        self.known = torch.zeros(records, dtype=torch.bool)
        size = self.size(records, shape)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # the lock: else a run of fewer rows could shorten what another has just made
            with machine.alone(path.parent / ".lock"), open(path, "ab") as file:
                there, free = os.fstat(file.fileno()), machine.free(path.parent)
                taken = getattr(there, "st_blocks", there.st_size // 512) * 512  # Windows does not tell of holes
                if size - taken > free:
                    raise OSError(errno.ENOSPC, f"{size / 1e9:.1f} GB are needed, {free / 1e9:.1f} are free")
                if there.st_size < size:
                    file.truncate(size)  # holes: nothing is taken up before it is written
            # never written through the mapping: on a full disk that would kill the process
            self._words = torch.from_numpy(np.memmap(path, np.int16, "r+", shape=(records, size // 2 // records)))
        except OSError as error:
            raise _unwritable(path, error) from error

    @staticmethod
    def size(records: int, shape: tuple[int, ...]) -> int:
        """Return the bytes of a file."""
        return records * (math.prod(shape) + CHECK) * 2

    def read(self, places: Tensor, device: torch.device) -> Tensor:
        """Return the answers [B, *shape] in fp32 at places [B], which must be known; maps with channels last."""
        words = self._words.index_select(0, places)[:, :-CHECK]
        flat = words.view(torch.float16).to(device).float()
        if len(self.shape) != 3:
            return flat.view(-1, *self.shape)
        channels, height, width = self.shape
        return flat.view(-1, height, width, channels).permute(0, 3, 1, 2)

    def look(self, first: int, count: int) -> Tensor:
        """Return which of `count` records from `first` on are there, [count], and note them as known."""
        words = self._words[first : first + count]
        told = words[:, -CHECK:].contiguous().view(torch.int64).squeeze(1)
        fits = told == _check(words[:, :-CHECK], torch.arange(first, first + count))
        self.known[first : first + count] = fits
        return fits

    def write(self, places: Tensor, answers: Tensor) -> None:
        """Write answers [n, *shape] at places [n]. Raises KfbenchError on a full disk, or beyond the range of fp16."""
        rounded = (answers.permute(0, 2, 3, 1) if answers.dim() == 4 else answers).flatten(1).half().contiguous()
        if not rounded.isfinite().all():
            raise KfbenchError(
                f"answers for '{self.path.name}' are beyond what the memory holds (fp16, 65,504); use --no-memory"
            )
        words = rounded.view(torch.int16)
        records = torch.cat([words, _check(words, places)[:, None].view(torch.int16)], 1).numpy()
        try:
            with open(self.path, "r+b", buffering=0) as file:
                for place, record in zip(places.tolist(), records, strict=True):
                    if machine.write_at(file, record, place * record.nbytes) < record.nbytes:
                        raise OSError(errno.ENOSPC, "the disk is full")
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self.known[places] = True


def _check(words: Tensor, places: Tensor) -> Tensor:
    """Return the checks [n] of records with words [n, …] at places [n]."""
    return words.sum(1, dtype=torch.int64) + SALT * (places + 1)


def _unwritable(path: Path, error: OSError) -> KfbenchError:
    return unwritable(
        error,
        f"the memory of teachers cannot be kept in '{path.parent}' ({error.strerror}); make room, give --results "
        "elsewhere, or use --no-memory",
    )
