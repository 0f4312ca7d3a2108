"""Labelled rows -> token batches, and the rows that are kept out of training.

In: ``Row`` objects and the checkpoint's tokenizer. Out: padded batches of neighbouring lengths, in
an order that depends on the seed alone; a calibration split that training never sees, not even as
a part of a longer row. Knows nothing of networks or losses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

from shard_tools.data.rows import Row
from shard_tools.train.network import Tokens
from sti.errors import InputError
from sti.text.tokenizer import Tokenizer

_COMPARED = 2000
_WINDOW = 50
"""Batches among which rows are sorted by length: little padding, and still well mixed."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Tokenized rows. ``targets``: float32 ``[n]``, the number of a label or a value."""

    ids: tuple[NDArray[np.int64], ...]
    types: tuple[NDArray[np.int64], ...]
    targets: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Batch:
    """Some examples, padded. ``rows``: their places among all; ``targets``: float32 ``[B]``."""

    rows: Sequence[int]
    tokens: Tokens
    targets: torch.Tensor


def encode_rows(rows: Sequence[Row], targets: Sequence[float], tokenizer: Tokenizer) -> Examples:
    """Tokenize rows, cut as the tokenizer does."""
    ids, types = [], []
    for row in rows:
        encoding = tokenizer.encode_text(row.text)
        ids.append(np.asarray(encoding.ids, dtype=np.int64))
        types.append(np.asarray(encoding.type_ids, dtype=np.int64))
    return Examples(tuple(ids), tuple(types), np.asarray(targets, dtype=np.float32))


def batches(examples: Examples, size: int, *, shuffle: Random | None = None) -> Iterator[Batch]:
    """All examples once, ``size`` at a time; by length alone where ``shuffle`` is None."""
    order = list(range(len(examples)))
    if shuffle is not None:
        shuffle.shuffle(order)
    window = len(order) if shuffle is None else size * _WINDOW
    chosen: list[list[int]] = []
    for start in range(0, len(order), window):
        part = sorted(order[start : start + window], key=lambda row: len(examples.ids[row]))
        chosen += [part[at : at + size] for at in range(0, len(part), size)]
    if shuffle is not None:
        shuffle.shuffle(chosen)
    for rows in chosen:
        yield _batch(examples, rows)


def _batch(examples: Examples, rows: Sequence[int]) -> Batch:
    longest = max(len(examples.ids[row]) for row in rows)
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    types = np.zeros_like(ids)
    present = np.zeros(ids.shape, dtype=np.bool_)
    for place, row in enumerate(rows):
        length = len(examples.ids[row])
        ids[place, :length] = examples.ids[row]
        types[place, :length] = examples.types[row]
        present[place, :length] = True
    tokens = Tokens(torch.from_numpy(ids), torch.from_numpy(types), torch.from_numpy(present))
    return Batch(rows, tokens, torch.from_numpy(examples.targets[list(rows)]))


def hold_out(
    rows: Sequence[Row],
    count: int,
    *,
    seed: int,
    by_label: bool,
    whole: bool = False,
    share: float = 1.0,
    where: str = "data",
) -> tuple[list[Row], list[Row]]:
    """Split rows into those to train on and those to calibrate with.

    Rows whose words stand, one after the other, inside a held-out row, or the other way round, are
    left out of both: data sets of phrases would leak otherwise.

    Args:
        count: rows to hold out.
        by_label: take the same share of every label.
        whole: hold out only rows that are no part of another: in data of phrases, sentences.
        share: hold out among this share of the rows of each label, those that have least in common
            with any other row of the label. Data whose rows were written as variations of one
            another promises too much of new texts otherwise.
        where: what errors call the rows.

    Returns:
        Rows to train on, and held-out rows, each in the order of the file.

    Raises:
        InputError: fewer rows than ``count`` can be held out, or nothing is left to train on.
    """
    if not count:
        return list(rows), []
    groups: dict[str, list[int]] = defaultdict(list)
    parts = _parts_of_others(rows) if whole else frozenset()
    for place, row in enumerate(rows):
        if place not in parts:
            groups[row.label if by_label else ""].append(place)
    if share < 1.0:
        groups = {label: _unlike(rows, places, share) for label, places in groups.items()}
    able = sum(map(len, groups.values()))
    if able < count:
        wholes = " that are no part of another row" if whole else ""
        unlike = f" in the share of {share:g} least like any other" if share < 1.0 else ""
        raise InputError(
            f"{where}: {count} rows for calibration cannot be kept out of training: there are "
            f"{able}{wholes}{unlike}; ask for fewer with --calibration-rows"
        )
    random = Random(f"hold out {seed}")
    held: list[int] = []
    rest: list[int] = []
    for label in sorted(groups):
        places = groups[label]
        random.shuffle(places)
        due = count * len(places) // able
        held += places[:due]
        rest += places[due:]
    random.shuffle(rest)
    held += rest[: count - len(held)]
    kept = set(held)
    phrases = _Phrases([rows[place] for place in held])
    training = [
        row for place, row in enumerate(rows) if place not in kept and not phrases.share(row)
    ]
    if not training:
        raise InputError(f"{where}: with {count} rows for calibration none are left to train on")
    return training, [rows[place] for place in sorted(kept)]


def _unlike(rows: Sequence[Row], places: Sequence[int], share: float) -> list[int]:
    """The share of ``places`` whose rows have least in common with any other (Jaccard index).

    In a large group each row is compared with ``_COMPARED`` others, evenly chosen.
    """
    words = [frozenset(_words(rows[place])) for place in places]
    others = range(0, len(words), max(1, len(words) // _COMPARED))

    def likeness(at: int) -> float:
        mine = words[at]
        shared = (len(mine & words[i]) / len(mine | words[i]) for i in others if i != at)
        return max(shared, default=0.0)

    alike = [likeness(at) for at in range(len(places))]
    order = sorted(range(len(places)), key=alike.__getitem__)
    return sorted(places[at] for at in order[: max(1, round(share * len(places)))])


def _parts_of_others(rows: Sequence[Row]) -> frozenset[int]:
    """Places of the rows whose words stand, one after the other, inside a longer row."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[" ".join(_words(row))].append(place)
    lengths = sorted({len(_words(row)) for row in rows})
    found: set[int] = set()
    for row in rows:
        for part in _runs(_words(row), lengths):
            found.update(places.get(part, ()))
    return frozenset(found)


def _runs(words: Sequence[str], lengths: Sequence[int]) -> Iterator[str]:
    """Runs of neighbouring words, shorter than all of them, of the given lengths."""
    for length in lengths:
        if length >= len(words):
            break
        for start in range(len(words) - length + 1):
            yield " ".join(words[start : start + length])


class _Phrases:
    """Whether a row stands inside a held-out row, or a held-out row inside it."""

    def __init__(self, held: Sequence[Row]) -> None:
        whole = [_words(row) for row in held]
        self._whole = {" ".join(words) for words in whole}
        self._lengths = sorted({len(words) for words in whole})
        # Fences keep a phrase from reaching over the end of a row or of a word.
        self._joined = "\n".join(f" {' '.join(words)} " for words in whole)

    def share(self, row: Row) -> bool:
        words = _words(row)
        if f" {' '.join(words)} " in self._joined:
            return True
        return any(run in self._whole for run in _runs(words, self._lengths))


def _words(row: Row) -> list[str]:
    text = row.text if isinstance(row.text, str) else " [SEP] ".join(row.text)
    return text.casefold().split()
