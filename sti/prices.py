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
from operator import mul

import numpy as np

from sti.options import Floats, Ints, Options

ROUNDS = 6
"""Ten more rounds move the bound by less than 0.5 % on models of BERT-base size."""
SPREAD = 5e-4
"""Ways shorter than the longest by this share of the limit still get a part of the flow."""
_BISECTIONS = 7
_ROUNDING_S = 1e-13
_STORAGE, _DECODE, _COMPUTE = 0, 1, 2


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
    """What seconds cost in loss, and the schedule at which they do."""

    strength: float
    """Loss a second of delay of the whole run."""
    storage: Floats
    """``[n]``: loss a second of each block's storage."""
    decode: Floats
    mean_s: Floats
    """``[2, n]``: storage and decode seconds of each block in the schedule that was priced."""
    bound: float
    """No choice that meets the limit has less loss."""


@dataclass(frozen=True, slots=True)
class _Flow:
    shares: Floats  # [2, n]: of the storage and decode steps of each block
    fixed_s: float  # length of all other steps, by their shares

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
    flow, mean_s = _Flow(np.zeros((2, len(loss))), 0.0), np.zeros((2, len(loss)))
    for turn in range(ROUNDS):
        read_s = bytes_s + requests_s * charged[:, None]
        weight = 2 / (turn + 2)
        chosen_s = np.array([read_s[rows, choice], decode_s[rows, choice]])
        mean_s = mean_s + weight * (chosen_s - mean_s)
        flow = flow.blend(_critical_flow(course, *mean_s.tolist()), weight)
        seconds = flow.shares[0, :, None] * read_s + flow.shares[1, :, None] * decode_s
        strength, choice, value = _strength(loss, seconds, course.limit_s - flow.fixed_s, strength)
        if valid:
            bound = max(bound, value)
        if turn and preload_bytes:
            # Guess from the choice which blocks the preload holds whole; no bound from here on.
            charged = np.cumsum(read_bytes[rows, choice]) > preload_bytes
            valid = False
    storage, decode = strength * flow.shares
    return Prices(strength, storage, decode, mean_s, bound)


def _strength(
    loss: Floats, seconds: Floats, limit_s: float, guess: float
) -> tuple[float, Ints, float]:
    """The multiplier of ``sum(seconds) <= limit_s``; its choice; the largest bound met."""
    rows = np.arange(len(loss))
    # No multiplier makes a choice faster than the fastest; without this one would be looked for
    # where nothing but a rounding is missing.
    fastest_s = float(np.where(np.isfinite(loss), seconds, np.inf).min(axis=1).sum())
    limit_s = max(limit_s, fastest_s + _ROUNDING_S)
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
    count, spread_s = len(read_s), SPREAD * course.limit_s
    storage, decode, compute = [course.start_s], [course.rows_s], [course.embed_s]
    waits = []
    for k in range(count):
        storage.append(storage[k] + read_s[k])
        held = [storage[k + 1], decode[k]]
        if course.before[k] >= 0:
            held.append(compute[course.before[k] + 1])
        start_s, decode_waits = _soft_max(held, spread_s)
        decode.append(start_s + decode_s[k])
        start_s, compute_waits = _soft_max([decode[k + 1], compute[k]], spread_s)
        compute.append(start_s + course.compute_s[k])
        waits.append((decode_waits, compute_waits))
    shares = [[0.0] * (count + 1) for _ in range(3)]  # the first of each: what comes before
    shares[_COMPUTE][count] = 1.0
    for k in reversed(range(count)):
        decode_waits, compute_waits = waits[k]
        flow = shares[_COMPUTE][k + 1]
        shares[_DECODE][k + 1] += flow * compute_waits[0]
        shares[_COMPUTE][k] += flow * compute_waits[1]
        flow = shares[_DECODE][k + 1]
        shares[_STORAGE][k + 1] += flow * decode_waits[0]
        shares[_DECODE][k] += flow * decode_waits[1]
        if len(decode_waits) > 2:
            shares[_COMPUTE][course.before[k] + 1] += flow * decode_waits[2]
        shares[_STORAGE][k] += shares[_STORAGE][k + 1]
    fixed = zip(shares, (course.start_s, course.rows_s, course.embed_s), strict=True)
    fixed_s = sum(lane[0] * start_s for lane, start_s in fixed)
    fixed_s += sum(map(mul, shares[_COMPUTE][1:], course.compute_s))
    return _Flow(np.array([shares[_STORAGE][1:], shares[_DECODE][1:]]), fixed_s)


def _soft_max(times: Sequence[float], spread_s: float) -> tuple[float, list[float]]:
    """A smooth maximum, and how much of it each time accounts for (its gradient)."""
    most = max(times)
    weights = [math.exp((time - most) / spread_s) for time in times]
    total = sum(weights)
    return most + spread_s * math.log(total), [weight / total for weight in weights]
