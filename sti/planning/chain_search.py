"""Which layers on which device: exact, for the least latency or the most throughput. Pure.

In: for each device, what each stretch of layers takes on it; what sending takes. Out: the best
chain. Dynamic programmes over (layers done, devices used, last device), as PipeEdge's (Hu et al.,
"Pipeline parallelism for inference on heterogeneous edge computing", section 3.3), with two
differences: a stage ends no sooner than its own storage lets it, however early its hidden states
arrive (``StageCosts.at_once_s``), and a latency is searched beside a throughput. Tests hold both
equal to brute force. Knows nothing of plans, packs or bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

MOST_DEVICES = 8
"""Of a chain: the search doubles with each."""

SendTime = Callable[[int, int], float]
"""Seconds that the hidden states of one unit take from one device to another, by their numbers."""


class StageCosts(NamedTuple):
    """What stretches of layers take on one device, in seconds.

    Both are ``[first][end]``, of the layers from ``first`` to ``end - 1``; infinite where the
    device cannot have them.
    """

    own_s: Sequence[Sequence[float]]
    """From when the hidden states arrive, if that is late: everything was read by then."""
    at_once_s: Sequence[Sequence[float]]
    """From when the device hears of the run, if the hidden states are there by then."""
    heard_s: float = 0.0
    """When it hears of a run."""
    answer_s: float = 0.0
    """What sending the answer takes from it."""

    def end_s(self, first: int, end: int, arrival_s: float) -> float:
        """When it has computed these layers, of which the hidden states arrive at a time."""
        return max(
            arrival_s + self.own_s[first][end],
            self.heard_s + self.at_once_s[first][end],
        )


class Cut(NamedTuple):
    """A stretch of layers of a chain: ``first`` to ``end - 1``, on the device of this number."""

    device: int
    first: int
    end: int


class Chain(NamedTuple):
    """A chain that was found, and what was to be least: seconds."""

    cuts: tuple[Cut, ...]
    seconds: float


def quickest(layers: int, devices: Sequence[StageCosts], send_s: SendTime) -> Chain | None:
    """The chain with the least time from a text to its answer; None where there is none.

    Device 0, which asks, is no chain alone.

    A stage never ends later for hidden states that arrive sooner, so the earliest way to each
    (layers done, devices used, last device) is all that has to be known of what is before it.
    """

    def longer(before_s: float, last: int | None, cut: Cut) -> float:
        device = devices[cut.device]
        arrival_s = device.heard_s if last is None else before_s + send_s(last, cut.device)
        end_s = device.end_s(cut.first, cut.end, arrival_s)
        return end_s + device.answer_s if cut.end == layers else end_s

    return _search(layers, len(devices), longer)


def busiest(layers: int, devices: Sequence[StageCosts], send_s: SendTime) -> Chain | None:
    """The chain whose busiest device or link takes least for each of many units: the throughput.

    Device 0, which asks, is no chain alone.

    Each unit keeps a device as long as it takes where its hidden states wait for it already.
    """

    def longer(before_s: float, last: int | None, cut: Cut) -> float:
        sent_s = 0.0 if last is None else send_s(last, cut.device)
        return max(before_s, sent_s, devices[cut.device].at_once_s[cut.first][cut.end])

    return _search(layers, len(devices), longer)


class _State(NamedTuple):
    """Which devices are used, as bits, and the last of them."""

    used: int
    last: int | None


class _Way(NamedTuple):
    """The best way to a state."""

    seconds: float
    cuts: tuple[Cut, ...]


def _search(
    layers: int, devices: int, longer: Callable[[float, int | None, Cut], float]
) -> Chain | None:
    """The chain of least seconds.

    Args:
        longer: the seconds with one stage more: those so far, the last device, the stage. Never
            less for more before.
    """
    best: list[dict[_State, _Way]] = [{} for _ in range(layers + 1)]
    best[0][_State(0, None)] = _Way(0.0, ())
    least_s = math.inf  # of the whole chains so far: whatever takes more by then comes to nothing
    for done in range(layers):
        for state, way in best[done].items():
            if way.seconds > least_s:
                continue
            for cut in _next_cuts(state, done, layers, devices):
                seconds = longer(way.seconds, state.last, cut)
                if seconds > least_s or seconds == math.inf:
                    continue
                after = _State(state.used | 1 << cut.device, cut.device)
                known = best[cut.end].get(after)
                if known is None or seconds < known.seconds:
                    best[cut.end][after] = _Way(seconds, (*way.cuts, cut))
                    if cut.end == layers and after.used != 1:
                        least_s = seconds
    whole = [way for state, way in best[layers].items() if state.used != 1]
    if not whole:
        return None
    # Of equals, fewer devices.
    found = min(whole, key=lambda way: (way.seconds, len(way.cuts), way.cuts))
    return Chain(found.cuts, found.seconds)


def _next_cuts(state: _State, done: int, layers: int, devices: int) -> Iterator[Cut]:
    for number in range(devices):
        if not state.used >> number & 1:
            yield from (Cut(number, done, end) for end in range(done + 1, layers + 1))
