"""What a kind of hostile pack is: what is changed in a sound one, and what must come of it.

In: the parts of a sound pack, a source of random numbers. Out: the parts changed. The kinds
themselves are in ``security_hostile_kinds``.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from benchmarks.security_packs import PackParts

Harm = Callable[[PackParts, Random], object]

REFUSED, SAME, EITHER = "refused", "the same answer", "refused or an answer"
UNUSED = "refused or the same answer"
"""What must come of a pack: some are another model, which a stranger may ship; of some, what means
harm is of no use on this machine, which never touches it."""


class Kind(NamedTuple):
    """One kind of hostile pack."""

    due: str
    harm: Harm
