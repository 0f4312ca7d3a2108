"""The task of a checkpoint, with its head and its labels, in all families.

In: ``config.json``, the names of the tensors, and sentence-transformers' module files. Out: a
``TaskHead``. A checkpoint with a classifier tensor is a classifier, one without is a sentence
embedding. Pooling comes from the module files where there are any, else from the kind of head.
Knows nothing of layers or of how tensors are stored.
"""

from __future__ import annotations

from dataclasses import dataclass

from shard_tools.architectures.heads.labels import label_names
from shard_tools.architectures.heads.modules import Modules, ModuleStep, read_modules
from shard_tools.architectures.heads.names import HeadNames, Named
from shard_tools.checkpoint.prompts import SENTENCE_FILE
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.graphs.embed_head import Pooling
from sti.errors import CheckpointError
from sti.json_fields import JsonFields

_DEFAULT: tuple[Pooling, ...] = ("mean",)

_MULTI_LABEL = "multi_label_classification"
_CROSS_ENCODER = "CrossEncoder"
_PROBLEMS = ("regression", "single_label_classification", _MULTI_LABEL)
_SIGMOID, _IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"


@dataclass(frozen=True, slots=True)
class TaskHead:
    """What follows the last layer."""

    task: str
    poolings: tuple[Pooling, ...] = ()
    """None for a head at every token."""
    steps: tuple[ModuleStep, ...] = ()
    labels: tuple[str, ...] = ()
    """Empty for embeddings."""
    classifier: str = ""
    """The linear module that gives the logits."""
    activation: str = ""
    """Of a regression's values: ``sigmoid``, or nothing."""
    told: tuple[str, ...] = ()
    """What was taken for granted, a sentence each."""


def find_task(checkpoint: Checkpoint, names: HeadNames, *, prefix: str, hidden: int) -> TaskHead:
    """Work out the task.

    Args:
        checkpoint: the checkpoint.
        names: what its family calls its heads.
        prefix: of the encoder's tensor names, such as ``"bert."``, or nothing.
        hidden: numbers of a token's hidden state.

    Raises:
        CheckpointError: an architecture, a head or a module that is not supported; names it.
    """
    where = str(checkpoint.directory / "config.json")
    fields = JsonFields(checkpoint.config, where=where, error=CheckpointError)
    modules = read_modules(checkpoint, hidden=hidden)
    named = _named(fields, names, modules is not None)
    classifier = _classifier(checkpoint, names, named)
    if classifier is None:
        _refuse_cross_encoder(checkpoint)
        told = _left_out(fields, names, modules)
        modules = modules or Modules(_DEFAULT)
        return TaskHead("embedding", modules.poolings, modules.steps, told=told)
    weight = f"{classifier}.weight"
    shape = checkpoint.shape(weight)
    labels = label_names(fields, shape[0] if shape else 0, rows_of=weight)
    if named == "tagging":
        _refuse_cross_encoder(checkpoint)
        return TaskHead("tagging", labels=labels, classifier=classifier)
    task, activation = _task_of_texts(checkpoint, fields, len(labels))
    poolings, steps = _DEFAULT, tuple[ModuleStep, ...]()
    dense = f"{prefix if names.inside else ''}{names.dense}.weight"
    if modules is not None:
        poolings, steps = modules.poolings, modules.steps
    elif named is not None or dense in checkpoint.names():
        poolings = ("pooler",)
    return TaskHead(task, poolings, steps, labels, classifier, activation)


def _refuse_cross_encoder(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that says it classifies texts, and does not."""
    own = checkpoint.json(SENTENCE_FILE)
    if isinstance(own, dict) and own.get("model_type") == _CROSS_ENCODER:
        raise CheckpointError(
            f"{checkpoint.directory / SENTENCE_FILE}: model_type {_CROSS_ENCODER!r} is for "
            "classifiers of texts, and the checkpoint has no such head"
        )


def _left_out(fields: JsonFields, names: HeadNames, modules: Modules | None) -> tuple[str, ...]:
    """What is told of a checkpoint that was pretrained and is taken as an encoder."""
    architectures = fields.texts("architectures") if fields.has("architectures") else ()
    for name in architectures:
        if names.named(name) == "encoder" and not name.endswith("Model"):
            pooled = "" if modules is not None else "; mean pooling was taken, none is stated"
            return (f"{name} is taken as an encoder: its pretraining head was left out{pooled}",)
    return ()


def _task_of_texts(checkpoint: Checkpoint, fields: JsonFields, outputs: int) -> tuple[str, str]:
    """The task of a classifier of texts, and the activation of a regression's values.

    One output is a value. sentence-transformers puts a sigmoid on it where its configuration names
    nothing else, and so does transformers, but for the ``problem_type`` regression.
    """
    problem = fields.raw("problem_type")
    if problem is not None and problem not in _PROBLEMS:
        raise fields.fail("problem_type", f"one of {', '.join(_PROBLEMS)}")
    stated, where = _stated_activation(checkpoint, fields)
    if stated not in (None, _SIGMOID, _IDENTITY):
        raise CheckpointError(
            f"{where}: activation {stated!r:.80} is not supported; supported: {_SIGMOID}, "
            f"{_IDENTITY}"
        )
    if problem == _MULTI_LABEL:
        if stated == _IDENTITY:
            raise CheckpointError(f"{where}: activation {stated!r} contradicts {_MULTI_LABEL}")
        return "multi_label", ""
    if problem == "regression" or outputs == 1:
        sigmoid = stated == _SIGMOID or (stated is None and problem != "regression")
        return "regression", "sigmoid" if sigmoid else ""
    if stated == _SIGMOID:
        raise CheckpointError(
            f"{where}: activation {stated!r} with {outputs} labels is not supported without "
            f"problem_type {_MULTI_LABEL} in config.json"
        )
    return "classification", ""


def _stated_activation(checkpoint: Checkpoint, fields: JsonFields) -> tuple[str | None, str]:
    """The class of a cross-encoder's activation, and where it is stated; None where nowhere.

    The first counts: sentence-transformers' own file, then its members of ``config.json``.
    """
    own = checkpoint.json(SENTENCE_FILE)
    if own is not None:
        path = str(checkpoint.directory / SENTENCE_FILE)
        members = JsonFields(own, where=path, error=CheckpointError)
        if members.has("activation_fn"):
            return members.text("activation_fn"), path
    if fields.has("sentence_transformers"):
        members = fields.object("sentence_transformers")
        if members.has("activation_fn"):
            return members.text("activation_fn"), members.where
    old = "sbert_ce_default_activation_function"
    return (fields.text(old) if fields.has(old) else None), fields.where


def _named(fields: JsonFields, names: HeadNames, is_sentence_model: bool) -> Named | None:
    """What ``architectures`` names; None where it names nothing that is known."""
    architectures = fields.texts("architectures") if fields.has("architectures") else ()
    for name in architectures:
        found = names.named(name)
        if found is not None:
            return found
    if architectures and not is_sentence_model:
        raise CheckpointError(
            f"{fields.where}: architecture {', '.join(architectures):.200} is not supported; "
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
