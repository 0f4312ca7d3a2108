"""Manifests and resident tensors that fit graphs of any spec, without a pack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shard_tools.graphs.spec import ATTENTION, FFN, GraphSpec
from sti.model.manifest import BlockKind, Manifest, Operand, SideInput

SLICES, GROUPS, LABELS, TOKENS = 4, (2, 2), 5, 48


class GraphSource:
    """The graphs of a spec, as a pack would hold them; some may be replaced."""

    def __init__(
        self, spec: GraphSpec, base: Manifest, graphs: Mapping[str, bytes] | None = None
    ) -> None:
        built = spec.build() | dict(graphs or {})
        names = {name: f"graph.{name}" for name in built}
        self.tensors: dict[str, NDArray[Any]] = {
            names[name]: np.frombuffer(raw, np.uint8) for name, raw in built.items()
        }
        self.tensors |= _residents(spec)
        kinds = (_kind(spec, ATTENTION), _kind(spec, FFN))
        task = {"embedding": "embedding", "sequence": "classification", "tokens": "tagging"}
        sizes = base.dimensions._replace(
            layers=1, slices=SLICES, hidden=spec.hidden, max_tokens=TOKENS
        )
        if spec.head.kind == "embedding":
            sizes = sizes._replace(embedding=spec.head.size(spec.hidden))
        labels = () if spec.head.kind == "embedding" else ("label",) * LABELS
        self.manifest = base._replace(
            dimensions=sizes, kinds=kinds, graphs=names, task=task[spec.head.kind], labels=labels
        )

    def resident(self, name: str) -> NDArray[Any]:
        return self.tensors[name]

    def has_resident(self, name: str) -> bool:
        return name in self.tensors


def _residents(spec: GraphSpec) -> dict[str, NDArray[Any]]:
    hidden, head, neurons = spec.hidden, spec.head_size, spec.neurons
    shapes = {
        "embed.types": (2, hidden),
        "embed.gamma": (hidden,),
        "embed.beta": (hidden,),
        "head.pooler_w": (hidden, hidden),
        "head.pooler_b": (hidden,),
        "head.classifier_w": (spec.head.size(hidden), LABELS),
        "head.classifier_b": (LABELS,),
    }
    size = hidden * len(spec.head.poolings)
    for number, step in enumerate(spec.head.steps):
        shapes[f"head.step{number}_w"] = (size, step.size) if step.kind == "dense" else (size,)
        shapes[f"head.step{number}_b"] = (step.size,)
        size = step.size
    columns = {ATTENTION: head, FFN: neurons}
    for kind, sliced in ((ATTENTION, ("q", "k", "v")), (FFN, ("up",))):
        base = f"layer.0.{kind}"
        for name in sliced:
            for part in ("scale", "bias"):
                shapes[f"{base}.{name}_{part}"] = (SLICES, 1, columns[kind])
            shapes[f"{base}.{name}_w"] = (SLICES, 1, columns[kind])
        for name in ("o", "down"):
            shapes[f"{base}.{name}_scale"] = (hidden,)
            shapes[f"{base}.{name}_w"] = (1, hidden)
    found: dict[str, NDArray[Any]] = {
        name: np.zeros(shape, np.float32) for name, shape in shapes.items()
    }
    if spec.distances:
        found["layer.0.attention.position_bias"] = np.zeros((SLICES, 1, spec.distances), np.float32)
    found["embed.positions"] = np.zeros((TOKENS, hidden), np.float16)
    return found


def _kind(spec: GraphSpec, name: str) -> BlockKind:
    hidden, head, neurons = spec.hidden, spec.head_size, spec.neurons
    if name == ATTENTION:
        operands = [Operand(item, (hidden, head), "columns") for item in "qkv"]
        operands.append(Operand("o", (head, hidden), "rows"))
        sliced = ("q_scale", "k_scale", "v_scale", "q_bias", "v_bias")
        sliced += ("position_bias",) if spec.distances else ()
        outer, channels, unit, kind = "o", head, "head", "sequence"
    else:
        operands = [
            Operand("up", (hidden, neurons), "columns"),
            Operand("down", (neurons, hidden), "rows"),
        ]
        sliced = ("up_scale", "up_bias")
        outer, channels, unit, kind = "down", neurons, "neurons", "tokens"
    side = tuple(SideInput(item, channels * (item == outer)) for item in spec.side[name])
    return BlockKind(name, unit, kind, tuple(operands), sliced, (f"{outer}_scale",), side, GROUPS)
