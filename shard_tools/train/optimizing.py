"""The optimizer's step: AdamW, its learning rates, and a check that all numbers stay finite.

In: a network with gradients, and how far the stage is. Out: moved weights. Knows nothing of losses
or passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from shard_tools.train.network import ElasticNetwork
from sti.errors import RunError

Tensor = torch.Tensor

_CLIP = 1.0
_WARM_UP = 0.06


class NotFiniteError(RunError):
    """A number that should be finite is not; the message says which. The trainer adds the step."""


class Optimizer:
    """AdamW over all parameters of a network, with a learning rate of its own for the head.

    Rates rise in the first steps and then fall to zero in a straight line. Not thread-safe.

    Args:
        decay: weight decay of the matrices.
        words: whether word embeddings move, too: the rows of a step's tokens.
    """

    def __init__(
        self, network: ElasticNetwork, *, rate: float, head_rate: float, decay: float, words: bool
    ) -> None:
        network.words.requires_grad_(words)
        head = {id(network.classifier), id(network.classifier_bias)}
        groups: list[dict[str, Any]] = [
            {"params": [], "rate": rate, "weight_decay": decay},
            {"params": [], "rate": rate, "weight_decay": 0.0},
            {"params": [], "rate": head_rate, "weight_decay": 0.0},
        ]
        self._parameters = [item for item in network.parameters() if item is not network.words]
        for parameter in self._parameters:
            place = 2 if id(parameter) in head else int(parameter.dim() < 3)
            groups[place]["params"].append(parameter)
        self._words = network.words if words else None
        self._parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate, fused=True)]
        if self._words is not None:
            rows = [{"params": [self._words], "rate": rate}]
            self._parts.append(torch.optim.SparseAdam(rows, lr=rate))

    def start(self, done: float) -> None:
        """Begin a step when a share ``done`` of the stage is done."""
        factor = min(done / _WARM_UP + 1e-3, (1.0 - done) / (1.0 - _WARM_UP))
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = group["rate"] * factor
            part.zero_grad(set_to_none=False)

    def step(self) -> None:
        """Move the weights along their gradients.

        The norm of the gradient is limited, except that of the word embeddings.

        Raises:
            NotFiniteError: a gradient is not finite, or a weight is not after the step.
        """
        if not bool(torch.nn.utils.clip_grad_norm_(self._parameters, _CLIP).isfinite()):
            raise NotFiniteError("a gradient")
        for part in self._parts:
            part.step()
        with torch.no_grad():
            sums = torch.stack([parameter.sum() for parameter in self._moved()])
        if not bool(sums.isfinite().all()):
            raise NotFiniteError("a weight")

    def _moved(self) -> Iterator[Tensor]:
        """What the step may have moved."""
        yield from self._parameters
        if self._words is not None and self._words.grad is not None:
            yield self._words[self._words.grad.coalesce().indices()[0]]

    def state(self) -> list[dict[str, Any]]:
        """All that the next step depends on besides the weights; references, no copies."""
        return [part.state_dict() for part in self._parts]

    def restore(self, state: Sequence[Mapping[str, Any]]) -> bool:
        """Continue from a ``state``, with the rates given to this optimizer.

        Returns:
            Whether these are the rates that the state was reached with.

        Raises:
            ValueError: it belongs to other parameters.
        """
        same = True
        for part, kept in zip(self._parts, state, strict=True):
            rates = [group["rate"] for group in part.param_groups]
            part.load_state_dict(dict(kept))
            for group, rate in zip(part.param_groups, rates, strict=True):
                same = same and group["rate"] == rate
                group["rate"] = rate
        return same
