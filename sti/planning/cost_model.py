"""What the steps of one run cost on one machine, and what each waits for.

A run as the simulation sees it: ``run_steps`` says which step waits for which, under each kind of
``LaneThreads``; ``RunCosts`` how long it takes. (The searches, ``beam_search`` and ``lagrange``,
restate the waits as recurrences; tests hold them equal to this.) Knows nothing of targets or of how
fidelities are chosen. In: manifest, device profile, workload, width, threads. Out: seconds and
steps. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sti.device.lanes import COMPUTE, DECODE, STORAGE, LaneThreads
from sti.device.profile import DeviceProfile
from sti.errors import ProfileError
from sti.model.fidelity import groups_in_use
from sti.model.manifest import Manifest, SliceGroup
from sti.model.workload import Workload
from sti.planning.lane_threads import shares_of
from sti.planning.normal import normal_quantile
from sti.planning.plan import DEFAULT_QUANTILE, EXACT, Target, connect_name
from sti.planning.timeline import TimelineStep
from sti.planning.variants import graph_name, variants_of

TEXT = "text"
"""Lane of the tokenizer, which ends before anything else can start."""
FIRST_STEPS = 3
"""Steps of ``run_steps`` before the groups: tokenizer, token embeddings, embedding."""


class StepWork(NamedTuple):
    """What one step asks of the lanes, in seconds: of decode and compute, each of its shares."""

    group: SliceGroup
    storage_s: float
    decode_s: float
    compute_s: float
    name: str = ""
    """Name of the step."""


@dataclass(frozen=True, slots=True)
class RunCosts:
    """Seconds of everything in a run of some width, under some threads, but for fidelities.

    What such runs add to the times of lanes alone (``sti.device.profile.RunProfile``) is part of
    them; only the head, beside which nothing is left to do, takes what it takes alone.
    """

    width: int
    """Slices of each block that are in use."""
    threads: LaneThreads
    share_counts: Mapping[str, int]
    """Block kind to the shares into which threads divide its steps, each its own."""
    request_s: float
    bytes_per_s: float
    shard_s: float
    weight_s: Mapping[int, float]
    tokenize_s: float
    rows_s: float
    embed_s: float
    graph_s: Mapping[str, Mapping[str, tuple[float, float]]]
    """Block kind and variant to seconds of its graph: of a call, and of each slice; each of the
    shares of a step takes as long."""
    variants: Sequence[str]
    """How products may be computed: the keys of each entry of ``graph_s``."""
    connect_s: float
    """Seconds of ``connect``, which follows the steps of a block."""
    head_s: float
    fixed_s: float

    def read_s(self, requests: int, read_bytes: int) -> float:
        """Seconds to read ``read_bytes`` in ``requests`` requests."""
        return requests * self.request_s + read_bytes / self.bytes_per_s

    def decode_s(self, group: SliceGroup, shards: Mapping[int, int]) -> float:
        """Seconds to decode so many shards of ``group`` at each fidelity, of the largest share."""
        seconds = 0.0
        for bits, count in shards.items():
            seconds += count * (self.shard_s + group.shard_weights * self.weight_s[bits])
        return seconds * self.largest_share(group)

    def largest_share(self, group: SliceGroup) -> float:
        """The largest share of a group's decoding, which is divided by shards."""
        used, shares = group.used(self.width), self.share_counts[group.kind]
        return -(-used // shares) / used

    def compute_s(self, group: SliceGroup, variant: str) -> float:
        """Seconds to compute a share of a group, without ``connect``.

        A machine that was not measured with a variant computes it as it does exact products.
        """
        by = self.graph_s[group.kind]
        call_s, slice_s = by.get(variant, by[EXACT])
        return max(0.0, call_s + slice_s * group.used(self.width))

    def ends_block(self, group: SliceGroup) -> bool:
        """Whether a group is the last of its block that is run."""
        return group.first + group.used(self.width) == self.width


def run_costs(
    manifest: Manifest,
    profile: DeviceProfile,
    workload: Workload,
    width: int,
    *,
    threads: LaneThreads,
) -> RunCosts:
    """The costs of running ``width`` slices of the model.

    Raises:
        ProfileError: the profile lacks a graph or a fidelity of the pack, or such runs.
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
    run, variants = profile.run(threads), variants_of(manifest, profile)
    storage, decode, compute = (run.contention[lane] for lane in (STORAGE, DECODE, COMPUTE))

    def graph_s(name: str) -> float:
        return max(0.0, profile.compute_s(name, workload, width))

    shares = {
        kind.name: shares_of(groups_in_use(kind.groups, width), threads.compute)
        for kind in manifest.kinds
    }

    def linear_s(kind: str, variant: str) -> tuple[float, float]:
        name = graph_name(kind, variant)
        first, last = shares[kind][0].tokens(workload.tokens)
        part = compute * (last - first) / workload.tokens
        call_s = profile.compute_s(name, workload, 0)
        slice_s = profile.compute_s(name, workload, 1) - call_s
        return part * call_s + run.step_s, part * slice_s

    tokens = workload.batch * workload.tokens
    return RunCosts(
        width=width,
        threads=threads,
        share_counts={kind: len(found) for kind, found in shares.items()},
        request_s=storage * profile.storage.request_s,
        bytes_per_s=profile.storage.bytes_per_s / storage,
        shard_s=decode * profile.decode.shard_s,
        weight_s={bits: decode * cost for bits, cost in profile.decode.weight_s.items()},
        tokenize_s=profile.tokenize_s * tokens,
        rows_s=profile.storage.row_s * min(tokens, manifest.embeddings.rows),
        embed_s=compute * graph_s("embed"),
        graph_s={
            kind: {variant: linear_s(kind, variant) for variant in variants} for kind in kinds
        },
        variants=variants,
        connect_s=compute * graph_s("connect"),
        head_s=graph_s("head"),
        fixed_s=run.fixed_s,
    )


def spread(profile: DeviceProfile, quantile: float, threads: str) -> float:
    """What that share of runs take at most, over what they take in the median; at least 1.

    ``threads`` is the name of a kind that was measured.

    The profile's jitter is stated for ``DEFAULT_QUANTILE``; other quantiles follow from it as they
    do for times whose logarithm is normal.
    """
    share = normal_quantile(quantile) / normal_quantile(DEFAULT_QUANTILE)
    return float(profile.runs[threads].jitter ** max(0.0, share))


def deadline_s(profile: DeviceProfile, target: Target, threads: LaneThreads) -> float | None:
    """How long a median run may take so that the target is met; None: any time.

    Predictions are medians. Only this and ``promised_s`` turn one into the other.
    """
    if target.latency_s is None:
        return None
    return target.latency_s / spread(profile, target.quantile, threads.name)


def promised_s(
    profile: DeviceProfile,
    total_s: float,
    threads: LaneThreads,
    *,
    quantile: float = DEFAULT_QUANTILE,
) -> float:
    """Seconds within which that share of runs end that take ``total_s`` in the median."""
    return total_s * spread(profile, quantile, threads.name)


def run_steps(costs: RunCosts, works: Sequence[StepWork], *, read_ahead: int) -> list[TimelineStep]:
    """The steps of a run: tokenizer, token embeddings, embedding, the work of each group and what
    connects each block, head.

    Thread 0 is the caller's; others are threads that share compute, then those of the decode and
    storage lanes, where there are any. Storage may run ``read_ahead`` groups beyond the one being
    decoded: a ring of ``read_ahead + 1`` slots, given back in the order of the groups; groups that
    are preloaded whole need none. A decode thread of its own decodes into the working buffers in
    turn; one is free again when the group that was decoded into it is computed. Threads that share
    compute take the groups in order, each the next one when it is free, and have a buffer each.
    Where a block has fewer groups than there are threads, they take shares of groups: all of them
    are decoded before any is computed.
    """
    threads = costs.threads
    computing = tuple(range(threads.compute))
    decoding = (threads.compute,) if threads.decode else computing
    storing = (threads.compute + threads.decode,) if threads.storage else computing
    steps = [
        TimelineStep(TEXT, costs.tokenize_s, (0,), name="tokenize"),
        TimelineStep(STORAGE, costs.rows_s, storing, after=(0,), name="embeddings"),
        TimelineStep(COMPUTE, costs.embed_s, (0,), after=(1,), name="embed"),
    ]
    ready = len(steps) - 1  # what the groups of a block wait for
    block: list[int] = []
    # What frees each buffer of a decode thread of its own, and each slot, oldest first.
    buffers: list[tuple[int, ...]] = [()] * threads.buffers
    slots: list[tuple[int, ...]] = [()] * (read_ahead + 1)
    decoded: list[int] = []  # since the group that has taken the last slot
    for work in works:
        storage, shares = len(steps), costs.share_counts[work.group.kind]
        decodes = tuple(range(storage + 1, storage + 1 + shares))
        computes = tuple(range(storage + 1 + shares, storage + 1 + 2 * shares))
        decoded += decodes
        slot: tuple[int, ...] = ()
        if work.storage_s > 0.0:
            slot = slots.pop(0)
            slots.append(tuple(decoded))
            decoded = []
        steps.append(TimelineStep(STORAGE, work.storage_s, storing, after=slot, name=work.name))
        needed: tuple[int, ...] = (storage,)
        if threads.decode:
            needed = (storage, *buffers.pop(0))
            buffers.append(computes)
        for share in range(shares):
            apart = decodes[:share]
            step = TimelineStep(DECODE, work.decode_s, decoding, apart, (), needed, work.name)
            steps.append(step)
        for decode in decodes:
            # Whoever decodes a share computes it, unless only one thread computes.
            own = () if threads.decode else (decode,)
            needed = (*decodes, ready)
            step = TimelineStep(COMPUTE, work.compute_s, computing, (), own, needed, work.name)
            steps.append(step)
        block += computes
        if costs.ends_block(work.group):
            ready = len(steps)
            name = connect_name(work.group.layer, work.group.kind)
            steps.append(TimelineStep(COMPUTE, costs.connect_s, joins=tuple(block), name=name))
            block = []
    steps.append(TimelineStep(COMPUTE, costs.head_s, (0,), after=(ready,), name="head"))
    return steps


def _misfit(profile: DeviceProfile, what: str) -> str:
    return f"device profile {profile.device!r}: {what} of the pack; run `sti calibrate` with it"
