"""The families of checkpoints that packs can be made from, by ``model_type`` in ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping

from shard_tools.architectures.base import Model
from shard_tools.architectures.bert.family import BERT
from shard_tools.architectures.distilbert.family import DISTILBERT
from shard_tools.architectures.electra.family import ELECTRA
from shard_tools.architectures.encoder.family import Family
from shard_tools.architectures.encoder.model import EncoderModel
from shard_tools.architectures.mpnet.family import MPNET
from shard_tools.architectures.roberta.family import CAMEMBERT, ROBERTA, XLM_ROBERTA
from shard_tools.checkpoint.reader import Checkpoint
from sti.errors import CheckpointError

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (BERT, CAMEMBERT, DISTILBERT, ELECTRA, MPNET, ROBERTA, XLM_ROBERTA)
}


def open_model(checkpoint: Checkpoint, *, slices: int | None = None) -> Model:
    """The checkpoint as its architecture reads it.

    Args:
        checkpoint: stays open as long as the model is used.
        slices: slices of every block; None for one per head.

    Raises:
        CheckpointError: the architecture or a detail of it is not supported, or a tensor is
            missing or of the wrong shape; names it.
    """
    family = family_of(checkpoint)
    told: tuple[str, ...] = ()
    if checkpoint.config.get("model_type") is None:
        told = (f"config.json has no model_type; {family.name} was taken",)
    return EncoderModel(checkpoint, family, slices, told=told)


def family_of(checkpoint: Checkpoint) -> Family:
    """The family of a checkpoint, by ``model_type``, or by ``architectures`` where it has none.

    Raises:
        CheckpointError: the family is not supported; names it.
    """
    kind = checkpoint.config.get("model_type")
    if kind is None:
        kind = _kind_by_class(checkpoint)
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise CheckpointError(
            f"{checkpoint.directory / 'config.json'}: model_type {kind!r:.80} is not supported; "
            f"supported: {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[kind]


def _kind_by_class(checkpoint: Checkpoint) -> str:
    """The family that ``architectures`` names; BERT, as the oldest ones are, where none does."""
    named = checkpoint.config.get("architectures")
    for name in named if isinstance(named, list) else ():
        for kind, family in FAMILIES.items():
            if isinstance(name, str) and family.heads.named(name) is not None:
                return kind
    return BERT.name
