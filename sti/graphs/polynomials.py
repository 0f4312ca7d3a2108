"""Sizes that depend on how many texts and tokens there are: polynomials, each held in one integer.

``TEXTS`` and ``TOKENS`` stand for the texts of a group and the tokens of each. They are such large
powers of two that a polynomial with small whole coefficients can be read back from its value at
them: sums and products of sizes are those of plain integers, and two are equal only where the
polynomials are. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

_BITS = 128
"""Of a coefficient, at most; those that are kept have far fewer, so products of them fit."""
_POWERS = 5
"""Powers of tokens that are told apart: up to four, of two sizes multiplied."""
_KEPT_BITS = 48
"""Of the coefficients of a size."""

TOKENS = 1 << _BITS
TEXTS = 1 << _BITS * _POWERS

_KEPT = (1 << _KEPT_BITS) - 1
_PARTS = (1, TOKENS, TOKENS * TOKENS, TEXTS, TEXTS * TOKENS, TEXTS * TOKENS * TOKENS)
_OTHER = ~sum(_KEPT * part for part in _PARTS)


class Growth(NamedTuple):
    """How a size grows."""

    fixed: int
    """Whatever there is to compute."""
    by_token: int
    """For each token of each text; what there is for each text or each place counts here too."""
    by_pair: int
    """For each pair of tokens of a text; what there is for each pair of places counts here too."""


def is_moderate(size: int) -> bool:
    """Whether a size grows no faster than tokens, or pairs of tokens of a text, and is finite.

    Args:
        size: of sums and products of moderate ones, three factors at most.
    """
    return not size & _OTHER


def fixed_part(size: int) -> int:
    """What there is of a moderate size whatever there is to compute."""
    return size & _KEPT


def growth(size: int) -> Growth:
    """The coefficients of a moderate size."""
    places = (0, 1, 2, _POWERS, _POWERS + 1, _POWERS + 2)
    parts = [size >> _BITS * place & _KEPT for place in places]
    return Growth(parts[0], parts[1] + parts[3] + parts[4], parts[2] + parts[5])
