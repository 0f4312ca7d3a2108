"""The shapes of what the operators of graphs compute.

In: an operator's attributes, the shapes of its inputs, and the values of those that are whole
numbers and known. Out: the shape of its output, or ``Refused`` where the inputs do not fit. Extents
may be polynomials (``sti.graphs.polynomials``). No shape depends on anything that is computed, and
each grows, or stays, where those of the inputs grow: so shapes at the most texts and tokens bound
all others. Knows nothing of packs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from sti.graphs.strict_message import Refused

Shape = tuple[int, ...]
Known = Sequence[Shape | None]
"""For each input the numbers in it, where they are whole and known; an input of one is a tuple."""

Infer = Callable[[Mapping[str, Any], Sequence[Shape], Known], Shape]


def _same(_: Mapping[str, Any], shapes: Sequence[Shape], __: Known) -> Shape:
    return shapes[0]


def _broadcast(_: Mapping[str, Any], shapes: Sequence[Shape], __: Known) -> Shape:
    return broadcast(*shapes)


def broadcast(one: Shape, other: Shape) -> Shape:
    """The shape that two shapes are stretched to.

    Raises:
        Refused: they do not fit.
    """
    if one == other:
        return one
    if len(one) < len(other):
        one, other = other, one
    found = list(one)
    start = len(one) - len(other)
    for axis, extent in enumerate(other, start):
        if found[axis] == 1:
            found[axis] = extent
        elif extent not in (1, found[axis]):
            raise Refused("inputs of shapes that do not fit")
    return tuple(found)


def _biased(_: Mapping[str, Any], shapes: Sequence[Shape], __: Known) -> Shape:
    """``x`` and vectors as long as its last axis."""
    x, *vectors = shapes
    for vector in vectors:
        if not x or vector != x[-1:]:
            raise Refused("a vector that is not as long as the last axis")
    return x


def _softmax(attributes: Mapping[str, Any], shapes: Sequence[Shape], _: Known) -> Shape:
    _axis(attributes["axis"], len(shapes[0]))
    return shapes[0]


def _along(_: Mapping[str, Any], shapes: Sequence[Shape], known: Known) -> Shape:
    """What has a number for each of the first input, along an axis that is the second."""
    x, axis = shapes
    if axis:
        raise Refused("several axes instead of one")
    _axis(_whole(known, 1)[0], len(x))
    return x


def _concat(attributes: Mapping[str, Any], shapes: Sequence[Shape], _: Known) -> Shape:
    first, *others = shapes
    axis = _axis(attributes["axis"], len(first))
    total = first[axis]
    for shape in others:
        if len(shape) != len(first) or shape[:axis] + shape[axis + 1 :] != (
            first[:axis] + first[axis + 1 :]
        ):
            raise Refused("inputs of shapes that do not fit")
        total += shape[axis]
    return (*first[:axis], total, *first[axis + 1 :])


def _flatten(attributes: Mapping[str, Any], shapes: Sequence[Shape], _: Known) -> Shape:
    (x,) = shapes
    axis = attributes["axis"]
    if not 0 <= axis <= len(x):
        raise Refused("an axis that there is not")
    return prod(x[:axis]), prod(x[axis:])


def _gather(attributes: Mapping[str, Any], shapes: Sequence[Shape], _: Known) -> Shape:
    x, picked = shapes
    axis = _axis(attributes["axis"], len(x))
    return x[:axis] + picked + x[axis + 1 :]


def _matmul(_: Mapping[str, Any], shapes: Sequence[Shape], __: Known) -> Shape:
    one, other = shapes
    if len(one) < 2 or len(other) < 2 or one[-1] != other[-2]:
        raise Refused("matrices that do not fit")
    return (*broadcast(one[:-2], other[:-2]), one[-2], other[-1])


def _fused_matmul(attributes: Mapping[str, Any], shapes: Sequence[Shape], known: Known) -> Shape:
    one, other = shapes
    turned = attributes.get("transBatchA") or attributes.get("transBatchB")
    ranks = len(one), len(other)
    if min(ranks) < (3 if turned else 2) or (turned and ranks[0] != ranks[1]):
        raise Refused("matrices that do not fit")
    if attributes.get("transBatchA"):
        one = (*one[1:-1], one[0], one[-1])
    if attributes.get("transBatchB"):
        other = (*other[1:-1], other[0], other[-1])
    if attributes.get("transB"):
        other = (*other[:-2], other[-1], other[-2])
    return _matmul(attributes, (one, other), known)


def _integer_product(_: Mapping[str, Any], shapes: Sequence[Shape], known: Known) -> Shape:
    x, weights, x_scale, weights_scale, *zeros = shapes
    if len(weights) != 2 or x_scale != (*x[:-1], 1) or weights_scale != weights[1:]:
        raise Refused("scales or weights of a shape that does not fit")
    if any(zeros):
        raise Refused("zero points that are more than one number")
    return _matmul({}, (x, weights), known)


def _quantize(attributes: Mapping[str, Any], shapes: Sequence[Shape], _: Known) -> Shape:
    x, scale, zero = shapes
    along = x[_axis(attributes["axis"], len(x))] if "axis" in attributes else None
    if scale != zero or scale not in ((), (along,)):
        raise Refused("scales of a shape that does not fit")
    return x


def _reduce(attributes: Mapping[str, Any], shapes: Sequence[Shape], known: Known) -> Shape:
    x, axis = shapes[0], _known_axis(shapes, known, 1)
    return (*x[:axis], *((1,) * attributes["keepdims"]), *x[axis + 1 :])


def _reshape(_: Mapping[str, Any], shapes: Sequence[Shape], known: Known) -> Shape:
    x, wanted = shapes[0], _whole(known, 1)
    if len(shapes[1]) != 1:
        raise Refused("a shape that is no vector")
    found = []
    for place, extent in enumerate(wanted):
        if extent == 0 and place >= len(x):
            raise Refused("a shape that does not fit")
        found.append(x[place] if extent == 0 else extent)
    total = prod(x)
    if found.count(-1) == 1:
        others = -prod(found)
        if others <= 0 or total % others:
            raise Refused("a shape that does not fit")
        found[found.index(-1)] = total // others
    if prod(found) != total or min(found, default=1) < 0:
        raise Refused("a shape that does not fit")
    return tuple(found)


def _shape(attributes: Mapping[str, Any], shapes: Sequence[Shape], _: Known) -> Shape:
    return (len(part_of_shape(attributes, shapes[0])),)


def part_of_shape(attributes: Mapping[str, Any], shape: Shape) -> Shape:
    """The numbers that ``Shape`` answers."""
    return shape[attributes.get("start", 0) : attributes.get("end")]


def _slice(_: Mapping[str, Any], shapes: Sequence[Shape], known: Known) -> Shape:
    x, axis = shapes[0], _known_axis(shapes, known, 3)
    if shapes[1] != (1,) or shapes[2] != (1,):
        raise Refused("several ranges instead of one")
    (start,), (end,) = _whole(known, 1), _whole(known, 2)
    extent = x[axis]
    end = min(end + extent if end < 0 else end, extent)
    if start != 0 or end < 0:
        raise Refused("a range that does not begin at 0")
    return (*x[:axis], end, *x[axis + 1 :])


def _squeeze(_: Mapping[str, Any], shapes: Sequence[Shape], known: Known) -> Shape:
    x, axis = shapes[0], _known_axis(shapes, known, 1)
    if x[axis] != 1:
        raise Refused("an axis that is longer than 1")
    return x[:axis] + x[axis + 1 :]


def _unsqueeze(_: Mapping[str, Any], shapes: Sequence[Shape], known: Known) -> Shape:
    x = shapes[0]
    axis = _known_axis(((0,) * (len(x) + 1), *shapes[1:]), known, 1)
    return (*x[:axis], 1, *x[axis:])


def _transpose(attributes: Mapping[str, Any], shapes: Sequence[Shape], _: Known) -> Shape:
    x, order = shapes[0], attributes["perm"]
    if sorted(order) != list(range(len(x))):
        raise Refused("an order of other axes")
    return tuple(x[axis] for axis in order)


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise Refused("an axis that there is not")
    return axis % rank


def _known_axis(shapes: Sequence[Shape], known: Known, place: int) -> int:
    if shapes[place] != (1,):
        raise Refused("several axes instead of one")
    return _axis(_whole(known, place)[0], len(shapes[0]))


def _whole(known: Known, place: int) -> Shape:
    found = known[place]
    if found is None:
        raise Refused("a shape, axis or range that is computed, so that its size has no bound")
    return found


INFER: Mapping[str, Infer] = {
    **dict.fromkeys(
        ("Abs", "Cast", "Gelu", "Identity", "QuickGelu", "Relu", "Sqrt", "Tanh"), _same
    ),
    **dict.fromkeys(("Add", "Div", "Max", "Mul"), _broadcast),
    **dict.fromkeys(("BiasGelu", "FastGelu", "LayerNormalization"), _biased),
    **dict.fromkeys(("ReduceL2", "ReduceMax", "ReduceSum"), _reduce),
    "Concat": _concat,
    "CumSum": _along,
    "Flatten": _flatten,
    "FusedMatMul": _fused_matmul,
    "Gather": _gather,
    "MatMul": _matmul,
    "MatMulIntegerToFloat": _integer_product,
    "QuantizeLinear": _quantize,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""By the name of the operator; every operator of ``OPERATORS`` is here."""

PRODUCTS = frozenset({"FusedMatMul", "MatMul", "MatMulIntegerToFloat"})
"""Operators that multiply matrices: the first input, along its last axis, by the second."""
