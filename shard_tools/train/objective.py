"""What a pass is trained for: the labels, the teacher's answers, the full model's hidden states.

In: logits and hidden states of a pass, and what they should be like. Out: a loss. The teacher is
the plainly fine-tuned model; its logits are soft targets (Hinton et al., 2015). Submodels also
follow the hidden states of the full model in the same step (DynaBERT, section 2.2): the state
behind each kept layer is to be the one that the full model has before the next kept layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

Tensor = torch.Tensor

_HIDDEN_WEIGHT = 0.5
_LABEL_WEIGHT = 0.5


def label_loss(
    logits: Tensor, targets: Tensor, *, regression: bool, counted: Tensor | None = None
) -> Tensor:
    """Cross-entropy in nats, or the squared difference; a mean over the batch.

    Args:
        counted: float ``[B]``, 1 for the rows that count and 0 for others; None for all.
    """
    if regression:
        each = F.mse_loss(logits[:, 0], targets, reduction="none")
    else:
        each = F.cross_entropy(logits, targets.long(), reduction="none")
    return each.mean() if counted is None else (each * counted).mean()


def distillation_loss(logits: Tensor, teacher: Tensor, *, regression: bool) -> Tensor:
    """Kullback-Leibler divergence from the teacher in nats, or the squared difference."""
    if regression:
        return F.mse_loss(logits, teacher)
    return F.kl_div(
        F.log_softmax(logits, -1),
        F.log_softmax(teacher, -1),
        log_target=True,
        reduction="batchmean",
    )


def hidden_loss(
    states: Sequence[Tensor], layers: Sequence[int], full: Sequence[Tensor], present: Tensor
) -> Tensor:
    """Mean squared difference of hidden states, over tokens and kept layers.

    Args:
        states: ``[B, S, d]`` behind each of ``layers``.
        full: the full model's, behind every layer.
        present: bool ``[B, S]``.
    """
    ends = [*(layer - 1 for layer in layers[1:]), len(full) - 1]
    weights = present[:, :, None].float()
    scale = weights.sum() * states[0].shape[-1] * len(layers)
    total = sum(
        ((state - full[end]).square() * weights).sum()
        for state, end in zip(states, ends, strict=True)
    )
    assert isinstance(total, Tensor)
    return total / scale


def pass_loss(
    logits: Tensor,
    targets: Tensor,
    teacher: Tensor,
    hidden: Tensor | None,
    *,
    regression: bool,
    counted: Tensor | None = None,
) -> Tensor:
    """The loss of one pass.

    Args:
        hidden: its ``hidden_loss``; None for the full model.
        counted: the rows whose labels hold; of all others only the teacher's answers do.
    """
    loss = distillation_loss(logits, teacher, regression=regression)
    labels = label_loss(logits, targets, regression=regression, counted=counted)
    loss = loss + _LABEL_WEIGHT * labels
    return loss if hidden is None else loss + _HIDDEN_WEIGHT * hidden
