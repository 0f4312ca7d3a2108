"""The task of a BERT-family checkpoint, with its head and its labels.

In: ``config.json``, the names of the tensors, and sentence-transformers' module files. Out: a
``TaskHead``. A checkpoint with a classifier tensor is a classifier, one without is a sentence
embedding. Pooling comes from the module files where there are any, else from the kind of head.
Knows nothing of layers or of how tensors are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from shard_tools.checkpoint.reader import Checkpoint
from sti.errors import CheckpointError
from sti.json_fields import JsonFields

SUPPORTED = (
    "BertModel (sentence embedding), BertForSequenceClassification (classification and "
    "regression), BertForTokenClassification"
)
CLASSIFIER = "classifier.weight"

_TASKS: Mapping[str, str | None] = {
    "BertModel": None,
    "BertForSequenceClassification": "classification",
    "BertForTokenClassification": "tagging",
}
_POOLING = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_DEFAULT_POOLING = "mean"


@dataclass(frozen=True, slots=True)
class TaskHead:
    """What follows the last layer.

    ``pooling``: ``mean``, ``cls``, ``pooler`` (CLS through the pooler's dense layer and tanh), or
    ``none`` for a head at every token. ``labels`` is empty for embeddings.
    """

    task: str
    pooling: str
    normalize: bool
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Modules:
    """sentence-transformers' chain of modules, if there is one."""

    pooling: str
    normalize: bool


def find_task(checkpoint: Checkpoint, prefix: str) -> TaskHead:
    """Work out the task.

    Args:
        checkpoint: the checkpoint.
        prefix: prefix of the encoder's tensor names, ``"bert."`` or nothing.

    Raises:
        CheckpointError: an architecture, a head or a module that is not supported; names it.
    """
    where = str(checkpoint.directory / "config.json")
    fields = JsonFields(checkpoint.config, where=where, error=CheckpointError)
    modules = _modules(checkpoint)
    named = _named_task(fields, modules is not None)
    names = checkpoint.names()
    if CLASSIFIER not in names:
        if named is not None:
            raise CheckpointError(
                f"{checkpoint.directory}: tensor {CLASSIFIER!r} is missing, and the architecture "
                "needs it; was the model fine-tuned?"
            )
        modules = modules or _Modules(_DEFAULT_POOLING, normalize=False)
        return TaskHead("embedding", modules.pooling, modules.normalize, ())
    task = named or "classification"
    shape = checkpoint.shape(CLASSIFIER)
    labels = _labels(fields, shape[0] if shape else 0)
    if task == "tagging":
        return TaskHead(task, "none", False, labels)
    problem = fields.raw("problem_type")
    if problem == "multi_label_classification":
        raise CheckpointError(
            f"{where}: problem_type {problem!r} is not supported; supported are "
            "single_label_classification and regression"
        )
    if problem == "regression" or len(labels) == 1:
        task = "regression"
    if modules is not None:
        if modules.normalize:
            raise CheckpointError(
                f"{checkpoint.directory / 'modules.json'}: Normalize before a classifier is not "
                "supported"
            )
        return TaskHead(task, modules.pooling, False, labels)
    if named is not None or f"{prefix}pooler.dense.weight" in names:
        return TaskHead(task, "pooler", False, labels)
    return TaskHead(task, _DEFAULT_POOLING, False, labels)


def _named_task(fields: JsonFields, is_sentence_model: bool) -> str | None:
    """The task that ``architectures`` names; None for the bare encoder, or if it names nothing."""
    architectures = fields.texts("architectures") if fields.has("architectures") else ()
    for name in architectures:
        if name in _TASKS:
            return _TASKS[name]
    if architectures and not is_sentence_model:
        raise CheckpointError(
            f"{fields.where}: architecture {', '.join(architectures)} is not supported; "
            f"supported: {SUPPORTED}"
        )
    return None


def _labels(fields: JsonFields, count: int) -> tuple[str, ...]:
    """Label names by number; ``LABEL_0`` and so on where the configuration names none."""
    if fields.has("id2label"):
        table = fields.object("id2label")
        named = {key: table.text(key) for key in table.keys()}
        if set(named) != {str(number) for number in range(len(named))}:
            raise fields.fail("id2label", "labels numbered from 0")
        if len(named) == count:
            return tuple(named[str(number)] for number in range(count))
        # transformers writes two labels by default, whatever the number of outputs.
        if set(named.values()) != {f"LABEL_{number}" for number in range(len(named))}:
            raise CheckpointError(
                f"{fields.where}: id2label has {len(named)} labels, tensor {CLASSIFIER!r} "
                f"has {count} rows"
            )
    return tuple(f"LABEL_{number}" for number in range(count))


def _modules(checkpoint: Checkpoint) -> _Modules | None:
    """Pooling and normalization by ``modules.json``, or by a lone pooling configuration."""
    listed = checkpoint.json("modules.json")
    where = str(checkpoint.directory / "modules.json")
    if listed is None:
        pooling = _pooling(checkpoint, "1_Pooling")
        return None if pooling is None else _Modules(pooling, normalize=False)
    fields = JsonFields({"modules": listed}, where=where, error=CheckpointError)
    kinds: list[tuple[str, str]] = [
        (item.text("type").rsplit(".", 1)[-1], item.text("path"))
        for item in fields.objects("modules")
    ]
    names = [kind for kind, _ in kinds]
    if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise CheckpointError(
            f"{where}: modules {', '.join(names)} are not supported; supported: Transformer, "
            "Pooling, and optionally Normalize"
        )
    if kinds[0][1] not in ("", "."):
        raise CheckpointError(
            f"{where}: the Transformer module is in {kinds[0][1]!r}; put that directory's "
            "files beside the module files"
        )
    folder = PurePosixPath(kinds[1][1])
    if folder.is_absolute() or ".." in folder.parts:
        raise CheckpointError(f"{where}: the Pooling module is outside the checkpoint")
    pooling = _pooling(checkpoint, str(folder))
    if pooling is None:
        raise CheckpointError(f"{checkpoint.directory / folder / 'config.json'} is missing")
    return _Modules(pooling, names[-1] == "Normalize")


def _pooling(checkpoint: Checkpoint, folder: str) -> str | None:
    """The pooling mode that is switched on in a Pooling module's configuration."""
    config: Any = checkpoint.json(f"{folder}/config.json")
    if config is None:
        return None
    where = str(checkpoint.directory / folder / "config.json")
    fields = JsonFields(config, where=where, error=CheckpointError)
    modes = [
        key for key in fields.keys() if key.startswith("pooling_mode_") and fields.raw(key) is True
    ]
    if len(modes) != 1 or modes[0] not in _POOLING:
        raise CheckpointError(
            f"{where}: pooling {', '.join(modes) or 'of no kind'} is not supported; supported: "
            f"one of {', '.join(_POOLING)}"
        )
    return _POOLING[modes[0]]
