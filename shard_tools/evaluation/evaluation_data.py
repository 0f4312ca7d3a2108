"""The texts an evaluation runs: labelled ones, ones out of scope, and those that are timed.

In: files, the pack's manifest and tokenizer. Out: texts and labels, or an error that says what the
file or the pack lacks. Knows nothing of plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_high

from shard_tools.data.rows import read_rows, targets_of
from shard_tools.evaluation.timing import token_counts
from sti.errors import InputError
from sti.model.manifest import Manifest
from sti.model.workload import bucket
from sti.pack.pack_reader import PackReader
from sti.text.encoding import Text


@dataclass(frozen=True, slots=True)
class EvaluationData:
    """What answers are scored on."""

    name: str
    texts: Sequence[Text]
    labels: Sequence[float]
    """Class numbers, or a regression's values."""
    out_of_scope: Sequence[Text]
    """Texts that the pack should reject; empty where none were given."""


def load_data(path: Path, out_of_scope: Path | None, reader: PackReader) -> EvaluationData:
    """Read the data files.

    Args:
        path: labelled texts.
        out_of_scope: texts whose labels, if any, do not matter; None for none.

    Raises:
        InputError: a file cannot be used with this pack; names the file and the line.
    """
    manifest = reader.manifest
    regression = manifest.task == "regression"
    rows = read_rows(path, "regression" if regression else None)
    labels = targets_of(rows, () if regression else manifest.labels, path)
    others = () if out_of_scope is None else _out_of_scope(out_of_scope, reader.path, manifest)
    return EvaluationData(path.name, [row.text for row in rows], labels, others)


def _out_of_scope(path: Path, pack: Path, manifest: Manifest) -> Sequence[Text]:
    if manifest.rejection is None:
        raise InputError(
            f"{pack}: has no thresholds for texts out of scope; rank it with --out-of-scope first"
        )
    return [row.text for row in read_rows(path, labelled=False)]


def texts_by_length(
    reader: PackReader, texts: Sequence[Text], tokens: int | None
) -> tuple[int, list[Text]]:
    """The bucket of tokens that a workload falls into, and the texts that fall into it, too.

    Args:
        tokens: of the workload; None for the median of the texts.
    """
    counts, most = token_counts(reader, texts), reader.manifest.dimensions.max_tokens
    size = bucket(1, tokens or median_high(counts), most=most).tokens
    fitting = [
        text
        for text, count in zip(texts, counts, strict=True)
        if bucket(1, count, most=most).tokens == size
    ]
    return size, fitting
