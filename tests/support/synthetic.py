"""Manifests and device profiles made up for tests: valid, of any size, with no file behind them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random
from typing import Literal, TypedDict

import numpy as np

from sti.codec.codebook import Codebook
from sti.device.lane_profiles import ComputeProfile, DecodeProfile, RunProfile, StorageProfile
from sti.device.lanes import COMPUTE, DECODE, PIPELINED, SEQUENTIAL, STORAGE, LaneThreads
from sti.device.profile import DeviceProfile
from sti.model.manifest import (
    GROUP_ALIGNMENT,
    BlockKind,
    ContentHashes,
    Dimensions,
    EmbeddingTable,
    Manifest,
    Operand,
    Plane,
    ResidentRegion,
    SliceGroup,
    Submodel,
)

Order = Literal["random", "ranked", "slices"]
LADDER = (2, 3, 4, 6, 8)
DECODE_NS = {1: 0.15, 2: 0.2, 3: 0.3, 4: 0.4, 5: 0.8, 6: 1.1, 7: 1.2, 8: 1.2}


class Shape(TypedDict):
    """The arguments of ``make_manifest`` that tell real models apart."""

    layers: int
    slices: int
    attention_weights: int
    ffn_weights: int
    groups: tuple[int, int]


BERT_BASE = Shape(layers=12, slices=12, attention_weights=196608, ffn_weights=393216, groups=(2, 4))
MINILM = Shape(layers=6, slices=12, attention_weights=49152, ffn_weights=98304, groups=(1, 1))
MACHINES: dict[str, tuple[float, float, float]] = {
    "decode": (3e9, 2.0, 0.2),
    "storage": (1e8, 0.3, 0.2),
    "compute": (2e9, 0.1, 3.0),
    "storage and decode": (8.3e8, 1.0, 0.3),
    "all alike": (8.3e8, 1.0, 1.5),
}
"""What binds on a machine: storage in bytes per second, shares of a laptop's decode and compute."""


@cache
def _codebook(ladder: tuple[int, ...]) -> Codebook:
    """The codes as signed numbers."""
    values = {bits: np.arange(-(1 << bits - 1), 1 << bits - 1, dtype=np.int8) for bits in ladder}
    return Codebook(ladder, values)


def make_manifest(
    rng: Random,
    *,
    layers: int = 2,
    slices: int = 3,
    ladder: Sequence[int] = (2, 4, 8),
    attention_weights: int = 65536,
    ffn_weights: int = 131072,
    groups: tuple[int, int] = (1, 1),
    submodels: Sequence[tuple[int, int, float]] = (),
    orders: Order = "random",
) -> Manifest:
    """A manifest whose slice groups have random gains.

    Args:
        groups: of an attention block and of an ffn block, which share out their slices evenly.
        submodels: depth, width and loss of each beyond the full model.
        orders: of all planes but the first, which is in slice order: by falling gains, as in a
            ranked pack, at random, or in slice order too.
    """
    weights = {"attention": attention_weights, "ffn": ffn_weights}
    shares = {
        kind: slice_shares(slices, count) for kind, count in zip(weights, groups, strict=True)
    }
    found = [
        group
        for layer in range(layers)
        for kind in weights
        for group in _groups(rng, layer, kind, weights[kind], shares[kind], tuple(ladder), orders)
    ]
    kinds = tuple(
        BlockKind(
            name,
            "head",
            "tokens",
            (Operand("w", (1, 8, size // 8), "columns"),),
            (),
            (),
            (),
            shares[name],
        )
        for name, size in weights.items()
    )
    smaller = tuple(
        Submodel(depth, width, tuple(range(depth)), loss) for depth, width, loss in submodels
    )
    return Manifest(
        name="synthetic",
        architecture="bert",
        task="embedding",
        licence="Apache-2.0",
        source="none",
        generator="tests",
        dimensions=Dimensions(layers, slices, hidden=64, max_tokens=512),
        ladder=tuple(ladder),
        codebook=_codebook(tuple(ladder)).to_json(),
        tokenizer={},
        labels=(),
        graphs={name: f"graph.{name}" for name in ("embed", "connect", "head")},
        kinds=kinds,
        groups=tuple(found),
        embeddings=EmbeddingTable(rows=1000, hidden=64, group=32, row_bytes=40),
        submodels=(Submodel(layers, slices, tuple(range(layers)), 0.0), *smaller),
        resident=ResidentRegion("embed.gamma", 16384, 0),
        sha256=ContentHashes("0" * 64, "0" * 64),
        quality=None,
        rejection=None,
        graph_spec={},
        notes={},
    )


def slice_shares(slices: int, groups: int) -> tuple[int, ...]:
    """How many slices each of a block's groups has: as even as they can be."""
    return tuple(slices * (i + 1) // groups - slices * i // groups for i in range(groups))


def _groups(
    rng: Random,
    layer: int,
    kind: str,
    weights: int,
    shares: Sequence[int],
    ladder: tuple[int, ...],
    orders: Order,
) -> list[SliceGroup]:
    found: list[SliceGroup] = []
    first = start = 0
    for number, slices in enumerate(shares):
        planes = []
        for level, bits in enumerate(ladder):
            step = bits - ladder[level - 1] if level else bits
            scale = 4.0 ** -ladder[level - 1] if level else 1.0
            gains = tuple(scale * rng.lognormvariate(0.0, 1.0) for _ in range(slices))
            order = list(range(slices))
            if level and orders == "ranked":
                order.sort(key=lambda index, gains=gains: -gains[index])
            elif level and orders == "random":
                rng.shuffle(order)
            checksums = (0,) * slices
            planes.append(Plane(bits, max(1, weights * step // 8), tuple(order), checksums, gains))
        outliers = tuple(4 * rng.randrange(weights // 256 + 1) for _ in range(slices))
        length = sum(outliers) + slices * sum(plane.shard_bytes for plane in planes)
        found.append(
            SliceGroup(
                layer=layer,
                kind=kind,
                number=number,
                first=first,
                start=start,
                length=length,
                shard_weights=weights,
                outlier_bytes=outliers,
                outlier_checksums=(0,) * slices,
                planes=tuple(planes),
            )
        )
        first += slices
        start += -(-length // GROUP_ALIGNMENT) * GROUP_ALIGNMENT
    return found


def make_profile(
    rng: Random | None = None,
    *,
    ladder: Sequence[int] = LADDER,
    kinds: Sequence[LaneThreads] = (PIPELINED,),
    contention: float = 1.1,
    jitter: float = 1.15,
    bytes_per_s: float = 1.2e9,
    narrow: float | None = None,
) -> DeviceProfile:
    """The profile of a laptop's core on BERT-base shapes, or with ``rng`` something near it.

    Args:
        kinds: threads that runs were measured with; all of them sharing as many compute threads.
        narrow: seconds of narrow products as a share of those of exact ones; None for none.
    """

    def near(value: float, *, spread: float = 1.0) -> float:
        return value * rng.lognormvariate(0.0, spread) if rng else value

    storage = StorageProfile(True, near(6e-5), near(bytes_per_s), near(2e-6))
    decode = DecodeProfile(
        near(5e-6), {bits: near(DECODE_NS[bits] * 1e-9, spread=0.3) for bits in ladder}
    )
    graphs: dict[str, tuple[float, ...]] = {
        "embed": (2e-5, 0.0, 1e-6, 0.0, 0.0),
        "attention": (2e-5, 1e-6, 1e-7, near(6e-7), 1e-9),
        "ffn": (2e-5, 1e-6, 1e-7, near(1.2e-6), 0.0),
        "connect": (1e-5, 0.0, 4e-7, 0.0, 0.0),
        "head": (5e-5, 0.0, 1e-7, 0.0, 0.0),
    }
    if narrow is not None:
        for kind in ("attention", "ffn"):
            graphs[f"{kind}.narrow"] = tuple(narrow * cost for cost in graphs[kind])
    return DeviceProfile(
        device="made up",
        threads=max(threads.compute for threads in kinds),
        lanes={
            STORAGE: storage,
            DECODE: decode,
            COMPUTE: ComputeProfile(graphs),
        },
        tokenize_s=1e-6,
        runs={
            threads.name: RunProfile(
                contention={
                    STORAGE: 1.0,
                    DECODE: 1.0,
                    COMPUTE: 1.0 if threads == SEQUENTIAL else contention,
                },
                step_s=0.0,
                fixed_s=3e-4,
                jitter=jitter,
            )
            for threads in kinds
        },
    )


def make_machine(name: str, kinds: Sequence[LaneThreads] = (PIPELINED,)) -> DeviceProfile:
    """The profile of one of ``MACHINES``, with runs under these threads."""
    bytes_per_s, decode, compute = MACHINES[name]
    laptop = make_profile(bytes_per_s=bytes_per_s, jitter=1.0, kinds=kinds)
    weight_s = {bits: decode * cost for bits, cost in laptop.decode.weight_s.items()}
    graphs = {
        graph: (compute * a, compute * b, compute * c, compute * d, compute * e)
        for graph, (a, b, c, d, e) in laptop.compute.graphs.items()
    }
    return laptop.with_lanes(
        {
            DECODE: DecodeProfile(decode * laptop.decode.shard_s, weight_s),
            COMPUTE: ComputeProfile(graphs),
        }
    )


def with_equal_gains(manifest: Manifest) -> Manifest:
    """The manifest of a pack whose importance was not measured: all planes of a fidelity alike."""
    groups = []
    for group in manifest.groups:
        planes = (
            plane._replace(gains=tuple(4.0**-plane.bits for _ in plane.gains))
            for plane in group.planes
        )
        groups.append(group._replace(planes=tuple(planes)))
    return manifest._replace(groups=tuple(groups))
