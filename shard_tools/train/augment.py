"""Augmentation: rows with some tokens replaced, for the teacher to answer.

Training rows alone teach a submodel the teacher's answers where the teacher is certain. Where some
tokens are replaced by tokens of other rows, labels no longer hold, but the teacher's answers do,
and they show where its classes meet (after DynaBERT and TinyBERT, which replace words by a language
model's). In: a batch and the number of the step. Out: the batch
with some rows changed, and which still have their label. Knows nothing of tokens' meaning.
"""

from __future__ import annotations

import torch

from shard_tools.train.network import Tokens

Tensor = torch.Tensor


def augmented(tokens: Tokens, seed: int, *, rows: float, replaced: float) -> tuple[Tokens, Tensor]:
    """Replace tokens in some rows. First, last and separating tokens of a row stay.

    Args:
        tokens: the batch; not changed.
        seed: the same seed and batch give the same result.
        rows: share of rows to change.
        replaced: share of their tokens to replace.

    Returns:
        The batch, and float ``[B]``: 1 for rows as they were, 0 for changed ones.
    """
    generator = torch.Generator().manual_seed(seed)
    ids, present = tokens.ids, tokens.present
    ends = present.sum(1, keepdim=True) - 1
    first, last = ids[:, :1], ids.gather(1, ends)
    words = present & (ids != first) & (ids != last)
    pool = ids[words]
    changed = torch.rand(len(ids), 1, generator=generator) < rows
    chosen = torch.rand(ids.shape, generator=generator) < replaced
    chosen &= words & changed
    if not len(pool):
        return tokens, torch.ones(len(ids))
    other = pool[torch.randint(len(pool), ids.shape, generator=generator)]
    found = Tokens(torch.where(chosen, other, ids), tokens.types, present)
    return found, 1.0 - chosen.any(1).float()
