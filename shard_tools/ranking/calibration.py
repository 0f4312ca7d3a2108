"""Calibration data: labelled texts of the kind a pack will meet, that training has not seen.

In: a file of rows and a pack's manifest. Out: texts and labels as numbers, or an error that says
what the file or the pack lacks. Knows nothing of what is measured with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shard_tools.data.rows import Row, read_rows, targets_of
from sti.errors import InputError
from sti.model.manifest import Manifest
from sti.text.encoding import Text

LEAST_EXAMPLES = 100
"""With fewer, the ranking is noise and a point of accuracy is one text."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Texts and what they should be answered with."""

    path: Path
    texts: tuple[Text, ...]
    labels: tuple[float, ...]
    """Class numbers or values; empty where labels do not matter."""
    checksum: str
    """Of texts and labels."""


def load_calibration(
    path: Path, manifest: Manifest, pack: Path, *, examples: int, seed: int
) -> Calibration:
    """Read calibration rows, at most ``examples`` of them, drawn at random for ``seed``.

    Raises:
        InputError: the file or a row cannot be used, a label is unknown, there are too few rows, or
            the pack's task has no metric.
    """
    if manifest.task not in ("classification", "regression"):
        raise InputError(
            f"{pack}: a pack for {manifest.task} cannot be ranked: it gives no classes or values "
            "whose quality could be measured; build a pack of a classifier or a regression"
        )
    if examples < LEAST_EXAMPLES:
        raise InputError(f"{examples} examples are too few to rank; take {LEAST_EXAMPLES} or more")
    regression = manifest.task == "regression"
    rows = read_rows(path, "regression" if regression else None)
    if len(rows) < LEAST_EXAMPLES:
        raise InputError(
            f"{path}: {len(rows)} rows are too few to rank; {LEAST_EXAMPLES} are needed, "
            f"{10 * LEAST_EXAMPLES} recommended"
        )
    if len(rows) > examples:
        chosen = np.random.default_rng(seed).choice(len(rows), examples, replace=False)
        rows = [rows[index] for index in sorted(chosen.tolist())]
    return _made(path, rows, targets_of(rows, () if regression else manifest.labels, path))


def load_out_of_scope(path: Path | None, manifest: Manifest) -> Calibration | None:
    """Texts that are out of scope for the classifier; their labels are ignored.

    Raises:
        InputError: the file or a row cannot be used, or the pack is no classifier.
    """
    if path is None:
        return None
    if manifest.task != "classification":
        raise InputError(f"{path}: only a classifier can tell texts that are out of scope")
    return _made(path, read_rows(path, labelled=False), ())


def _made(path: Path, rows: Sequence[Row], numbers: Sequence[float]) -> Calibration:
    texts = tuple(row.text for row in rows)
    checksum = hashlib.sha256(repr((texts, tuple(numbers))).encode()).hexdigest()[:16]
    return Calibration(path, texts, tuple(map(float, numbers)), checksum)
