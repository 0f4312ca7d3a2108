"""What a second costs on each lane: prices that steer the search for fidelities.

Every way of waiting through the pipeline (storage, decode, compute; block after block) must end by
the limit. Each way gets a multiplier; since ways share steps, multipliers are flows through the
steps, and a block's option costs ``loss + price * seconds`` on its own, apart from all other
blocks. The flow is the soft critical path of a schedule, averaged over rounds; its strength is
found by bisection. (Lagrangian relaxation, solved by averaging; see Wolsey, Integer Programming.)
Knows nothing of the manifest and leaves out what the search treats exactly: the ring of slots and
the requests saved by a preload.
In: tables of options and the pipeline's fixed times. Out: prices and a lower bound. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sti.options import Floats, Ints, Options

ROUNDS = 6
"""More rounds move the bound by less than 0.2 % on models of BERT-base size."""
SPREAD = 5e-4
"""Ways shorter than the longest by this share of the limit still get a part of the flow."""
_BISECTIONS = 7
_STORAGE, _DECODE, _COMPUTE = 0, 1, 2
_NEXT_STORAGE, _NEXT_DECODE, _NEXT_COMPUTE, _BUFFER = 3, 4, 5, 6


@dataclass(frozen=True, slots=True)
class Course:
    """The fixed times of a run, in seconds from the text's arrival."""

    start_s: float
    """When storage starts on the blocks, set back by the time the preload saves."""
    rows_s: float
    """When the word rows are there."""
    embed_s: float
    """When the embedding is there."""
    compute_s: Sequence[float]
    """Seconds of each block on the compute lane."""
    before: Sequence[int]
    """The block before each of the same kind, whose working buffer it takes over; -1 for none."""
    limit_s: float
    """When the last block must be computed."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Loss a second. ``hand_on`` prices the ends of a block's steps by what waits for them."""

    storage: Floats
    decode: Floats
    hand_on: Floats
    """``[4, n]``: next block's storage, decode, compute; the working buffer's next user."""
    bound: float
    """No choice that meets the limit has less loss."""


@dataclass(frozen=True, slots=True)
class _Flow:
    shares: Floats  # [7, n]: three steps a block, then four hand-overs
    fixed_s: float  # length of the fixed steps along the flow

    def blend(self, other: _Flow, weight: float) -> _Flow:
        shares = self.shares + weight * (other.shares - self.shares)
        return _Flow(shares, self.fixed_s + weight * (other.fixed_s - self.fixed_s))


def find_prices(
    course: Course, options: Options, bytes_s: Floats, requests_s: Floats, preload_bytes: int
) -> Prices:
    """Prices at which the cheapest options just about meet the limit.

    Args:
        bytes_s, requests_s: ``[n, o]``: the parts of a block's storage seconds that grow with its
            bytes and with its requests.
    """
    loss, read_bytes, decode_s = options.loss, options.read_bytes, options.decode_s
    rows = np.arange(len(loss))
    least = np.where(np.isfinite(loss), read_bytes, np.iinfo(np.int64).max).min(axis=1)
    charged = np.cumsum(least) - least >= preload_bytes  # read whatever is chosen
    choice = np.zeros(len(loss), np.int64)
    strength = float(options.largest_loss.sum()) / course.limit_s or 1.0
    bound, valid = -math.inf, True
    flow, mean_s = _Flow(np.zeros((7, len(loss))), 0.0), np.zeros((2, len(loss)))
    for turn in range(ROUNDS):
        read_s = bytes_s + requests_s * charged[:, None]
        weight = 2 / (turn + 2)
        chosen_s = np.array([read_s[rows, choice], decode_s[rows, choice]])
        mean_s = mean_s + weight * (chosen_s - mean_s)
        flow = flow.blend(_critical_flow(course, *mean_s.tolist()), weight)
        seconds = flow.shares[_STORAGE, :, None] * read_s + flow.shares[_DECODE, :, None] * decode_s
        strength, choice, value = _strength(loss, seconds, course.limit_s - flow.fixed_s, strength)
        if valid:
            bound = max(bound, value)
        if turn and preload_bytes:
            # Guess from the choice which blocks the preload holds whole; no bound from here on.
            charged = np.cumsum(read_bytes[rows, choice]) > preload_bytes
            valid = False
    priced = strength * flow.shares
    return Prices(priced[_STORAGE], priced[_DECODE], priced[_NEXT_STORAGE:], bound)


def _strength(
    loss: Floats, seconds: Floats, limit_s: float, guess: float
) -> tuple[float, Ints, float]:
    """The multiplier of ``sum(seconds) <= limit_s``; its choice; the largest bound met."""
    rows = np.arange(len(loss))
    low, high, best = 0.0, math.inf, -math.inf
    choice = np.zeros(len(loss), np.int64)
    for _ in range(_BISECTIONS):
        cost = loss + guess * seconds
        choice = cost.argmin(axis=1)
        best = max(best, float(cost[rows, choice].sum()) - guess * limit_s)
        if seconds[rows, choice].sum() > limit_s:
            low = guess
        else:
            high = guess
        guess = 2.0 * low if math.isinf(high) else 0.5 * (low + high)
    return guess, choice, best


def _critical_flow(course: Course, read_s: Sequence[float], decode_s: Sequence[float]) -> _Flow:
    """One unit of flow from the end back to the start, along what each step waits for."""
    count = len(read_s)
    ends: list[list[float]] = [[0.0] * count for _ in range(3)]
    waits: list[tuple[list[float], list[float], list[float]]] = []
    spread_s = SPREAD * course.limit_s
    storage, decode, compute = ends
    for k in range(count):
        ahead = k - 1
        storage[k] = (storage[ahead] if k else course.start_s) + read_s[k]
        held = [storage[k], decode[ahead] if k else course.rows_s]
        if course.before[k] >= 0:
            held.append(compute[course.before[k]])
        start_s, decode_waits = _soft_max(held, spread_s)
        decode[k] = start_s + decode_s[k]
        held = [decode[k], compute[ahead] if k else course.embed_s]
        start_s, compute_waits = _soft_max(held, spread_s)
        compute[k] = start_s + course.compute_s[k]
        waits.append(([1.0], decode_waits, compute_waits))
    return _trace_back(course, waits)


def _trace_back(
    course: Course, waits: Sequence[tuple[list[float], list[float], list[float]]]
) -> _Flow:
    """Divide the flow at every step among what it waits for, from the last block on."""
    count = len(waits)
    shares = [[0.0] * count for _ in range(7)]
    shares[_COMPUTE][-1] = shares[_NEXT_COMPUTE][-1] = 1.0
    starts = (course.start_s, course.rows_s, course.embed_s)
    fixed_s = 0.0
    for k in reversed(range(count)):
        for lane in (_COMPUTE, _DECODE, _STORAGE):
            flow, held = shares[lane][k], waits[k][lane]
            if lane == _COMPUTE:
                fixed_s += flow * course.compute_s[k]
            if lane != _STORAGE:
                shares[lane - 1][k] += flow * held[0]
            in_lane = flow * (held[0] if lane == _STORAGE else held[1])
            if k:
                shares[lane][k - 1] += in_lane
                shares[_NEXT_STORAGE + lane][k - 1] = in_lane
            else:
                fixed_s += in_lane * starts[lane]
            if len(held) > 2:
                shares[_COMPUTE][course.before[k]] += flow * held[2]
                shares[_BUFFER][course.before[k]] = flow * held[2]
    return _Flow(np.array(shares), fixed_s)


def _soft_max(times: Sequence[float], spread_s: float) -> tuple[float, list[float]]:
    """A smooth maximum, and how much of it each time accounts for (its gradient)."""
    most = max(times)
    weights = [math.exp((time - most) / spread_s) for time in times]
    total = sum(weights)
    return most + spread_s * math.log(total), [weight / total for weight in weights]
