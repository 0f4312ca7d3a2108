"""Graphs of packs: those that writers write are accepted, others are refused."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from benchmarks.security_graphs import HOSTILE
from sti.errors import PackFormatError
from sti.graphs.check import CheckedGraphs
from sti.graphs.operators import OPERATORS
from sti.graphs.shapes import INFER
from sti.model.manifest import Manifest
from sti.pack.pack_reader import PackReader
from tests.support.graph_sources import GraphSource
from tests.support.paths import ROOT
from tests.tools import graph_operators

SPECS = list(graph_operators.specs())
SPEC = SPECS[-1]
GRAPHS = SPEC.build()
PACKS = sorted((ROOT / "models").glob("*.sti.safetensors"))
FEW = settings(max_examples=60, suppress_health_check=list(HealthCheck))
Change = Callable[[Any], object]


@pytest.fixture(scope="module")
def base() -> Iterator[Manifest]:
    with PackReader.open(PACKS[0]) as reader:
        yield reader.manifest


def check(source: Any, name: str | None = None) -> None:
    graphs = CheckedGraphs(source, where="a.pack")
    graphs.check() if name is None else graphs.graph(name)


def changed(base: Manifest, name: str, change: Change) -> GraphSource:
    model = onnx.load_model_from_string(GRAPHS[name])
    change(model)
    return GraphSource(SPEC, base, {name: model.SerializeToString()})


def test_the_table_is_what_writers_use() -> None:
    assert graph_operators.FILE.read_text(encoding="utf-8") == graph_operators.table()


def test_the_shape_of_every_operator_can_be_found() -> None:
    assert {item.name for item in OPERATORS.values()} == set(INFER)


@pytest.mark.parametrize("path", PACKS, ids=lambda path: path.name.partition(".")[0])
def test_graphs_of_shipped_packs_are_accepted(path: Path) -> None:
    with PackReader.open(path) as reader:
        reader.check_graphs()
        assert reader.graph("head") == reader.resident("graph.head").tobytes()


def test_all_graphs_that_writers_can_write_are_accepted(base: Manifest) -> None:
    for hidden, head_size, neurons in ((32, 8, 8), (1024, 64, 256)):
        for spec in graph_operators.specs(hidden=hidden, head_size=head_size, neurons=neurons):
            check(GraphSource(spec, base))


@pytest.mark.parametrize("kind", HOSTILE)
def test_graphs_that_mean_harm_are_refused(kind: str, base: Manifest) -> None:
    rng = random.Random(kind)
    for name, raw in SPEC.build().items():
        hostile = HOSTILE[kind](raw, rng)
        with pytest.raises(
            PackFormatError, match=r"^a\.pack: graph '[a-z_.0-9]+' .*; rebuild"
        ) as e:
            check(GraphSource(SPEC, base, {name: hostile}), name)
        assert str(e.value).isprintable()


def test_graphs_for_weights_of_another_form_are_checked_when_they_are_asked_for(
    base: Manifest,
) -> None:
    graphs = CheckedGraphs(GraphSource(SPEC, base, {"ffn.u8": b"\x08"}), where="a.pack")
    graphs.check(("s8",))
    with pytest.raises(PackFormatError, match=r"graph 'ffn\.u8'"):
        graphs.graph("ffn.u8")
    with pytest.raises(PackFormatError, match=r"graph 'ffn\.u8'"):
        graphs.check(("u8", "s7"))


def test_masked_graphs_may_be_checked_when_they_are_asked_for(base: Manifest) -> None:
    graphs = CheckedGraphs(
        GraphSource(SPEC, base, {"attention_masked.s8": b"\x08"}), where="a.pack"
    )
    graphs.check(("s8",), masked=False)
    with pytest.raises(PackFormatError, match=r"graph 'attention_masked\.s8'"):
        graphs.graph("attention_masked.s8")
    with pytest.raises(PackFormatError, match=r"graph 'attention_masked\.s8'"):
        graphs.check(("s8",))


@pytest.mark.parametrize("name", ["embed", "connect", "head", "ffn.s7", "attention_masked.u8"])
def test_a_pack_without_a_graph_is_refused(name: str, base: Manifest) -> None:
    source = GraphSource(SPEC, base)
    del source.manifest.graphs[name]
    with pytest.raises(PackFormatError, match=f"graph '{name}' is missing"):
        check(source)


def test_a_pack_with_a_graph_that_is_not_known_is_refused(base: Manifest) -> None:
    with pytest.raises(PackFormatError, match="graph 'more' is none of those that packs have"):
        check(GraphSource(SPEC, base, {"more": GRAPHS["head"]}))


def test_labels_that_the_head_does_not_have_are_refused(base: Manifest) -> None:
    spec = next(spec for spec in SPECS if spec.head.kind == "sequence")
    source = GraphSource(spec, base)
    source.manifest = source.manifest._replace(labels=("one", "two"))
    with pytest.raises(PackFormatError, match="graph 'head' computes its output 'logits' in ano"):
        check(source)


def test_a_pack_without_a_resident_tensor_of_a_graph_is_refused(base: Manifest) -> None:
    source = GraphSource(SPEC, base)
    for name in ("layer.0.ffn.up_scale", "embed.gamma"):
        kept = source.tensors.pop(name)
        with pytest.raises(PackFormatError, match=f"needs the resident tensor '{name}'"):
            check(source)
        source.tensors[name] = kept


def _node(model: Any, operator: str, inputs: list[str], **more: Any) -> str:
    name = f"added_{len(model.graph.node)}"
    model.graph.node.append(helper.make_node(operator, inputs, [name], name, **more))
    return name


def _ints(model: Any, *values: int) -> str:
    name = f"ints_{len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    return name


def _twice(model: Any) -> None:
    value = "h"
    for _ in range(60):
        value = _node(model, "Concat", [value, value], axis=0)


def _pairs(model: Any) -> None:
    column = _node(model, "Reshape", ["h", _ints(model, -1, 1)])
    row = _node(model, "Reshape", ["h", _ints(model, 1, -1)])
    _node(model, "Add", [column, row])


def _matrix_of_each_text(model: Any) -> None:
    last = _node(model, "Slice", ["xs", _ints(model, 0), _ints(model, 1), _ints(model, 0)])
    wide = _node(model, "Add", [last, "gamma"])
    column = _node(model, "Reshape", [wide, _ints(model, -1, SPEC.hidden, 1)])
    _node(model, "Mul", [column, "gamma"])


def _many_products(model: Any) -> None:
    column = _node(model, "Reshape", ["gamma", _ints(model, -1, 1)])
    row = _node(model, "Reshape", ["gamma", _ints(model, 1, -1)])
    square = _node(model, "MatMul", [column, row])
    for _ in range(3):
        square = _node(model, "MatMul", [square, square])


def _computed_shape(model: Any) -> None:
    shape = _node(model, "Shape", ["h"])
    _node(model, "Reshape", ["h", _node(model, "Identity", [shape])])


def _negative_end(model: Any) -> None:
    ends = [_ints(model, x) for x in (0, -1, 0)]
    _node(model, "Slice", ["h", *ends])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_twice, "more than graphs may|computes .* bytes .by token."),
        (_pairs, "grows faster"),
        (_matrix_of_each_text, r"computes [\d,]+ bytes \(by token\)"),
        (_many_products, r"computes [\d,]+ (products|bytes) \(fixed\)"),
        (_computed_shape, "takes no inputs of types"),
        (_negative_end, "more than graphs may"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_graph_of_allowed_operators_that_computes_too_much_is_refused(
    change: Change, why: str, base: Manifest
) -> None:
    with pytest.raises(PackFormatError, match=f"graph 'connect' .*({why})"):
        check(changed(base, "connect", change))


def test_resident_tensors_of_other_names_are_no_inputs_of_a_graph(base: Manifest) -> None:
    def change(model: Any) -> None:
        info = helper.make_tensor_value_info("positions", onnx.TensorProto.FLOAT, ["r", 1])
        model.graph.input.append(info)

    source = changed(base, "head", change)
    source.tensors["head.positions"] = np.zeros((2_000_000, 1), np.float32)
    with pytest.raises(PackFormatError, match="has an input 'positions', which it is not fed"):
        check(source, "head")


def test_positions_have_a_row_for_each_place_and_are_cut_to_the_tokens(base: Manifest) -> None:
    source = GraphSource(SPEC, base)
    source.tensors["embed.positions"] = np.zeros((9, SPEC.hidden), np.float16)
    with pytest.raises(PackFormatError, match=r"'embed\.positions' with a row for each place"):
        check(source, "embed")
    whole = changed(base, "embed", lambda model: _node(model, "Cast", ["positions"], to=1))
    with pytest.raises(PackFormatError, match="takes more places than there are tokens"):
        check(whole, "embed")


@pytest.mark.parametrize("turned", [("transBatchB",), ("transBatchA", "transBatchB")])
def test_matrices_are_turned_by_batches_only_where_they_have_any(
    turned: tuple[str, ...], base: Manifest
) -> None:
    def change(model: Any) -> None:
        more = {"domain": "com.microsoft", **dict.fromkeys(turned, 1)}
        square = _node(model, "Reshape", ["gamma", _ints(model, -1, 1)])
        _node(model, "FusedMatMul", ["h", square], **more)

    with pytest.raises(PackFormatError, match="FusedMatMul: matrices that do not fit"):
        check(changed(base, "connect", change))


@FEW
@given(data=st.data())
def test_any_bytes_are_accepted_or_refused_with_a_typed_error(
    base: Manifest, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(GRAPHS)))
    raw = bytearray(GRAPHS[name])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    with suppress(PackFormatError):
        check(GraphSource(SPEC, base, {name: bytes(raw)}), name)
