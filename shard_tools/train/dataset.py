"""The rows of a run: read, checked, split, and tokenized.

In: data files, options, the checkpoint's tokenizer. Out: rows to train on, rows kept out of it for
calibration, rows to score with, and their labels; then the same as ``Examples``. Knows nothing of
networks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shard_tools.checkpoint.tokenizer_files import load_tokenizer
from shard_tools.data.rows import Row, read_rows, targets_of
from shard_tools.train.data import Examples, encode_rows, hold_out
from shard_tools.train.options import FinetuneOptions
from sti.errors import InputError
from sti.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Dataset:
    """The rows of a run."""

    rows: Sequence[Row]
    """To train on."""
    held: Sequence[Row]
    """Kept out of training, to calibrate with."""
    left_out: int
    """Rows in neither set: they are parts of a row that is kept out, or one is a part of them."""
    dev: Sequence[Row]
    """To score with."""
    labels: tuple[str, ...]
    """By number; empty for a regression."""
    paths: tuple[Path, Path]
    """Where the rows come from: those to train on and to keep out, and those to score with."""


@dataclass(frozen=True, slots=True)
class EncodedDataset:
    """The rows of a ``Dataset``, tokenized."""

    training: Examples
    held: Examples
    dev: Examples


def read_dataset(training: Path, dev: Path, options: FinetuneOptions) -> Dataset:
    """Read, check and split the data.

    Raises:
        InputError: a file or a row cannot be used, or too few rows are left to train on.
    """
    rows, scored = read_rows(training, options.task), read_rows(dev, options.task)
    if isinstance(rows[0].text, str) != isinstance(scored[0].text, str):
        raise InputError(f"{training} and {dev}: one has single texts, the other pairs")
    labels = () if options.task == "regression" else _labels(rows, training)
    left, held = hold_out(
        rows,
        options.calibration_rows,
        seed=options.training.seed,
        by_label=bool(labels),
        whole=options.calibration_whole,
        share=options.calibration_share,
        where=str(training),
    )
    trained = Counter(row.label for row in left)
    for label in labels:
        if not trained[label]:
            raise InputError(
                f"{training}: no row of label {label!r} is left to train on; it needs more, or "
                "fewer rows for calibration"
            )
    left_out = len(rows) - len(left) - len(held)
    return Dataset(left, held, left_out, scored, labels, (training, dev))


def _labels(rows: Sequence[Row], path: Path) -> tuple[str, ...]:
    labels = tuple(sorted({row.label for row in rows}))
    if len(labels) < 2:
        raise InputError(f"{path}: all rows have the label {labels[0]!r}; nothing can be learned")
    for row in rows:
        if set(row.label) & set("\t\r\n"):  # JSON Lines may, the calibration rows must not
            raise InputError(f"{path}: line {row.line}: label {row.label!r} has TABs or line ends")
    return labels


def encode_dataset(data: Dataset, checkpoint: Path, *, max_tokens: int) -> EncodedDataset:
    """Tokenize all rows, cut to ``max_tokens`` or to what the checkpoint takes, if that is less.

    Raises:
        CheckpointError: the checkpoint's tokenizer is not supported.
        InputError: a row to score with has a label that no row to train on has.
    """
    spec, vocabulary, tables = load_tokenizer(checkpoint)
    limit = min(max_tokens, spec.max_tokens)
    tokenizer = Tokenizer(spec._replace(max_tokens=limit), vocabulary, tables)
    training, dev = data.paths

    def encoded(rows: Sequence[Row], path: Path) -> Examples:
        return encode_rows(rows, targets_of(rows, data.labels, path), tokenizer)

    return EncodedDataset(
        encoded(data.rows, training), encoded(data.held, training), encoded(data.dev, dev)
    )
