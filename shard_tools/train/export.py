"""The directory that ``finetune`` makes: a checkpoint that other tools can read, with extra files.

In: a trained network, the checkpoint it came from, held-out rows, a report. Out: ``config.json``,
``model.safetensors``, the tokenizer's files, module files for mean pooling, ``elastic.json`` and
``calibration.tsv``. Knows nothing of training.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from shard_tools.checkpoint.elastic import ELASTIC
from shard_tools.checkpoint.modelcard import licence_of
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.checkpoint.sentence_file import NAMES
from shard_tools.data.rows import Row
from shard_tools.train.network import ElasticNetwork
from shard_tools.train.tensors import named_tensors
from sti.errors import StorageError

CALIBRATION = "calibration.tsv"
_COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    *NAMES,
)
_OF_A_HEAD = ("sbert_ce_default_activation_function", "sentence_transformers")
"""Members of ``config.json`` that tell what the head does which the trained one replaces."""
_POOLING = {
    "word_embedding_dimension": 0,
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": True,
    "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
}
_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


def write_checkpoint(
    directory: Path,
    checkpoint: Checkpoint,
    network: ElasticNetwork,
    labels: Sequence[str],
    held: Sequence[Row],
    report: dict[str, Any],
) -> None:
    """Make the directory, in place of an earlier one.

    Args:
        labels: by number; empty for a regression.
        held: calibration rows; without any there is no such file.
        report: what ``elastic.json`` is to hold.

    Raises:
        StorageError: a file cannot be read or written.
    """
    try:
        if directory.exists():
            shutil.rmtree(directory)
        (directory / "1_Pooling").mkdir(parents=True)
        for name in _COPIED:
            source = checkpoint.directory / name
            if source.exists():
                shutil.copyfile(source, directory / name)
        kept = {key: value for key, value in checkpoint.config.items() if key not in _OF_A_HEAD}
        config = kept | {
            "architectures": ["BertForSequenceClassification"],
            "id2label": {str(number): label for number, label in enumerate(labels or ("score",))},
            "label2id": {label: number for number, label in enumerate(labels or ("score",))},
            "problem_type": "single_label_classification" if labels else "regression",
        }
        pooling = _POOLING | {"word_embedding_dimension": network.sizes.hidden}
        documents = {
            "config.json": config,
            "modules.json": _MODULES,
            "1_Pooling/config.json": pooling,
            ELASTIC: report,
        }
        for name, document in documents.items():
            text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
            (directory / name).write_text(text, encoding="utf-8")
        if licence := licence_of(
            checkpoint.directory
        ):  # for `build`; the rest of the card is not true of this
            card = f"---\nlicense: {licence}\n---\n"
            (directory / "README.md").write_text(card, encoding="utf-8")
        if held:
            (directory / CALIBRATION).write_text(_table(held), encoding="utf-8")
        weights = save(named_tensors(network), {"format": "pt"})
        (directory / "model.safetensors").write_bytes(weights)
    except OSError as error:
        raise StorageError(f"{directory}: cannot be written: {error}") from error


def _table(rows: Sequence[Row]) -> str:
    """Rows as TAB separated text with a header line."""
    pairs = isinstance(rows[0].text, tuple)
    lines = ["sentence1\tsentence2\tlabel" if pairs else "sentence\tlabel"]
    for row in rows:
        parts = row.text if isinstance(row.text, tuple) else (row.text,)
        lines.append("\t".join((*(" ".join(part.split()) for part in parts), row.label)))
    return "\n".join(lines) + "\n"
