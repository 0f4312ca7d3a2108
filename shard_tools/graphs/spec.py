"""What all graphs of a pack are made from, as it stands in the manifest.

In: sizes, an activation, an epsilon, what the head computes, or their JSON. Out: the graphs, the
same bytes for the same spec. Knows nothing of checkpoints or packs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from shard_tools.graphs.blocks import (
    ACTIVATIONS,
    ATTENTION_SIDES,
    FFN_SIDES,
    Activation,
    build_attention,
    build_connect,
    build_ffn,
)
from shard_tools.graphs.embed_head import (
    HEAD_ACTIVATIONS,
    HEAD_KINDS,
    POOLINGS,
    STEP_KINDS,
    HeadSpec,
    HeadStep,
    build_embed,
    build_head,
)
from sti.codec.weights import WeightForm
from sti.errors import PackFormatError
from sti.json_fields import JsonFields

ATTENTION, FFN = "attention", "ffn"
POST_NORM = "post_norm"
"""The only family of graphs so far."""

_FORMS: tuple[WeightForm, ...] = ("s8", "u8", "s7")
_SIDES = {ATTENTION: ATTENTION_SIDES, FFN: FFN_SIDES}


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """A post-norm encoder with an attention and an ffn block in each layer."""

    hidden: int
    head_size: int
    neurons: int
    """Of a slice."""
    activation: Activation
    epsilon: float
    head: HeadSpec
    side: Mapping[str, Collection[str]]
    """For each kind of block, the products with side inputs."""
    distances: int = 0
    """Distances that attention tells apart, each of a bias of its own; 0 for no such biases."""

    def names(self) -> list[str]:
        """The graphs, in their order."""
        found = ["embed", "connect", "head"]
        for weights in _FORMS:
            found += [f"{name}.{weights}" for name in (ATTENTION, f"{ATTENTION}_masked", FFN)]
        return found

    def build(self) -> dict[str, bytes]:
        """ONNX models by name."""
        found = {
            "embed": build_embed(hidden=self.hidden, epsilon=self.epsilon),
            "connect": build_connect(hidden=self.hidden, epsilon=self.epsilon),
            "head": build_head(hidden=self.hidden, head=self.head),
        }
        for weights in _FORMS:
            for name, masked in ((ATTENTION, False), (f"{ATTENTION}_masked", True)):
                found[f"{name}.{weights}"] = build_attention(
                    hidden=self.hidden,
                    head=self.head_size,
                    weights=weights,
                    masked=masked,
                    side=self.side[ATTENTION],
                    distances=self.distances,
                )
            found[f"{FFN}.{weights}"] = build_ffn(
                hidden=self.hidden,
                neurons=self.neurons,
                weights=weights,
                activation=self.activation,
                side=self.side[FFN],
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON values; ``from_json`` reads it back."""
        side = {kind: list(names) for kind, names in self.side.items()}
        found = {"family": POST_NORM, **asdict(self), "side": side}
        if not self.distances:
            del found["distances"]
        return found

    @classmethod
    def from_json(cls, data: object, *, where: str) -> GraphSpec:
        """The spec that ``to_json`` wrote.

        So tools make the graphs of a pack again from its manifest alone; a run takes those that are
        in the pack.

        Raises:
            PackFormatError: it is of another family, or malformed; names the field.
        """
        fields = JsonFields(data, where=f"{where}: graph_spec", error=PackFormatError)
        head, side = fields.object("head"), fields.object("side")
        found = cls(
            hidden=fields.integer("hidden", least=1),
            head_size=fields.integer("head_size", least=1),
            neurons=fields.integer("neurons", least=1),
            activation=cast("Activation", _one_of(fields, "activation", ACTIVATIONS)),
            epsilon=fields.number("epsilon", least=0.0),
            head=_head_spec(head, fields.integer("hidden", least=1)),
            side={kind: side.texts(kind) for kind in _SIDES},
            distances=fields.integer("distances", least=1) if fields.has("distances") else 0,
        )
        _one_of(fields, "family", (POST_NORM,))
        for kind, known in _SIDES.items():
            if not set(found.side[kind]) <= known:
                raise side.fail(kind, f"some of {', '.join(sorted(known))}")
        return found


def _head_spec(fields: JsonFields, hidden: int) -> HeadSpec:
    """The head; packs of earlier releases state one pooling, and whether to normalize."""
    kind: Any = _one_of(fields, "kind", HEAD_KINDS)
    if not fields.has("poolings"):
        pooling: Any = _one_of(fields, "pooling", POOLINGS)
        normal = (HeadStep("normalize", hidden),) if fields.flag("normalize") else ()
        return HeadSpec(kind, (pooling,), normal)
    poolings: Any = fields.texts("poolings")
    if not poolings or not set(poolings) <= set(POOLINGS):
        raise fields.fail("poolings", f"some of {', '.join(POOLINGS)}")
    steps = [
        HeadStep(
            kind=cast("Any", _one_of(step, "kind", STEP_KINDS)),
            size=step.integer("size", least=1),
            activation=cast("Any", _one_of(step, "activation", HEAD_ACTIVATIONS)),
        )
        for step in fields.objects("steps")
    ]
    activation: Any = _one_of(fields, "activation", HEAD_ACTIVATIONS)
    return HeadSpec(kind, poolings, tuple(steps), activation)


def _one_of(fields: JsonFields, key: str, known: Collection[str]) -> str:
    value = fields.text(key)
    if value not in known:
        raise fields.fail(key, f"one of {', '.join(known)}")
    return value
