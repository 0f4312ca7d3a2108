"""Write ``sti/graphs/operator_table.py``: the operators that graphs of packs may have.

    python -m tests.tools.graph_operators

It holds what the graphs have that the writers in ``shard_tools/graphs`` can make: for all tasks,
activations, forms of weights and side inputs. A test fails where the file is not what this writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from itertools import combinations, product
from pathlib import Path

import onnx
import onnxruntime as ort

from shard_tools.graphs.blocks import ACTIVATIONS, ATTENTION_SIDES, FFN_SIDES
from shard_tools.graphs.embed_head import HEAD_ACTIVATIONS, POOLINGS, HeadSpec, HeadStep
from shard_tools.graphs.spec import ATTENTION, FFN, GraphSpec
from sti.graphs.operators import SHARE
from sti.graphs.strict_model import ELEMENTS

FILE = Path(__file__).resolve().parents[2] / "sti" / "graphs" / "operator_table.py"

DISTANCES = 7
"""Of specs that have biases by distance."""

_NAMES = {
    "tensor(float)": "F32",
    "tensor(uint8)": "U8",
    "tensor(int8)": "I8",
    "tensor(int64)": "I64",
    "tensor(float16)": "F16",
}

_TEXT = '''"""The operators that writers of packs use, by ``python -m tests.tools.graph_operators``.

Each with the element types of its inputs and its output, and its attributes with the values they
have; ``?=`` where there is a default. Read by ``sti.graphs.operators``.
"""

VERSIONS = frozenset({%s})
"""Of the format of graphs."""

OPSETS = {%s}
"""Versions of the operators, by domain."""

TABLE = """
%s
"""
'''


def specs(*, hidden: int = 64, head_size: int = 16, neurons: int = 32) -> Iterator[GraphSpec]:
    """What graphs can be made from: each choice for each of the graphs, in as few specs as do."""
    heads = _heads(hidden)
    attention = _subsets(ATTENTION_SIDES)
    ffn = list(product(ACTIVATIONS, _subsets(FFN_SIDES)))
    for number in range(max(len(heads), len(attention), len(ffn))):
        activation, side = ffn[number % len(ffn)]
        yield GraphSpec(
            hidden=hidden,
            head_size=head_size,
            neurons=neurons,
            activation=activation,
            epsilon=1e-12,
            head=heads[number % len(heads)],
            side={ATTENTION: attention[number % len(attention)], FFN: side},
            distances=number % 2 * DISTANCES,
        )


def _heads(hidden: int) -> list[HeadSpec]:
    """Each pooling with each kind of head and, in turn, each kind of step."""
    dense = [HeadStep("dense", 24, activation) for activation in HEAD_ACTIVATIONS]
    steps = [(HeadStep("normalize", hidden),), (HeadStep("norm", hidden), *dense), ()]
    found = [HeadSpec("tokens")]
    for number, (kind, pooling) in enumerate(product(("embedding", "sequence"), POOLINGS)):
        if (kind, pooling) != ("embedding", "pooler"):
            activation = HEAD_ACTIVATIONS[number % len(HEAD_ACTIVATIONS)]
            found.append(HeadSpec(kind, (pooling,), steps[number % len(steps)], activation))
    ways = tuple(pooling for pooling in POOLINGS if pooling != "pooler")
    return [*found, HeadSpec("embedding", ways), HeadSpec("sequence", ways[:2])]


def _subsets(names: Collection[str]) -> list[tuple[str, ...]]:
    ordered = sorted(names)
    return [found for size in range(len(ordered) + 1) for found in combinations(ordered, size)]


def table() -> str:
    """The text of the file."""
    versions: set[int] = set()
    opsets: dict[str, set[int]] = {}
    results: dict[tuple[str, str], set[str]] = {}
    attributes: dict[tuple[str, str], dict[str, list[str]]] = {}
    count: Counter[tuple[str, str]] = Counter()
    for raw in {raw for spec in specs() for raw in spec.build().values()}:
        model = onnx.load_model_from_string(raw)
        versions.add(model.ir_version)
        for item in model.opset_import:
            opsets.setdefault(item.domain, set()).add(item.version)
        elements = _elements(model)
        for node in model.graph.node:
            key = node.domain, node.op_type
            count[key] += 1
            given = " ".join(elements[name] for name in node.input)
            results.setdefault(key, set()).add(f"{given} -> {elements[node.output[0]]}")
            for item in node.attribute:
                found = attributes.setdefault(key, {}).setdefault(item.name, [])
                found.append(_value(onnx.helper.get_attribute_value(item)))
    entries = []
    for key in sorted(results, key=lambda key: key[1]):
        lines = [" ".join(filter(None, key)), *sorted(results[key])]
        for name, values in sorted(attributes.get(key, {}).items()):
            sign = "=" if len(values) == count[key] else "?="
            lines.append(f"{name} {sign} {' or '.join(sorted(set(values)))}")
        entries.append("\n".join(lines))
    listed = ", ".join(f'"{name}": frozenset({{{_numbers(opsets[name])}}})' for name in opsets)
    return _TEXT % (_numbers(versions), listed, "\n\n".join(entries))


def _elements(model: onnx.ModelProto) -> dict[str, str]:
    """The element type of every value, as ONNX Runtime finds it."""
    found = {item.name: ELEMENTS[item.data_type] for item in model.graph.initializer}
    told = onnx.ModelProto()
    told.CopyFrom(model)
    del told.graph.output[:]
    for node in model.graph.node:
        told.graph.output.add().name = node.output[0]
    session = ort.InferenceSession(told.SerializeToString(), providers=["CPUExecutionProvider"])
    for item in (*session.get_inputs(), *session.get_outputs()):
        found[item.name] = _NAMES[item.type]
    return found


def _value(value: object) -> str:
    if isinstance(value, float):
        return SHARE
    return f"[{' '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _numbers(values: Collection[int]) -> str:
    return ", ".join(map(str, sorted(values)))


if __name__ == "__main__":
    FILE.write_text(table(), encoding="utf-8")
