"""The head of a checkpoint: its tensors, what its graph is made from, and the float reference.

In: an open checkpoint, what its family calls its heads, the encoder's prefix and width. Out: a
``Head``, the same for all families. Knows nothing of layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import numpy as np

from shard_tools.architectures.heads.names import HeadNames
from shard_tools.architectures.heads.task import find_task
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.graphs.embed_head import HeadSpec
from sti.arrays import Float32Array


class Head:
    """What follows the last layer. Reads tensors on demand; not thread-safe.

    Attributes:
        task: ``embedding``, ``classification``, ``regression`` or ``tagging``.
        labels: the names of the outputs; none for embeddings.
    """

    def __init__(
        self, checkpoint: Checkpoint, names: HeadNames, *, prefix: str, hidden: int
    ) -> None:
        """Find the task.

        Args:
            checkpoint: stays open as long as the head is used.
            names: what the family calls its heads.
            prefix: of the encoder's tensor names, such as ``"bert."``, or nothing.
            hidden: numbers of a token's hidden state.

        Raises:
            CheckpointError: the head is not supported, or a part of it is missing; names it.
        """
        self._checkpoint, self._names, self._hidden = checkpoint, names, hidden
        self._dense = f"{prefix if names.inside else ''}{names.dense}"
        self._task = find_task(checkpoint, names, prefix=prefix)
        self.task, self.labels = self._task.task, self._task.labels

    def residents(self) -> dict[str, Float32Array]:
        """Inputs of the head graph besides ``h`` and ``tokens``, by tensor name in the pack."""
        found: dict[str, Float32Array] = {}
        if self._task.pooling == "pooler":
            weights = self._checkpoint.tensor(f"{self._dense}.weight", (self._hidden,) * 2)
            found["head.pooler_w"] = np.ascontiguousarray(weights.T)
            found["head.pooler_b"] = self._checkpoint.tensor(f"{self._dense}.bias", (self._hidden,))
        if self.labels:
            count, module = len(self.labels), self._task.classifier
            weights = self._checkpoint.tensor(f"{module}.weight", (count, self._hidden))
            found["head.classifier_w"] = np.ascontiguousarray(weights.T)
            found["head.classifier_b"] = self._checkpoint.tensor(f"{module}.bias", (count,))
        return found

    def spec(self) -> HeadSpec:
        """What the head graph is made from."""
        head = self._task
        if head.task == "tagging":
            return HeadSpec(kind="tokens")
        kind: Literal["embedding", "sequence"] = (
            "embedding" if head.task == "embedding" else "sequence"
        )
        pooling = cast("Literal['mean', 'cls', 'pooler']", head.pooling)
        activation = self._names.activation if pooling == "pooler" else "tanh"
        return HeadSpec(kind, pooling, normalize=head.normalize, activation=activation)

    def readout(self, hidden: Float32Array, lengths: Sequence[int]) -> Float32Array:
        """Float reference: what is read of the last hidden states ``[T, hidden]``.

        The mean of each text, its first token, or every token.
        """
        if self._task.pooling == "none":
            return hidden
        starts = np.cumsum((0, *lengths[:-1]))
        if self._task.pooling == "mean":
            means: Float32Array = np.add.reduceat(hidden, starts, axis=0)
            means /= np.array(lengths, dtype=np.float32)[:, None]
            return means
        first: Float32Array = hidden[starts]
        return first
