"""The families of checkpoints that packs can be made from, by ``model_type`` in ``config.json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from shard_tools.architectures.base import Model
from shard_tools.architectures.bert.model import BertModel
from shard_tools.checkpoint.reader import Checkpoint
from sti.errors import CheckpointError

ARCHITECTURES: Mapping[str, Callable[[Checkpoint, int | None], Model]] = {"bert": BertModel}


def open_model(checkpoint: Checkpoint, *, slices: int | None = None) -> Model:
    """The checkpoint as its architecture reads it.

    Args:
        checkpoint: stays open as long as the model is used.
        slices: slices of every block; None for one per head.

    Raises:
        CheckpointError: the architecture or a detail of it is not supported, or a tensor is
            missing or of the wrong shape; names it.
    """
    kind = str(checkpoint.config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise CheckpointError(
            f"{checkpoint.directory / 'config.json'}: model_type {kind!r} is not supported; "
            f"supported: {', '.join(sorted(ARCHITECTURES))}"
        )
    return ARCHITECTURES[kind](checkpoint, slices)
