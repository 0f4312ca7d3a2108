"""A worker as its controller knows it: what it is, how far away, and what runs have shown of it.

In: facts, a measured link, what stages took. Out: the ``Member`` that plans are made for, with the
corrections that runs showed. Knows nothing of messages. For one thread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sti.devices.commands import StageReport
from sti.devices.facts import Facts
from sti.planning.lane_threads import measured_choices
from sti.planning.links import Link
from sti.planning.stage_times import Member

AGAIN_S, MOST_AGAIN_S = 5.0, 600.0
"""After which a device that failed is asked again: at first, and when it fails again and again."""
NOT_FOUND = "it was not found"
"""Why a device is not used that nothing is known of."""
_NEW = 0.3
"""What part of a correction the last run has."""
_LEAST_FACTOR, _MOST_FACTOR = 0.2, 20.0
_DOUBTED = 1.5
"""A correction beyond which a device or its link may have been used for the last time."""
_LATE_FACTOR = 2.0
"""By how much a device that let a run wait in vain is taken to be slower."""
_FORGIVEN_S = 2.0
"""For how long that is taken back where another device turns out to be lost: the run waited for the
one because of the other."""


@dataclass(slots=True)
class Peer:
    """A worker, as its controller knows it."""

    name: str
    address: str
    is_there: bool = False
    """Whether it was found, and is not lost."""
    facts: Facts | None = None
    """None until it has said what it is."""
    link: Link | None = None
    """From this machine; None until it was measured."""
    met: int = 0
    """How often it was met: what it had ready before is gone then."""
    why: str = NOT_FOUND
    """Why it is not used, where it is not."""
    again_s: float | None = None
    """When it is to be asked what it is, in seconds of ``time.monotonic``: it failed, or has not
    answered until then."""
    pause_s: float = AGAIN_S
    """For how long it is left alone when it fails the next time."""
    factor: float = 1.0
    """What its stages took, over what was predicted."""
    link_factor: float = 1.0
    """What sending from or to it took, over what was measured."""
    late_s: float = -math.inf
    """When it was late last, in seconds of ``time.monotonic``."""
    factor_before: float = 1.0
    """``factor`` before that."""

    @property
    def is_ready(self) -> bool:
        """Whether runs may use it."""
        return self.facts is not None and self.link is not None

    @property
    def why_unused(self) -> str:
        """Why it is not used; where it is ready, that no plan was made with it."""
        if self.facts is None or self.link is None:
            return self.why
        return (
            f"no part of the plan fits it: it has layers {self.facts.first} to {self.facts.last}, "
            f"and room for {self.facts.room_bytes} bytes of weights"
        )

    @property
    def member(self) -> Member:
        """As plans see it; it is ready."""
        facts = self.facts
        assert facts is not None, "it is ready"
        # A thread that only reads is what reads ahead.
        kinds = [kind for kind in reversed(measured_choices(facts.profile)) if kind.storage]
        return Member(
            self.name,
            facts.profile,
            kinds[0],
            others=tuple(kinds[1:]),
            preload_bytes=facts.preload_bytes,
            room_bytes=facts.room_bytes,
            first=facts.first,
            last=facts.last,
            factor=self.factor,
        )

    def fail(self, now_s: float) -> None:
        """It did not do what it was asked for: it is left alone for a while, longer each time."""
        self.again_s = now_s + self.pause_s
        self.pause_s = min(MOST_AGAIN_S, 2.0 * self.pause_s)

    def learn(self, report: StageReport, predicted_s: float) -> None:
        """A stage took so long, of which so much was predicted to be its own work."""
        if predicted_s > 0.0:
            own_s = report.total_s - report.waited_s
            self.factor = moved(self.factor, self.factor * own_s / predicted_s)
            self.pause_s = AGAIN_S

    def learn_link(self, ratio: float) -> None:
        """Sending to it, or from it, took so many times what was predicted."""
        self.link_factor = moved(self.link_factor, self.link_factor * ratio)

    def was_late(self, now_s: float) -> None:
        """It let a run wait in vain."""
        if now_s > self.late_s + _FORGIVEN_S:
            self.factor_before = self.factor
        self.late_s = now_s
        self.factor = min(_MOST_FACTOR, self.factor * _LATE_FACTOR)

    def forgive(self, now_s: float) -> None:
        """Another device is lost, and may have been so when this one was late."""
        if now_s <= self.late_s + _FORGIVEN_S:
            self.factor = min(self.factor, self.factor_before)

    @property
    def is_doubted(self) -> bool:
        """Whether runs have shown it, or its link, to be much slower than it was measured."""
        return max(self.factor, self.link_factor) > _DOUBTED


def moved(before: float, now: float) -> float:
    """A correction that follows what runs show, without following each of them all the way."""
    found = before + _NEW * (now - before)
    return min(_MOST_FACTOR, max(_LEAST_FACTOR, found))
