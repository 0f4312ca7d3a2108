"""What the steps of one run cost on one machine, and what each waits for.

The pipeline as the simulation sees it: ``run_steps`` says which step waits for which, ``RunCosts``
how long it takes. (The searches, ``beam_search`` and ``lagrange``, restate the waits as
recurrences; tests hold them equal to this.) Knows nothing of targets or of how fidelities are
chosen. In: manifest, device profile, workload, width. Out: seconds and steps. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sti.device.lanes import COMPUTE, DECODE, STORAGE
from sti.device.profile import DeviceProfile, StorageProfile
from sti.errors import ProfileError
from sti.model.fidelity import working_buffers
from sti.model.manifest import Block, Manifest
from sti.model.workload import Workload
from sti.planning.plan import Target
from sti.planning.timeline import Lane, TimelineStep

TEXT = "text"
"""Lane of the tokenizer, which ends before anything else can start."""
FIRST_STEPS = 3
"""Steps of ``run_steps`` before the blocks: tokenizer, token embeddings, embedding."""
STEPS_PER_BLOCK = 3
"""Storage, decode, compute, in this order."""


@dataclass(frozen=True, slots=True)
class BlockWork:
    """What one block asks of the lanes, in seconds of work."""

    kind: str
    storage_s: float
    decode_s: float
    shards: int
    name: str = ""
    """Name of the step."""


@dataclass(frozen=True, slots=True)
class RunCosts:
    """Seconds of everything in a run that does not depend on fidelities, and its working buffers.

    Compute beside busy storage and decode lanes is slowed by the profile's contention; beside the
    last block and the head nothing is left to read or decode, so they run at full speed.
    """

    storage: StorageProfile
    shard_s: float
    weight_s: Mapping[int, float]
    threads: int
    tokenize_s: float
    rows_s: float
    embed_s: float
    block_s: Mapping[str, float]
    """Block kind to seconds of its graph and ``connect``, alone on the machine."""
    contention: float
    head_s: float
    fixed_s: float
    buffers: Mapping[str, int]
    """Block kind to its working buffers (``sti.model.fidelity.working_buffers``)."""

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The lanes of one machine."""
        return Lane(TEXT), Lane(STORAGE), Lane(DECODE, self.threads), Lane(COMPUTE)

    def compute_s(self, kinds: Sequence[str]) -> list[float]:
        """Seconds on the compute lane of each block of a run."""
        slow = [self.block_s[kind] * self.contention for kind in kinds[:-1]]
        return [*slow, *(self.block_s[kind] for kind in kinds[-1:])]

    def decode_s(self, block: Block, bits: Iterable[int]) -> float:
        """Seconds of work to decode shards of ``block`` at these fidelities (0: absent)."""
        return sum(self.shard_s + block.shard_weights * self.weight_s[b] for b in bits if b)


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

    tokens = workload.batch * workload.tokens
    connect_s = graph_s("connect")
    return RunCosts(
        storage=profile.storage,
        shard_s=profile.decode.shard_s,
        weight_s=profile.decode.weight_s,
        threads=threads,
        tokenize_s=profile.tokenize_s * tokens,
        rows_s=profile.storage.row_s * min(tokens, manifest.embeddings.rows),
        embed_s=graph_s("embed") * profile.contention,
        block_s={name: graph_s(name) + connect_s for name in kinds},
        contention=profile.contention,
        head_s=graph_s("head"),
        fixed_s=profile.fixed_s,
        buffers=working_buffers(manifest),
    )


def deadline_s(profile: DeviceProfile, target: Target) -> float | None:
    """How long a median run may take so that 95 of 100 runs meet the target; None: any time.

    Predictions are medians, and the profile's jitter is the 95th percentile over the median. This
    is the only place that turns one into the other.
    """
    return None if target.latency_s is None else target.latency_s / profile.jitter


def run_steps(
    costs: RunCosts, works: Sequence[BlockWork], *, read_ahead: int
) -> list[TimelineStep]:
    """The steps of a run: tokenizer, token embeddings, embedding, three a block, head.

    Storage may run ``read_ahead`` blocks beyond the one being decoded: a ring of
    ``read_ahead + 1`` slots; blocks that are preloaded whole need none. Decode has
    ``costs.buffers`` working buffers for each block kind; one is free again when the block that
    was decoded into it is computed. Lanes keep their own order.
    """
    steps = [
        TimelineStep(TEXT, costs.tokenize_s, name="tokenize"),
        TimelineStep(STORAGE, costs.rows_s, after=(0,), name="embeddings"),
        TimelineStep(COMPUTE, costs.embed_s, after=(1,), name="embed"),
    ]
    # What frees each working buffer of a kind, oldest first.
    free: dict[str, list[tuple[int, ...]]] = {
        kind: [()] * count for kind, count in costs.buffers.items()
    }
    # What frees each slot, oldest first.
    slots: list[tuple[int, ...]] = [()] * (read_ahead + 1)
    compute_s = costs.compute_s([work.kind for work in works])
    for index, work in enumerate(works):
        storage = len(steps)
        slot: tuple[int, ...] = ()
        if work.storage_s > 0.0:
            slot = slots.pop(0)
            slots.append((storage + 1,))
        steps.append(TimelineStep(STORAGE, work.storage_s, after=slot, name=work.name))
        buffer = free[work.kind].pop(0)
        steps.append(
            TimelineStep(DECODE, work.decode_s, work.shards, (storage, *buffer), work.name)
        )
        steps.append(TimelineStep(COMPUTE, compute_s[index], after=(storage + 1,), name=work.name))
        free[work.kind].append((storage + 2,))
    steps.append(TimelineStep(COMPUTE, costs.head_s, name="head"))
    return steps


def _misfit(profile: DeviceProfile, what: str) -> str:
    return f"device profile {profile.device!r}: {what} of the pack; run `sti calibrate` with it"
