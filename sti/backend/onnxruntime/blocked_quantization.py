"""Quantizing tokens where they lie: six nodes of a pack's graphs become two.

In: the nodes of a graph, how many channels each product has. Out: nodes that compute the same, to
the bit. Up to operator set 20, quantizing every token with a scale of its own took one row a token,
made with ``Flatten`` and undone with ``Reshape``; ``QuantizeLinear`` of 21 takes blocks of channels
instead, in about half the time. Knows nothing of blocks or slice groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sti.backend.onnxruntime.onnx_model import Node, numbers_of, operator_of, plain_node

OPERATORS, FORMAT = 21, 10
"""Versions of the operators and of the format that have blocks."""
PRODUCT = "MatMulIntegerToFloat"
"""The operator of integer products."""

_BY_ROWS = ("Reshape", "QuantizeLinear", "Flatten", "QuantizeLinear", "Shape", "Reshape")
"""The operators that quantize ``[S, B, n]`` by tokens with their ``[S, B, 1]`` scales."""
_TOKENS, _CHANNELS = 0, 2
"""Axes."""


def with_blocks(
    nodes: Sequence[Node], channels: Mapping[str, int], hidden: int
) -> tuple[Node, ...]:
    """The same nodes, those that quantize by rows replaced.

    Args:
        channels: of a product's input, by the name of its matrix.
        hidden: channels of what no such product takes.
    """
    found: list[Node] = []
    place = 0
    while place < len(nodes):
        window = nodes[place : place + len(_BY_ROWS)]
        if _quantizes_by_rows(window, nodes):
            _, zeros, rows, _, _, result = window
            scale = window[0].inputs[0]
            size = _channels_of(result.outputs[0], nodes, channels, hidden)
            inputs = (rows.inputs[0], scale, zeros.outputs[0])
            found += (
                zeros._replace(inputs=(scale, *zeros.inputs[1:])),
                plain_node(
                    result.name,
                    "QuantizeLinear",
                    inputs,
                    *result.outputs,
                    axis=_CHANNELS,
                    block_size=size,
                ),
            )
            place += len(window)
        else:
            found.append(nodes[place])
            place += 1
    return tuple(found)


def _quantizes_by_rows(window: Sequence[Node], nodes: Sequence[Node]) -> bool:
    """Whether these nodes do, and nothing else takes what lies between them."""
    if tuple(map(operator_of, window)) != _BY_ROWS:
        return False
    by_token, zeros, rows, values, shape, result = window
    uses = Counter(name for node in nodes for name in node.inputs)
    between = [node.outputs[0] for node in window[:-1]]
    return (
        zeros.inputs[0] == by_token.outputs[0]
        and values.inputs == (rows.outputs[0], by_token.outputs[0], zeros.outputs[0])
        and shape.inputs == rows.inputs
        and result.inputs == (values.outputs[0], shape.outputs[0])
        and numbers_of(rows, "axis") == (_CHANNELS,)
        and numbers_of(values, "axis") == (_TOKENS,)
        and [uses[name] for name in between] == [2, 1, 1, 1, 1]
    )


def _channels_of(name: str, nodes: Sequence[Node], channels: Mapping[str, int], hidden: int) -> int:
    """Channels of quantized values."""
    for node in nodes:
        if operator_of(node) == PRODUCT and node.inputs[0] == name:
            return channels.get(node.inputs[1], hidden)
    return hidden
