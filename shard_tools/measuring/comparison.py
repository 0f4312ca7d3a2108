"""A pack beside its own float checkpoint: how far their answers are apart, and on which texts.

In: a pack, its checkpoint, numbered texts, what the pack is run at. Out: a ``Comparison``. Both
get the same tokens, and the pack's head reads what either has computed, so all that differs is
quantization and what was left out. Knows nothing of command lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.measuring.float_answers import float_states
from shard_tools.measuring.forward import Batches, Forward, Precision
from shard_tools.measuring.own_checkpoint import check_own
from shard_tools.packing.options import BuildOptions
from shard_tools.packing.source import read_source
from shard_tools.progress import Progress
from sti.arrays import Float32Array
from sti.errors import RunError
from sti.model.manifest import MULTI_LABEL, Manifest
from sti.pack.pack_reader import PackReader
from sti.pack.tokenizer import pack_tokenizer
from sti.text.encoding import Text

_CHUNK = 128
"""Texts at once: the checkpoint's weights are read once for each."""
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Compared:
    """One text. ``agrees`` is None for embeddings and regressions."""

    line: int
    text: Text
    cosine: float
    """Between the two answers, logits or vectors."""
    difference: float
    """The largest of a logit, value or number of the vector."""
    agrees: bool | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All texts, in their order."""

    task: str
    texts: tuple[Compared, ...]
    truncated: int
    """Texts that were cut to the model's longest, for both."""

    @property
    def cosine(self) -> float:
        """The mean."""
        return float(np.mean([item.cosine for item in self.texts]))

    @property
    def least_cosine(self) -> float:
        """Of the worst text."""
        return min(item.cosine for item in self.texts)

    @property
    def difference(self) -> float:
        """The largest."""
        return max(item.difference for item in self.texts)

    @property
    def agreement(self) -> float | None:
        """Share of the texts with the same answer: label, or labels of all tokens."""
        known = [item.agrees for item in self.texts if item.agrees is not None]
        return sum(known) / len(known) if known else None

    def worst(self, count: int) -> tuple[Compared, ...]:
        """The texts whose answers differ most: another label first, then by cosine."""
        order = sorted(self.texts, key=lambda item: (item.agrees is not False, item.cosine))
        return tuple(order[:count])


def compare(
    pack: Path,
    directory: Path,
    texts: Sequence[tuple[int, Text]],
    choose: Callable[[Manifest, str], Precision],
    *,
    threads: int,
    progress: bool | None = None,
) -> Comparison:
    """Answer texts with both.

    Args:
        texts: at least one, with their lines.
        choose: what of the pack to run, by its manifest and identity.
        progress: as ``build`` takes it.

    Raises:
        InputError: the pack is not of that checkpoint, or an argument cannot be used.
        CheckpointError, PackError, StorageError: as reading them raises.
        RunError: an answer is not finite.
    """
    with PackReader.open_whole(pack) as reader, Checkpoint(directory) as checkpoint:
        manifest = reader.manifest
        source = read_source(checkpoint, BuildOptions(slices=manifest.dimensions.slices))
        residents = source.model.residents(source.tokenizer.max_tokens)
        check_own(reader, source, residents, directory)
        precision = choose(manifest, reader.pack_id)
        model, tokenizer = source.model, pack_tokenizer(reader)
        chunks = [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
        size = 1 if manifest.task == "tagging" else _AT_ONCE  # answers of one length
        work = len(chunks) * model.layers * len(model.kinds) + len(texts)
        found: list[Compared] = []
        truncated = 0
        with (
            Progress(work, shown=progress) as line,
            Forward(reader, threads=threads) as forward,
        ):
            for chunk in chunks:
                encodings = [tokenizer.encode_text(text) for _, text in chunk]
                states = float_states(model, residents, encodings, line)
                for start in range(0, len(chunk), size):
                    some = chunk[start : start + size]
                    batches = forward.batches([text for _, text in some])
                    truncated += batches.truncated
                    given = _grouped(batches, states[start : start + size])
                    right = forward.logits(batches, (), start=given)
                    ours = forward.logits(batches, precision)
                    found += _compared(some, ours, right, manifest.task)
                    line.step(len(some), "comparing")
        return Comparison(manifest.task, tuple(found), truncated)


def _grouped(batches: Batches, states: Sequence[Float32Array]) -> tuple[Float32Array, ...]:
    """Hidden states of texts as a ``Forward`` has them, padded with zeros."""
    found = []
    for group in batches.groups:
        rows = np.zeros((len(group.members), group.tokens, states[0].shape[1]), np.float32)
        for row, member in zip(rows, group.members, strict=True):
            row[: len(states[member])] = states[member]
        found.append(rows)
    return tuple(found)


def _compared(
    texts: Sequence[tuple[int, Text]], ours: Float32Array, right: Float32Array, task: str
) -> list[Compared]:
    found = []
    for (line, text), own, other in zip(texts, ours, right, strict=True):
        if not (np.isfinite(own).all() and np.isfinite(other).all()):
            raise RunError(f"line {line}: an answer is not finite; see `sti-shard verify`")
        agrees = None
        if task in ("classification", "tagging"):
            agrees = bool((own.argmax(axis=-1) == other.argmax(axis=-1)).all())
        elif task == MULTI_LABEL:  # labels hold whose sigmoid is a half and more
            agrees = bool(((own >= 0) == (other >= 0)).all())
        left, middle = own.ravel().astype(np.float64), other.ravel().astype(np.float64)
        scale = float(np.linalg.norm(left) * np.linalg.norm(middle))
        cosine = float(left @ middle) / scale if scale else float(not (left.any() or middle.any()))
        found.append(Compared(line, text, cosine, float(np.abs(left - middle).max()), agrees))
    return found


def comparison_members(found: Comparison, worst: int) -> dict[str, Any]:
    """For JSON."""
    return {
        "task": found.task,
        "texts": len(found.texts),
        "truncated": found.truncated,
        "cosine": found.cosine,
        "least_cosine": found.least_cosine,
        "largest_difference": found.difference,
        "agreement": found.agreement,
        "worst": [
            {
                "line": item.line,
                "text": item.text if isinstance(item.text, str) else list(item.text),
                "cosine": item.cosine,
                "difference": item.difference,
                "agrees": item.agrees,
            }
            for item in found.worst(worst)
        ],
    }
