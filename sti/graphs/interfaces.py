"""What the graphs of a pack are fed and answer, as its manifest says.

In: a manifest and resident tensors. Out: for each graph that there must be an ``Interface``: its
inputs, its outputs, and what sizes within it are measured by. Extents are those of the largest
groups of slices, and polynomials of texts and tokens (``sti.graphs.polynomials``). Knows nothing of
ONNX.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sti.graphs.polynomials import TEXTS, TOKENS
from sti.graphs.shapes import Shape
from sti.graphs.strict_message import Refused
from sti.model.manifest import COLUMNS, DISTANCES, BlockKind, Manifest

FORMS = {"s8": "I8", "u8": "U8", "s7": "I8"}
"""The element type of operands, by how weights are written."""

MASKED = "_masked"
"""What ends the names of graphs for groups with padding, before the form."""

_NAMES = {
    np.dtype("<f4"): "F32",
    np.dtype("<f2"): "F16",
    np.dtype("<i8"): "I64",
    np.dtype("u1"): "U8",
}
SEQUENCE = "sequence"
_OWN_TOKENS = TOKENS + 1
"""As many as there are, yet told apart from them."""
_POSITIONS = "embed.positions"
PLACES = TOKENS * 1021
"""Rows of the position table: as many as a text may have tokens, so graphs must cut them to the
tokens that there are before anything else is done with them. Told apart from other extents.
"""
EMBED = "embed"
"""The graph that makes hidden states of token embeddings."""
_EMBED_OWN = ("positions", "types", "gamma", "beta")
MOST_STEPS = 8
"""Steps between a head's pooling and its answer."""
STEP_PARTS = tuple(f"step{number}_{part}" for number in range(MOST_STEPS) for part in "wb")
"""What a head is fed of them: weights and bias of a dense layer, gamma and beta of a norm."""
_HEAD = ("pooler_w", "pooler_b", *STEP_PARTS, "classifier_w", "classifier_b")


class Tensor(NamedTuple):
    """What an input or output must be."""

    element: str
    shape: Shape


class Residents(Protocol):
    """A pack's manifest and resident tensors."""

    @property
    def manifest(self) -> Manifest:
        """What the pack says about itself."""

    def resident(self, name: str) -> NDArray[Any]:
        """A resident tensor."""

    def has_resident(self, name: str) -> bool:
        """Whether there is one of this name."""


class Interface(NamedTuple):
    """What a graph must be like."""

    inputs: Mapping[str, Tensor]
    required: Collection[str]
    """Inputs that it must have."""
    own: Mapping[str, str]
    """Further inputs that it may have, and the resident tensors that they are."""
    outputs: Mapping[str, Tensor]
    """In their order."""
    width: int
    """Numbers that a token is, at most: hidden ones and channels or labels."""
    heads: int
    """For how many it compares all pairs of tokens."""


def graph_name(kind: BlockKind, form: str, *, masked: bool) -> str:
    """The name of a kind's graph, for weights of a form, and for groups with padding or not."""
    return f"{kind.name}{MASKED if masked else ''}.{form}"


def graph_names(manifest: Manifest) -> list[str]:
    """The names of all graphs that a pack has."""
    names = [EMBED, "connect", "head"]
    for kind in manifest.kinds:
        both = (False, True) if kind.input_kind == SEQUENCE else (False,)
        names += [graph_name(kind, form, masked=masked) for form in FORMS for masked in both]
    return names


def unfed(manifest: Manifest) -> Collection[str]:
    """The names of graphs that a part of a pack brings along, and lacks the residents for."""
    return () if manifest.holds_words else (EMBED,)


def interfaces(source: Residents) -> Iterator[tuple[str, Interface]]:
    """The graphs that a pack must have, by name; those that are ``unfed`` are none of them.

    Raises:
        Refused: a resident tensor is missing, or of another type than inputs of graphs.
        PackFormatError: the pack was closed.
    """
    hidden = source.manifest.dimensions.hidden
    h = Tensor("F32", (TOKENS, TEXTS, hidden))
    states = {
        "h": h,
        "xq": Tensor("U8", h.shape),
        "xs": Tensor("F32", (TOKENS, TEXTS, 1)),
    }
    words = {
        "words": Tensor("F32", (TEXTS, TOKENS, hidden)),
        "type_ids": Tensor("I64", (TEXTS, TOKENS)),
    }
    if not unfed(source.manifest):
        yield EMBED, Interface(words, words, _own(EMBED, _EMBED_OWN), states, 2 * hidden, 0)
    sums = {"partial": h, "residual": h}
    sums |= dict.fromkeys(("bias", "gamma", "beta"), Tensor("F32", (hidden,)))
    yield "connect", Interface(sums, sums, {}, states, 2 * hidden, 0)
    yield "head", _head(source.manifest, h)
    for kind in source.manifest.kinds:
        inputs, heads = _kind_inputs(source, kind), 0
        optional = {"h": h}
        tokens, masks = TOKENS, {}
        if kind.input_kind == SEQUENCE:
            tokens = _OWN_TOKENS
            for name, state in states.items():
                own = Tensor(state.element, (tokens, *state.shape[1:]))
                (optional if name == "h" else inputs)[f"own_{name}"] = own
            masks = {"mask": Tensor("F32", (TEXTS, 1, 1, TOKENS))}
            if kind.by_distance:
                inputs[DISTANCES] = Tensor("I64", (tokens, TOKENS))
            heads = _slices(kind) * max(prod(operand.shape[:-2]) for operand in kind.operands)
        inputs |= {name: states[name] for name in ("xq", "xs")}
        outputs = {"partial": Tensor("F32", (tokens, TEXTS, hidden))}
        for form, element in FORMS.items():
            matrices = {
                item.name: Tensor(element, _joined(kind, item.shape, item.joined))
                for item in kind.operands
            }
            width = hidden + max(max(matrix.shape) for matrix in matrices.values())
            for masked in ((), masks) if masks else ((),):
                required = {**inputs, **matrices, **dict(masked)}
                name = graph_name(kind, form, masked=bool(masked))
                known = required | optional
                yield name, Interface(known, required, {}, outputs, width, heads)


def _head(manifest: Manifest, h: Tensor) -> Interface:
    hidden, labels = manifest.dimensions.hidden, len(manifest.labels)
    if manifest.task == "embedding":
        outputs = {"embedding": Tensor("F32", (TEXTS, manifest.embedding_size))}
    elif manifest.task == "tagging":
        outputs = {"logits": Tensor("F32", (TEXTS, TOKENS, labels))}
    else:
        outputs = {"logits": Tensor("F32", (TEXTS, labels))}
    inputs = {"h": h, "tokens": Tensor("F32", (TEXTS, TOKENS))}
    own = _own("head", _HEAD)
    width = hidden + max(hidden, labels, manifest.embedding_size)
    return Interface(inputs, ("h",), own, outputs, width, 0)


def _own(graph: str, inputs: Collection[str]) -> Mapping[str, str]:
    return {name: f"{graph}.{name}" for name in inputs}


def _slices(kind: BlockKind) -> int:
    """Slices of the largest group, and one more: so channels are told from hidden numbers."""
    return max(kind.groups) + 1


def _joined(kind: BlockKind, shape: Shape, joined: str) -> Shape:
    """The matrix of all slices of an operand."""
    *units, rows, columns = shape
    count = prod(units) * _slices(kind)
    return (rows, columns * count) if joined == COLUMNS else (rows * count, columns)


def _kind_inputs(source: Residents, kind: BlockKind) -> dict[str, Tensor]:
    """What a kind's graphs are fed of the resident tensors of a layer, the first that is there."""
    slices, hidden = source.manifest.dimensions.slices, source.manifest.dimensions.hidden
    base = f"layer.{source.manifest.held_layers.start}.{kind.name}."
    found = {}
    for name in kind.sliced:
        element, shape = stored(source, base + name)
        found[name] = Tensor(element, (prod(shape) // slices * _slices(kind),))
    for name in kind.shared:
        found[name] = stored(source, base + name)
    for number, side in enumerate(kind.side, 1):
        element, shape = stored(source, f"{base}{side.name}_w")
        within = side.channels_per_slice * _slices(kind) or hidden
        # As many channels as there are at most, and told apart from those of other products.
        channels = within + number
        units = (shape[0] // slices * _slices(kind),) if len(shape) == 3 else ()
        found[f"{side.name}_idx"] = Tensor("I64", (channels,))
        found[f"{side.name}_w"] = Tensor(element, (*units, channels, *shape[-1:]))
    return found


def stored(source: Residents, name: str) -> Tensor:
    """The type and shape of a resident tensor.

    Raises:
        Refused: there is none, or it is of a type that inputs of graphs do not have, or
            of other rows than there are places.
    """
    if not source.has_resident(name):
        raise Refused(f"needs the resident tensor {name!r}, which is missing")
    array = source.resident(name)
    element = _NAMES.get(array.dtype)
    if element is None:
        raise Refused(f"needs the resident tensor {name!r}, which is of type {array.dtype.name}")
    if name == _POSITIONS:
        if array.shape[:1] != (source.manifest.dimensions.max_tokens,):
            raise Refused(f"needs the resident tensor {name!r} with a row for each place")
        return Tensor(element, (PLACES, *array.shape[1:]))
    return Tensor(element, array.shape)
