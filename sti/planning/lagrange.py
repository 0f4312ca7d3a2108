"""Lagrange multipliers: how much loss a second on each lane is worth, to steer the search.

Every chain of waits through the pipeline (storage, decode, compute; group after group) must end by
the limit, and each chain gets a multiplier. Because chains share steps, the multipliers form a flow
over the steps, and an option of a group costs ``loss + multiplier * seconds`` independently of all
other groups. The flow approximates a softened critical path of the schedule and is averaged over
several rounds. The overall multiplier is the one at which the cheapest choice switches from one
that is too slow to one that meets the limit. (Lagrangian relaxation, solved by averaging; see
Wolsey, Integer Programming.)

Waiting for a slot of the ring adds a chain: it binds where storage and decode take equally long.
Knows nothing of the manifest, and only estimates what the search treats exactly: which requests and
slots a preload saves. In: tables of options and the pipeline's fixed times. Out: multipliers and a
lower bound. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sti.arrays import BoolArray, Float64Array, Int64Array
from sti.planning.course import Course
from sti.planning.option_tables import OptionTables

ROUNDS = 12
"""With eight, multipliers are unsettled where lanes wait for each other and there are many groups;
0.3 ms each."""
SPREAD = 5e-4
"""Chains shorter than the longest by this share of the limit still get a part of the flow."""
MULTIPLIERS = (0.0, 0.3, 0.6, 1.0, 1.5, 3.0, 12.0, 64.0)
"""Shares of the multiplier found, at which a bound on what is still to come is known."""
_STEPS = 8
_CLOSE = 1e-2
"""Share by which a multiplier may be off: the two choices are mixed anyway."""
_STRIDE = 1.2
"""Factor of the first step away from a guess; squared at each further step."""
_ROUNDING_S = 1e-13
_FAR = 40.0
"""Times further apart than this many spreads do not change each other's maximum."""


@dataclass(frozen=True, slots=True)
class Multipliers:
    """What seconds are worth in loss, and the schedule at which they are."""

    multiplier: float
    """Loss a second of delay of the whole run."""
    storage: Float64Array
    """``[n]``: loss a second of each group's storage."""
    decode: Float64Array
    compute: Float64Array
    mean_s: Float64Array
    """``[3, n]``: storage, decode and compute seconds of each group in the relaxed schedule."""
    read: BoolArray
    """``[n]``: groups that are not preloaded whole in that schedule."""
    bound: float
    """No choice that meets the limit has less loss."""
    multipliers: Float64Array
    """``[s]``: multipliers from 0 on; each gives a line that bounds the loss to come from below."""
    bases: Float64Array
    """``[s, n]``: the lines at zero lateness, after each group."""

    def loss_to_come(self, group: int, late_s: Float64Array) -> Float64Array:
        """A lower bound of the loss of the groups after ``group``, ``late_s`` behind the schedule.

        Being early helps only while there is something left to gain; catching up costs more the
        later a run is and the fewer groups are left.
        """
        lost: Float64Array = np.full(len(late_s), self.bases[0, group])
        for multiplier, base in zip(self.multipliers[1:], self.bases[1:, group], strict=True):
            np.maximum(lost, base + multiplier * late_s, out=lost)
        return lost


@dataclass(frozen=True, slots=True)
class _Flow:
    shares: Float64Array  # [3, n]: of the storage, decode and compute seconds of each group
    fixed_s: float  # length of all other steps, by their shares

    def blend(self, other: _Flow, weight: float) -> _Flow:
        shares = self.shares + weight * (other.shares - self.shares)
        return _Flow(shares, self.fixed_s + weight * (other.fixed_s - self.fixed_s))


@dataclass(frozen=True, slots=True)
class _Relaxed:
    """A multiplier and two choices that cost the same at it, mixed so as to end at the limit."""

    multiplier: float
    slow: Int64Array
    fast: Int64Array
    fast_share: float
    bound: float

    def mean(self, table: Float64Array | Int64Array) -> Float64Array:
        """The mixed value of ``[n, o]`` for each group."""
        rows = np.arange(len(table))
        slow, fast = table[rows, self.slow], table[rows, self.fast]
        return np.asarray(slow + self.fast_share * (fast - slow), np.float64)


def find_multipliers(
    course: Course,
    options: OptionTables,
    bytes_s: Float64Array,
    requests_s: Float64Array,
    preload_bytes: int,
) -> Multipliers:
    """Multipliers at which the cheapest options just about meet the limit.

    Args:
        bytes_s, requests_s: ``[n, o]``: the parts of a group's storage seconds that grow with its
            bytes and with its requests.
    """
    loss, read_bytes = options.loss, options.read_bytes
    tables = options.decode_s, options.compute_s
    read, whole = surely_read(options, preload_bytes), np.zeros(len(loss), np.int64)
    multiplier = float(options.largest_loss.sum()) / course.limit_s or 1.0
    relaxed = _Relaxed(multiplier, whole, whole, 0.0, -math.inf)
    bound, valid = -math.inf, True
    flow, mean_s = _Flow(np.zeros((3, len(loss))), 0.0), np.zeros((3, len(loss)))
    for turn in range(ROUNDS):
        read_s = bytes_s + requests_s * read[:, None]
        weight = 2 / max(2, turn + 1)
        mean_s = mean_s + weight * (
            np.array([relaxed.mean(table) for table in (read_s, *tables)]) - mean_s
        )
        flow = flow.blend(
            _critical_flow(course, course.slot_before(read), *mean_s.tolist()), weight
        )
        seconds = flow.shares[0, :, None] * read_s
        for share, table in zip(flow.shares[1:], tables, strict=True):
            seconds += share[:, None] * table
        relaxed = _multiplier(loss, seconds, course.limit_s - flow.fixed_s, relaxed.multiplier)
        if valid:
            bound = max(bound, relaxed.bound)
        if turn and preload_bytes:
            # Guess from the choice which groups the preload holds whole; no bound from here on.
            read = np.cumsum(relaxed.mean(read_bytes)) > preload_bytes
            valid = False
    storage, decode, compute = relaxed.multiplier * flow.shares
    multipliers = relaxed.multiplier * np.array(MULTIPLIERS)
    bases = _bases(loss, seconds, (flow.shares * mean_s).sum(axis=0), multipliers)
    return Multipliers(
        relaxed.multiplier, storage, decode, compute, mean_s, read, bound, multipliers, bases
    )


def _bases(
    loss: Float64Array, seconds: Float64Array, mean_s: Float64Array, multipliers: Float64Array
) -> Float64Array:
    """``Multipliers.bases``: cost of the groups to come, less that of the schedule's seconds."""
    cost = [
        (loss + multiplier * seconds).min(axis=1) - multiplier * mean_s
        for multiplier in multipliers
    ]
    to_come = np.cumsum(np.array(cost)[:, ::-1], axis=1)[:, ::-1]
    return np.column_stack((to_come[:, 1:], np.zeros(len(multipliers))))


def surely_read(options: OptionTables, preload_bytes: int) -> BoolArray:
    """Groups ``[n]`` read whole whatever is chosen: the ones before use up the preload."""
    worst = np.iinfo(np.int64).max
    least = np.where(np.isfinite(options.loss), options.read_bytes, worst).min(axis=1)
    return np.asarray(np.cumsum(least) - least >= preload_bytes)


def _multiplier(
    loss: Float64Array, seconds: Float64Array, limit_s: float, guess: float
) -> _Relaxed:
    """The multiplier of ``sum(seconds) <= limit_s``, from a guess of it.

    Two choices are kept, one too slow and one in time; each next multiplier is the one at which
    they cost the same, until nothing costs less than they do.
    """
    rows = np.arange(len(loss))

    def point(choice: Int64Array) -> tuple[float, float, Int64Array]:
        return float(seconds[rows, choice].sum()), float(loss[rows, choice].sum()), choice

    least = loss <= loss.min(axis=1, keepdims=True)
    slow = point(np.where(least, seconds, np.inf).argmin(axis=1))
    if slow[0] <= limit_s:
        return _Relaxed(
            _first_multiplier(loss, seconds, slow[2]) or guess, slow[2], slow[2], 0.0, slow[1]
        )
    fast = point(np.where(np.isfinite(loss), seconds, np.inf).argmin(axis=1))
    limit_s = max(limit_s, fast[0])
    multiplier, bound, cost, stride = guess, -math.inf, np.empty_like(loss), _STRIDE
    sides: set[bool] = set()
    for _ in range(_STEPS):
        np.multiply(seconds, guess, out=cost)
        cost += loss
        found = point(cost.argmin(axis=1))
        multiplier, bound = guess, max(bound, found[1] + guess * (found[0] - limit_s))
        late = found[0] > limit_s
        slow, fast = (found, fast) if late else (slow, found)
        sides.add(late)
        if slow[0] - fast[0] <= _ROUNDING_S:
            break
        guess = (fast[1] - slow[1]) / (slow[0] - fast[0])
        if abs(guess - multiplier) <= _CLOSE * multiplier:
            break
        if len(sides) == 1:  # the other choice may be far off, and the multiplier with it
            guess = min(guess, multiplier * stride) if late else max(guess, multiplier / stride)
            stride *= stride
    share = (slow[0] - limit_s) / max(slow[0] - fast[0], _ROUNDING_S)
    return _Relaxed(multiplier, slow[2], fast[2], min(1.0, max(0.0, share)), bound)


def _first_multiplier(loss: Float64Array, seconds: Float64Array, choice: Int64Array) -> float:
    """The least multiplier at which another choice costs no more than that of least loss, or 0."""
    rows = np.arange(len(loss))
    saved_s = seconds[rows, choice, None] - seconds
    more = loss - loss[rows, choice, None]
    multiplier = np.divide(
        more, saved_s, out=np.full_like(more, np.inf), where=saved_s > _ROUNDING_S
    ).min()
    return float(multiplier) if multiplier < math.inf else 0.0


def _critical_flow(
    course: Course,
    slot_before: Sequence[int],
    read_s: Sequence[float],
    decode_s: Sequence[float],
    compute_s: Sequence[float],
) -> _Flow:
    """One unit of flow from the end back to the start, along what each step waits for.

    The waits are those that ``sti.planning.course`` states.
    """
    count, spread_s, buffers = len(read_s), SPREAD * course.limit_s, course.buffers
    joint, serial, one = course.joint, course.serial, 1.0 / course.threads.compute
    parts = course.parts
    storage, free, ready = [course.start_s], [course.free_s], [course.embed_s]
    decoded: list[float] = []
    computed: list[float] = []
    waits = []
    for k, connect_s in enumerate(course.connect_s):
        part, after_s = parts[k], compute_s[k] + connect_s
        start_s, for_slot, for_buffer = storage[k], 0.0, 0.0
        if slot_before[k] >= 0:
            start_s, for_slot = _soft_max(start_s, decoded[slot_before[k]], spread_s)
        whole = start_s + read_s[k]
        storage.append(whole + serial * (decode_s[k] + after_s))
        start_s, for_free = _soft_max(whole, free[k], spread_s)
        if buffers and k >= buffers:
            start_s, for_buffer = _soft_max(start_s, computed[k - buffers], spread_s)
        decoded.append(start_s + part * decode_s[k])
        free.append(decoded[k] + joint * (part * compute_s[k] + one * connect_s))
        later_s = part * course.later[k] * decode_s[k]
        start_s, for_ready = _soft_max(decoded[k], ready[k] + later_s, spread_s)
        computed.append(start_s + part * compute_s[k])
        ready.append(computed[k] + connect_s)
        waits.append((for_slot, for_free, for_buffer, for_ready))
    shares, fixed_s = np.zeros((3, count)), 0.0
    # Flow into each end; the first of each is what comes before the groups.
    stored, freed, readied = ([0.0] * (count + 1) for _ in range(3))
    decodes, computes = [0.0] * count, [0.0] * count
    readied[count] = 1.0
    for k in reversed(range(count)):
        for_slot, for_free, for_buffer, for_ready = waits[k]
        part, beside, alone = parts[k], joint * freed[k + 1], serial * stored[k + 1]
        fixed_s += course.connect_s[k] * (readied[k + 1] + one * beside + alone)
        flow = computes[k] + readied[k + 1]
        shares[2, k] = part * (flow + beside) + alone
        readied[k] += flow * for_ready
        later = flow * for_ready * part * course.later[k]
        flow = decodes[k] + freed[k + 1] + flow * (1.0 - for_ready)
        shares[1, k] = part * flow + later + alone
        if for_buffer:
            computes[k - buffers] += flow * for_buffer
            flow *= 1.0 - for_buffer
        freed[k] += flow * for_free
        flow = stored[k + 1] + flow * (1.0 - for_free)
        shares[0, k] = flow
        if for_slot:
            decodes[slot_before[k]] += flow * for_slot
        stored[k] += flow * (1.0 - for_slot)
    fixed_s += stored[0] * course.start_s + freed[0] * course.free_s + readied[0] * course.embed_s
    return _Flow(shares, fixed_s)


def _soft_max(one: float, other: float, spread_s: float) -> tuple[float, float]:
    """A smooth maximum, and how much of it the other accounts for (its derivative)."""
    late = (other - one) / spread_s
    if abs(late) > _FAR:
        return (other, 1.0) if late > 0.0 else (one, 0.0)
    share = 1.0 / (1.0 + math.exp(-late))
    return (other if late > 0.0 else one) - spread_s * math.log(max(share, 1.0 - share)), share
