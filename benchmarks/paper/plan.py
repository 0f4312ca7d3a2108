"""The planner of the STI paper: which layers, at which fidelities, and what is kept beforehand.

In: an index, what this machine was measured to do, a latency, bytes to keep. Out: a ``Plan``. Pure.

First compute: as many layers as can be computed in time, at full width. Then IO, under accumulated
budgets: the budget of a layer is the time until it has to start, less the reading of all shards up
to it; a plan is valid while no budget is negative. The highest fidelity that is valid for all
shards comes first, then single shards are raised, the important ones first. What the target leaves
besides compute belongs to the budgets from the start, and so does the reading that is saved by
shards kept from the run before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.paper.format import Index, Shard


@dataclass(frozen=True, slots=True)
class Profile:
    """What a machine was measured to do, in seconds."""

    request_s: float
    """Of each read."""
    byte_s: float
    layer_s: float
    """Computing a layer."""
    shard_s: Mapping[int, float]
    """Decompressing a shard, by its bits."""
    around_s: float
    """Before the first layer and behind the last."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run."""

    layers: tuple[int, ...]
    """Of the model, in the order of execution."""
    bits: tuple[tuple[int, ...], ...]
    """Of each planned layer's slices."""
    kept: int
    """So many shards, in the order of execution, stay in memory between runs."""

    def shards(self, index: Index) -> list[list[Shard]]:
        """The copies that are used, by planned layer and slice."""
        return [
            [index.shards[layer][bits][number] for number, bits in enumerate(row)]
            for layer, row in zip(self.layers, self.bits, strict=True)
        ]


def uniform(index: Index, bits: int, preload: int) -> Plan:
    """The whole model at one fidelity.

    Raises:
        ValueError: the model does not have it.
    """
    if bits not in index.bits:
        raise ValueError(f"bits {bits}: the model has {', '.join(map(str, index.bits))}")
    rows = ((bits,) * index.sizes.slices,) * index.sizes.layers
    return _planned(index, range(index.sizes.layers), rows, preload)


def plan(
    index: Index,
    profile: Profile,
    *,
    latency: float,
    preload: int,
    least_layers: int = 1,
    importance: Sequence[Sequence[float]] | None = None,
) -> Plan:
    """The plan for a target.

    Args:
        index: of the model.
        profile: of the machine.
        latency: seconds.
        preload: bytes that may stay in memory.
        least_layers: so many are run, in time or not.
        importance: of each layer's slices; None: all alike, so that earlier ones come first.

    Where even the fewest bits come too late, that is the plan: the run is late by a stall.
    """
    sizes = index.sizes
    layers = _computable(index, profile, latency, least_layers)
    rows: list[list[int]] = []

    def valid() -> bool:
        planned = _planned(index, layers, rows, preload)
        return min(budgets(index, profile, planned, latency)) >= 0.0

    for bits in reversed(index.bits):
        rows = [[bits] * sizes.slices for _ in layers]
        if valid():
            break
    order = [(line, number) for line in range(len(layers)) for number in range(sizes.slices)]
    if importance is not None:
        order.sort(key=lambda place: -importance[layers[place[0]]][place[1]])
    for line, number in order:
        start = rows[line][number]
        for bits in reversed(index.bits):
            rows[line][number] = bits
            if bits == start or valid():
                break
    return _planned(index, layers, rows, preload)


def budgets(index: Index, profile: Profile, planned: Plan, latency: float) -> list[float]:
    """The accumulated IO budget of each planned layer, in seconds."""
    left = latency - profile.around_s
    starts: list[float] = []
    for row in reversed(planned.bits):
        left -= _busy(profile, row)
        starts.append(left)
    found, reading, kept = [], 0.0, planned.kept
    for start, row, shards in zip(
        reversed(starts), planned.bits, planned.shards(index), strict=True
    ):
        skipped = min(kept, len(row))
        kept -= skipped
        # Copies of one fidelity lie side by side: one read.
        edges = sum(one != two for one, two in zip(row[skipped:], row[skipped + 1 :], strict=False))
        if skipped < len(row):
            reading += (edges + 1) * profile.request_s
        reading += sum(shard.length for shard in shards[skipped:]) * profile.byte_s
        found.append(start - reading)
    return found


def _computable(
    index: Index, profile: Profile, latency: float, least_layers: int
) -> tuple[int, ...]:
    """The layers to run: as many as are computed in time, evenly spread."""
    total = index.sizes.layers
    each = _busy(profile, [index.bits[0]] * index.sizes.slices)
    count = min(total, max(1, least_layers, int((latency - profile.around_s) / each)))
    return tuple(number * total // count for number in range(count))


def _busy(profile: Profile, row: Sequence[int]) -> float:
    """Seconds a layer's bits keep the caller's thread busy."""
    return profile.layer_s + sum(profile.shard_s[bits] for bits in row)


def _planned(
    index: Index, layers: Sequence[int], rows: Sequence[Sequence[int]], preload: int
) -> Plan:
    """A plan that keeps leading shards within ``preload`` bytes."""
    planned = Plan(tuple(layers), tuple(map(tuple, rows)), 0)
    kept = used = 0
    for shard in (shard for row in planned.shards(index) for shard in row):
        used += shard.length
        if used > preload:
            break
        kept += 1
    return Plan(planned.layers, planned.bits, kept)
