"""Where the tensors of an encoder are in a checkpoint. Knows nothing of what they hold."""

from __future__ import annotations

from shard_tools.checkpoint.reader import Checkpoint
from sti.errors import CheckpointError

WORDS = "embeddings.word_embeddings.weight"
"""The embedding table, behind the encoder's prefix."""
POSITIONS = "embeddings.position_embeddings.weight"
EMBEDDING_NORM = "embeddings.LayerNorm"


def encoder_prefix(checkpoint: Checkpoint, prefix: str = "bert.") -> str:
    """What stands before the names of the encoder's tensors: its family's prefix, or nothing.

    Raises:
        CheckpointError: there is no embedding table under either name.
    """
    names = checkpoint.names()
    for found in (prefix, ""):
        if found + WORDS in names:
            return found
    raise CheckpointError(
        f"{checkpoint.directory}: tensor {WORDS!r} is missing (with or without {prefix!r} before "
        "it)"
    )
