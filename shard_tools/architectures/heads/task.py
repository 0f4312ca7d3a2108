"""The task of a checkpoint, with its head and its labels, in all families.

In: ``config.json``, the names of the tensors, and sentence-transformers' module files. Out: a
``TaskHead``. A checkpoint with a classifier tensor is a classifier, one without is a sentence
embedding. Pooling comes from the module files where there are any, else from the kind of head.
Knows nothing of layers or of how tensors are stored.
"""

from __future__ import annotations

from dataclasses import dataclass

from shard_tools.architectures.heads.labels import label_names
from shard_tools.architectures.heads.modules import Modules, read_modules
from shard_tools.architectures.heads.names import HeadNames, Named
from shard_tools.checkpoint.reader import Checkpoint
from sti.errors import CheckpointError
from sti.json_fields import JsonFields

_DEFAULT_POOLING = "mean"


@dataclass(frozen=True, slots=True)
class TaskHead:
    """What follows the last layer.

    ``pooling``: ``mean``, ``cls``, ``pooler`` (CLS through a dense layer and its activation), or
    ``none`` for a head at every token. ``labels`` is empty for embeddings, and so is
    ``classifier``, the linear module that gives the logits.
    """

    task: str
    pooling: str
    normalize: bool
    labels: tuple[str, ...]
    classifier: str


def find_task(checkpoint: Checkpoint, names: HeadNames, *, prefix: str) -> TaskHead:
    """Work out the task.

    Args:
        checkpoint: the checkpoint.
        names: what its family calls its heads.
        prefix: of the encoder's tensor names, such as ``"bert."``, or nothing.

    Raises:
        CheckpointError: an architecture, a head or a module that is not supported; names it.
    """
    where = str(checkpoint.directory / "config.json")
    fields = JsonFields(checkpoint.config, where=where, error=CheckpointError)
    modules = read_modules(checkpoint)
    named = _named(fields, names, modules is not None)
    classifier = _classifier(checkpoint, names, named)
    if classifier is None:
        modules = modules or Modules(_DEFAULT_POOLING, normalize=False)
        return TaskHead("embedding", modules.pooling, modules.normalize, (), "")
    weight = f"{classifier}.weight"
    shape = checkpoint.shape(weight)
    labels = label_names(fields, shape[0] if shape else 0, rows_of=weight)
    if named == "tagging":
        return TaskHead("tagging", "none", False, labels, classifier)
    problem = fields.raw("problem_type")
    if problem == "multi_label_classification":
        raise CheckpointError(
            f"{where}: problem_type {problem!r} is not supported; supported are "
            "single_label_classification and regression"
        )
    task = "regression" if problem == "regression" or len(labels) == 1 else "classification"
    if modules is not None:
        if modules.normalize:
            raise CheckpointError(
                f"{checkpoint.directory / 'modules.json'}: Normalize before a classifier is not "
                "supported"
            )
        return TaskHead(task, modules.pooling, False, labels, classifier)
    dense = f"{prefix if names.inside else ''}{names.dense}.weight"
    if named is not None or dense in checkpoint.names():
        return TaskHead(task, "pooler", False, labels, classifier)
    return TaskHead(task, _DEFAULT_POOLING, False, labels, classifier)


def _named(fields: JsonFields, names: HeadNames, is_sentence_model: bool) -> Named | None:
    """What ``architectures`` names; None where it names nothing that is known."""
    architectures = fields.texts("architectures") if fields.has("architectures") else ()
    for name in architectures:
        found = names.named(name)
        if found is not None:
            return found
    if architectures and not is_sentence_model:
        raise CheckpointError(
            f"{fields.where}: architecture {', '.join(architectures)} is not supported; "
            f"supported: {names.supported()}"
        )
    return None


def _classifier(checkpoint: Checkpoint, names: HeadNames, named: Named | None) -> str | None:
    """The linear module that gives the logits; None for a checkpoint that has no such head."""
    if named == "encoder":
        return None
    wanted = (names.tokens,) if named == "tagging" else (names.texts, names.tokens)
    there = checkpoint.names()
    for module in wanted:
        if f"{module}.weight" in there:
            return module
    if named is not None:
        raise CheckpointError(
            f"{checkpoint.directory}: tensor {wanted[0] + '.weight'!r} is missing, and the "
            "architecture needs it; was the model fine-tuned?"
        )
    return None
