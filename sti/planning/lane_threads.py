"""How threads share the steps of a run: the rules that profiles, plans and executors follow. Pure.

In: compute threads, cores, slice groups of a block, tokens, a device profile. Out: the
``LaneThreads`` that a plan may choose from, and which part of a step is whose.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sti.device.lanes import PIPELINED, SEQUENTIAL, LaneThreads, shared
from sti.device.profile import DeviceProfile
from sti.model.fidelity import groups_in_use
from sti.model.manifest import Manifest

LEAST_TOKENS = 8
"""The fewest tokens of a sentence in a share of a step.

Fewer are not worth a pass of their own over the weights; and a single one would be multiplied by
code that adds in another order, so that its bits would depend on how tokens are shared out.
"""

_WORTH_TOKENS = 32
"""Tokens of a share from which on dividing a step usually pays (docs/experiments.md)."""


class Share(NamedTuple):
    """A part of a step: every ``of``-th of its shards to decode, an ``of``-th of its tokens."""

    number: int = 0
    of: int = 1

    def tokens(self, count: int) -> tuple[int, int]:
        """The first of ``count`` tokens that are this share's, and the one after its last.

        Sentences too short to be shared are all the first share's.
        """
        if count < self.of * LEAST_TOKENS:
            return (0, count) if self.number == 0 else (0, 0)
        return count * self.number // self.of, count * (self.number + 1) // self.of


WHOLE = Share()
"""All of a step."""


def shares_of(groups: int, threads: int) -> tuple[Share, ...]:
    """The shares into which each step of a block is divided.

    Args:
        groups: slice groups of the block that are in use.
        threads: those that share the steps. Where there are fewer groups than threads, several
            threads compute a group, each for some of the tokens.
    """
    count = max(1, threads // groups)
    return tuple(Share(number, count) for number in range(count))


def lane_choices(compute: int, cores: int) -> tuple[LaneThreads, ...]:
    """What a plan may choose from.

    Args:
        compute: compute threads.
        cores: of the machine. A decode thread of its own is of no use on a single one.
    """
    pipelined = (PIPELINED,) if cores > 1 else ()
    return (SEQUENTIAL, *pipelined, shared(compute))


def measured_choices(
    profile: DeviceProfile, allowed: Collection[str] = ()
) -> tuple[LaneThreads, ...]:
    """Those of ``lane_choices`` that the machine of a profile was measured with.

    Args:
        allowed: names of those that may be used (``Target.threads``); empty: all.
    """
    choices = (SEQUENTIAL, PIPELINED, shared(profile.threads))
    known = [threads for threads in choices if threads.name in profile.runs]
    return tuple(threads for threads in known if not allowed or threads.name in allowed)


def usual_threads(
    manifest: Manifest, tokens: int, *, compute: int, cores: int, width: int | None = None
) -> LaneThreads:
    """What runs take where nothing was measured.

    All threads compute where each block has a slice group for each of them, or a share of each
    group is of tokens enough; else one computes, beside a decode thread.

    Args:
        tokens: of a sentence.
        compute, cores: as of ``lane_choices``.
        width: slices of each block in use; None for all.
    """
    width = width or manifest.dimensions.slices
    groups = min(groups_in_use(kind.groups, width) for kind in manifest.kinds)
    worth = compute > 1 and (groups >= compute or tokens >= compute * _WORTH_TOKENS)
    if worth or cores < 2:
        return shared(compute if worth else 1)
    return PIPELINED


def are_known(threads: LaneThreads) -> bool:
    """Whether this release knows how to use these threads together."""
    return threads in (SEQUENTIAL, PIPELINED) or (
        threads.compute >= 1 and threads == shared(threads.compute)
    )
