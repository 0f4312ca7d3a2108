"""Tensor names in BERT-family checkpoints. Knows nothing of what the tensors hold."""

from __future__ import annotations

from shard_tools.checkpoint.reader import Checkpoint
from sti.errors import CheckpointError

WORDS = "embeddings.word_embeddings.weight"
"""The embedding table, behind the encoder's prefix."""


def encoder_prefix(checkpoint: Checkpoint) -> str:
    """What stands before the names of the encoder's tensors: ``bert.`` or nothing.

    Raises:
        CheckpointError: there is no embedding table under either name.
    """
    names = checkpoint.names()
    for prefix in ("bert.", ""):
        if prefix + WORDS in names:
            return prefix
    raise CheckpointError(
        f"{checkpoint.directory}: tensor {WORDS!r} is missing (with or without 'bert.' before it)"
    )
