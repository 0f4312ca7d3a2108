"""The head of a checkpoint: its tensors, what its graph is made from, and the float reference.

In: an open checkpoint, what its family calls its heads, the encoder's prefix and width. Out: a
``Head``, the same for all families. Knows nothing of layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from shard_tools.architectures.heads.modules import ModuleStep
from shard_tools.architectures.heads.names import HeadNames
from shard_tools.architectures.heads.reference import activated, layer_norm, normalized, pool
from shard_tools.architectures.heads.task import find_task
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.graphs.embed_head import HeadSpec, HeadStep
from sti.arrays import Float32Array

_PARTS = ("weight", "bias")


class Head:
    """What follows the last layer. Reads tensors on demand; not thread-safe.

    Attributes:
        task: ``embedding``, ``classification``, ``multi_label``, ``regression`` or ``tagging``.
        labels: the names of the outputs; none for embeddings.
        activation: of a regression's values: ``sigmoid``, or nothing.
        dimension: numbers of an embedding; 0 for other tasks.
        told: what was taken for granted, a sentence each.
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
        self._task = find_task(checkpoint, names, prefix=prefix, hidden=hidden)
        self.task, self.labels = self._task.task, self._task.labels
        self.activation, self.told = self._task.activation, self._task.told
        self.dimension = self.spec().size(hidden) if self.task == "embedding" else 0

    def residents(self) -> dict[str, Float32Array]:
        """Inputs of the head graph besides ``h`` and ``tokens``, by tensor name in the pack."""
        found: dict[str, Float32Array] = {}
        if self._task.poolings == ("pooler",):
            linear = self._linear(self._checkpoint, self._dense, self._hidden, self._hidden)
            found["head.pooler_w"], found["head.pooler_b"] = linear
        for number, step in enumerate(self._task.steps):
            if step.source is not None:
                first, second = self._module(step.source, step)
                found[f"head.step{number}_w"], found[f"head.step{number}_b"] = first, second
        if self.labels:
            size = self.spec().size(self._hidden)
            linear = self._linear(self._checkpoint, self._task.classifier, size, len(self.labels))
            found["head.classifier_w"], found["head.classifier_b"] = linear
        return found

    def _module(self, module: Checkpoint, step: ModuleStep) -> tuple[Float32Array, Float32Array]:
        """The tensors of one module behind the pooling."""
        if step.step.kind == "norm":
            gamma, beta = (module.tensor(f"norm.{part}", (step.inputs,)) for part in _PARTS)
            return gamma, beta
        return self._linear(module, "linear", step.inputs, step.step.size, biased=step.biased)

    def _linear(
        self, source: Checkpoint, module: str, inputs: int, outputs: int, *, biased: bool = True
    ) -> tuple[Float32Array, Float32Array]:
        """A linear module as ``[in, out]`` and ``[out]``."""
        weights = source.tensor(f"{module}.weight", (outputs, inputs))
        bias = np.zeros(outputs, np.float32)
        if biased:
            bias = source.tensor(f"{module}.bias", (outputs,))
        return np.ascontiguousarray(weights.T), bias

    def spec(self) -> HeadSpec:
        """What the head graph is made from."""
        head = self._task
        if head.task == "tagging":
            return HeadSpec("tokens")
        steps = tuple(step.step for step in head.steps)
        kind: Literal["embedding", "sequence"] = "sequence" if head.labels else "embedding"
        activation = self._names.activation if head.poolings == ("pooler",) else "tanh"
        return HeadSpec(kind, head.poolings, steps, activation)

    def readout(self, hidden: Float32Array, lengths: Sequence[int]) -> Float32Array:
        """Float reference: what is read of the last hidden states ``[T, hidden]``.

        Each text as it is pooled, several ways side by side; or every token.
        """
        if not self._task.poolings:
            return hidden
        parts = [pool(pooling, hidden, lengths) for pooling in self._task.poolings]
        return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]

    def answer(
        self,
        hidden: Float32Array,
        lengths: Sequence[int],
        residents: Mapping[str, Float32Array],
    ) -> Float32Array:
        """Float reference: what the head graph answers, without padding.

        Args:
            hidden: the last hidden states ``[T, hidden]``.
            lengths: tokens of each text.
            residents: at least those of ``residents``.

        Returns:
            Embeddings ``[n, dimension]``, or logits ``[n, labels]``, or of every token.
        """
        rows = self.readout(hidden, lengths)
        if self._task.poolings == ("pooler",):
            rows = rows @ residents["head.pooler_w"] + residents["head.pooler_b"]
            rows = activated(rows, self._names.activation)
        for number, step in enumerate(self._task.steps):
            rows = self._stepped(rows, step.step, f"head.step{number}", residents)
        if self.labels:
            rows = rows @ residents["head.classifier_w"] + residents["head.classifier_b"]
        return rows

    def _stepped(
        self, rows: Float32Array, step: HeadStep, name: str, residents: Mapping[str, Float32Array]
    ) -> Float32Array:
        if step.kind == "normalize":
            return normalized(rows)
        first, second = residents[f"{name}_w"], residents[f"{name}_b"]
        if step.kind == "norm":
            return layer_norm(rows, first, second)
        return activated(rows @ first + second, step.activation)
