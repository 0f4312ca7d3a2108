"""The families of checkpoints that can be made into packs, by ``model_type`` of ``config.json``."""

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
        checkpoint: open for as long as the model is used.
        slices: vertical parts of every block; None for one a head.

    Raises:
        CheckpointError: the architecture or a detail of it is not supported, or tensors are
            missing or of the wrong shape; names what is.
    """
    kind = str(checkpoint.config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise CheckpointError(
            f"{checkpoint.directory / 'config.json'}: model_type {kind!r} is not supported; "
            f"supported: {', '.join(sorted(ARCHITECTURES))}"
        )
    return ARCHITECTURES[kind](checkpoint, slices)
