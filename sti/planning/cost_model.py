"""What the steps of one run cost on one machine, and what each waits for.

The pipeline as the simulation sees it: ``run_steps`` says which step waits for which, ``RunCosts``
how long it takes. (The searches, ``beam_search`` and ``lagrange``, restate the waits as
recurrences; tests hold them equal to this.) Knows nothing of targets or of how fidelities are
chosen. In: manifest, device profile, workload, width. Out: seconds and steps. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sti.device.lanes import COMPUTE, DECODE, STORAGE
from sti.device.profile import DeviceProfile, StorageProfile
from sti.errors import ProfileError
from sti.model.fidelity import WORKING_BUFFERS
from sti.model.manifest import Manifest, SliceGroup
from sti.model.workload import Workload
from sti.planning.plan import Target
from sti.planning.timeline import Lane, TimelineStep

TEXT = "text"
"""Lane of the tokenizer, which ends before anything else can start."""
FIRST_STEPS = 3
"""Steps of ``run_steps`` before the groups: tokenizer, token embeddings, embedding."""
STEPS_PER_GROUP = 3
"""Its storage, decode and compute, in this order."""


class StepWork(NamedTuple):
    """What one step asks of the lanes, in seconds of work."""

    group: SliceGroup
    storage_s: float
    decode_s: float
    shards: int
    name: str = ""
    """Name of the step."""


@dataclass(frozen=True, slots=True)
class RunCosts:
    """Seconds of everything in a run of some width that does not depend on fidelities.

    Compute beside busy storage and decode lanes is slowed by the profile's contention; beside the
    last step and the head nothing is left to read or decode, so they run at full speed.
    """

    width: int
    """Slices of each block that are in use."""
    storage: StorageProfile
    shard_s: float
    weight_s: Mapping[int, float]
    threads: int
    tokenize_s: float
    rows_s: float
    embed_s: float
    graph_s: Mapping[str, tuple[float, float]]
    """Block kind to seconds of its graph, alone on the machine: of a call, and of each slice."""
    connect_s: float
    """Seconds of ``connect``, which follows the last group of a block."""
    contention: float
    head_s: float
    fixed_s: float

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The lanes of one machine."""
        return Lane(TEXT), Lane(STORAGE), Lane(DECODE, self.threads), Lane(COMPUTE)

    def compute_s(self, groups: Sequence[SliceGroup]) -> list[float]:
        """Seconds on the compute lane of each step of a run."""
        alone = [self._alone_s(group) for group in groups]
        return [*(seconds * self.contention for seconds in alone[:-1]), *alone[-1:]]

    def _alone_s(self, group: SliceGroup) -> float:
        used = group.used(self.width)
        call_s, slice_s = self.graph_s[group.kind]
        last = group.first + used == self.width
        return max(0.0, call_s + slice_s * used) + (self.connect_s if last else 0.0)

    def decode_s(self, group: SliceGroup, bits: Iterable[int]) -> float:
        """Seconds of work to decode shards of ``group`` at these fidelities (0: absent)."""
        return sum(self.shard_s + group.shard_weights * self.weight_s[b] for b in bits if b)


def run_costs(
    manifest: Manifest, profile: DeviceProfile, workload: Workload, width: int, *, threads: int
) -> RunCosts:
    """The costs of running ``width`` slices of the model.

    Raises:
        ProfileError: the profile lacks a graph or a fidelity of the pack.
    """
    kinds = [kind.name for kind in manifest.kinds]
    lacking = [
        name for name in ("embed", *kinds, "connect", "head") if name not in profile.compute.graphs
    ]
    if lacking:
        raise ProfileError(_misfit(profile, f"has no compute time for graph {lacking[0]!r}"))
    lacking_bits = [bits for bits in manifest.ladder if bits not in profile.decode.weight_s]
    if lacking_bits:
        raise ProfileError(_misfit(profile, f"has no decode time for {lacking_bits[0]} bits"))

    def graph_s(name: str) -> float:
        return max(0.0, profile.compute_s(name, workload, width))

    def linear_s(name: str) -> tuple[float, float]:
        call_s = profile.compute_s(name, workload, 0)
        return call_s, profile.compute_s(name, workload, 1) - call_s

    tokens = workload.batch * workload.tokens
    return RunCosts(
        width=width,
        storage=profile.storage,
        shard_s=profile.decode.shard_s,
        weight_s=profile.decode.weight_s,
        threads=threads,
        tokenize_s=profile.tokenize_s * tokens,
        rows_s=profile.storage.row_s * min(tokens, manifest.embeddings.rows),
        embed_s=graph_s("embed") * profile.contention,
        graph_s={name: linear_s(name) for name in kinds},
        connect_s=graph_s("connect"),
        contention=profile.contention,
        head_s=graph_s("head"),
        fixed_s=profile.fixed_s,
    )


def deadline_s(profile: DeviceProfile, target: Target) -> float | None:
    """How long a median run may take so that 95 of 100 runs meet the target; None: any time.

    Predictions are medians, and the profile's jitter is the 95th percentile over the median. This
    is the only place that turns one into the other.
    """
    return None if target.latency_s is None else target.latency_s / profile.jitter


def run_steps(costs: RunCosts, works: Sequence[StepWork], *, read_ahead: int) -> list[TimelineStep]:
    """The steps of a run: tokenizer, token embeddings, embedding, the work of each group, head.

    Storage may run ``read_ahead`` groups beyond the one being decoded: a ring of
    ``read_ahead + 1`` slots; groups that are preloaded whole need none. Decode has
    ``WORKING_BUFFERS`` buffers for each kind of block; one is free again when the group that was
    decoded into it is computed. Lanes keep their own order.
    """
    steps = [
        TimelineStep(TEXT, costs.tokenize_s, name="tokenize"),
        TimelineStep(STORAGE, costs.rows_s, after=(0,), name="embeddings"),
        TimelineStep(COMPUTE, costs.embed_s, after=(1,), name="embed"),
    ]
    # What frees each working buffer of a kind, oldest first.
    free: dict[str, list[tuple[int, ...]]] = {
        kind: [()] * WORKING_BUFFERS for kind in costs.graph_s
    }
    # What frees each slot, oldest first.
    slots: list[tuple[int, ...]] = [()] * (read_ahead + 1)
    compute_s = costs.compute_s([work.group for work in works])
    for index, work in enumerate(works):
        storage = len(steps)
        slot: tuple[int, ...] = ()
        if work.storage_s > 0.0:
            slot = slots.pop(0)
            slots.append((storage + 1,))
        steps.append(TimelineStep(STORAGE, work.storage_s, after=slot, name=work.name))
        buffer = free[work.group.kind].pop(0)
        steps.append(
            TimelineStep(DECODE, work.decode_s, work.shards, (storage, *buffer), work.name)
        )
        steps.append(TimelineStep(COMPUTE, compute_s[index], after=(storage + 1,), name=work.name))
        free[work.group.kind].append((storage + 2,))
    steps.append(TimelineStep(COMPUTE, costs.head_s, name="head"))
    return steps


def _misfit(profile: DeviceProfile, what: str) -> str:
    return f"device profile {profile.device!r}: {what} of the pack; run `sti calibrate` with it"
