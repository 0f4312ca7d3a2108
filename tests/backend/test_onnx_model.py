"""ONNX models taken apart and put together as bytes, compared with the ``onnx`` package."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from sti.backend.onnxruntime.onnx_model import (
    Named,
    Node,
    external_data,
    external_tensor,
    numbers_of,
    operator_of,
    plain_node,
    read_model,
    small_tensor,
    small_values,
    with_external_data,
    with_operators,
    write_model,
)
from sti.errors import BackendError
from sti.pack.pack_reader import PackReader
from tests.support.packs import tiny_pack
from tests.support.paths import ROOT

PACKS = sorted((ROOT / "models").glob("*.sti.safetensors"))


def every_graph() -> dict[str, bytes]:
    found = {}
    for path in (tiny_pack(), *PACKS):
        with PackReader.open(path) as reader:
            for name in reader.manifest.graphs:
                found[f"{path.name} {name}"] = reader.graph(name)
    return found


def test_graphs_of_packs_come_back_as_they_were() -> None:
    for name, raw in every_graph().items():
        before = onnx.load_from_string(raw)
        after = onnx.load_from_string(write_model(read_model(raw, where=name), name="again"))
        onnx.checker.check_model(after)
        before.graph.name = "again"
        assert after == before, name


def test_names_are_read_as_the_package_reads_them() -> None:
    for name, raw in every_graph().items():
        graph, found = onnx.load_from_string(raw).graph, read_model(raw, where=name)
        assert [item.name for item in found.inputs] == [item.name for item in graph.input]
        assert [item.name for item in found.outputs] == [item.name for item in graph.output]
        assert [i.name for i in found.initializers] == [i.name for i in graph.initializer]
        for mine, theirs in zip(found.nodes, graph.node, strict=True):
            assert (mine.name, mine.inputs, mine.outputs) == (
                theirs.name,
                tuple(theirs.input),
                tuple(theirs.output),
            )


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8", "int64", "float16"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 300), (1, 2, 3)])
def test_small_tensors_hold_their_array(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape).astype(dtype)
    made = tensor_of(small_tensor("x", array))
    assert made.name == "x"
    found = numpy_helper.to_array(made)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def tensor_of(item: Named) -> TensorProto:
    """The tensor as the package reads it in a model that we wrote."""
    model = read_model(identity(), where="identity")
    raw = write_model(model._replace(initializers=(item,)), name="tensors")
    return onnx.load_from_string(raw).graph.initializer[0]


def identity() -> bytes:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "ab"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["a"], ["b"])], "identity", value[:1], value[1:]
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    return bytes(made.SerializeToString())


def test_a_type_that_graphs_do_not_have_is_refused() -> None:
    with pytest.raises(BackendError, match="complex64"):
        small_tensor("x", np.zeros(1, np.complex64))


def test_tensors_in_files_say_where_and_can_be_moved() -> None:
    array = np.zeros((3, 5), np.int8)
    item = external_tensor("w", array, file="a.bin", offset=128)
    assert external_data(item) == {"location": "a.bin", "offset": "128", "length": "15"}
    moved = with_external_data(item, {"location": "b.bin", "offset": "4096", "length": "15"})
    made = tensor_of(moved)
    assert made.data_location == TensorProto.EXTERNAL
    assert [(e.key, e.value) for e in made.external_data] == [
        ("location", "b.bin"),
        ("offset", "4096"),
        ("length", "15"),
    ]
    assert (list(made.dims), made.data_type) == ([3, 5], TensorProto.INT8)
    assert external_data(small_tensor("x", array)) == {}


def test_operators_attributes_and_values_are_read_as_the_package_reads_them() -> None:
    for name, raw in every_graph().items():
        graph, found = onnx.load_from_string(raw).graph, read_model(raw, where=name)
        for mine, theirs in zip(found.nodes, graph.node, strict=True):
            assert operator_of(mine) == theirs.op_type
            for item in theirs.attribute:
                value = helper.get_attribute_value(item)
                numbers = value if isinstance(value, list) else [value]
                known = item.type in (onnx.AttributeProto.INT, onnx.AttributeProto.INTS)
                assert numbers_of(mine, item.name) == (tuple(numbers) if known else ())
            assert numbers_of(mine, "no such attribute") == ()
        for tensor, other in zip(found.initializers, graph.initializer, strict=True):
            values = small_values(tensor)
            assert values is not None
            np.testing.assert_array_equal(values, numpy_helper.to_array(other), strict=True)


@pytest.mark.parametrize("number", [-1, 0, 3, -(2**63), 2**63 - 1])
def test_attributes_of_added_nodes_are_read_as_they_were_given(number: int) -> None:
    node = plain_node("n", "Concat", ("a",), "b", axis=number)
    assert numbers_of(node, "axis") == (number,)
    model = read_model(identity(), where="identity")._replace(nodes=(node,))
    (made,) = onnx.load_from_string(write_model(model, name="one")).graph.node
    assert helper.get_attribute_value(made.attribute[0]) == number


def test_values_that_are_elsewhere_or_malformed_are_unknown() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(small_values(small_tensor("x", array)), array)
    assert small_values(external_tensor("x", array, file="x.bin", offset=0)) is None
    cut = numpy_helper.from_array(array, "x")
    cut.raw_data = cut.raw_data[:-1]
    assert small_values(Named("x", cut.SerializeToString())) is None
    unknown = numpy_helper.from_array(array.astype(np.float64), "x")
    assert small_values(Named("x", unknown.SerializeToString())) is None


def test_later_operators_are_asked_for_and_later_ones_are_kept() -> None:
    for name, raw in every_graph().items():
        model = read_model(raw, where=name)
        for version in (1, 21):
            changed = with_operators(model, version, format_version=10)
            found = onnx.load_from_string(write_model(changed, name="x"))
            before = onnx.load_from_string(raw)
            versions = {item.domain: item.version for item in found.opset_import}
            earlier = {item.domain: item.version for item in before.opset_import}
            assert versions == earlier | {"": max(version, earlier[""])}
            assert found.ir_version == max(10, before.ir_version)


def test_nodes_can_be_renamed_and_added() -> None:
    model = read_model(identity(), where="identity")
    nodes = (
        Node("first", ("a",), ("middle",), model.nodes[0].rest),
        plain_node("second", "Add", ("middle", "a"), "b"),
    )
    made = onnx.load_from_string(write_model(model._replace(nodes=nodes), name="longer"))
    onnx.checker.check_model(made, full_check=True)
    assert [node.op_type for node in made.graph.node] == ["Identity", "Add"]


def test_packed_dimensions_and_unknown_fields_are_let_be() -> None:
    tensor = bytes([0x0A, 2, 3, 4]) + bytes([0x10, 3]) + b"\x42\x01w" + b"\x4a\x0c" + bytes(12)
    model = onnx.load_from_string(identity())
    model.graph.initializer.add().ParseFromString(tensor)
    model.producer_name = "somebody"
    found = read_model(bytes(model.SerializeToString()), where="packed")
    assert numpy_helper.to_array(tensor_of(found.initializers[0])).shape == (3, 4)


def test_graphs_inside_of_nodes_are_refused() -> None:
    inner = onnx.load_from_string(identity()).graph
    node = helper.make_node("If", ["c"], ["b"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph([node], "outer", [], [])
    raw = bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(BackendError, match=r"outer one: not a graph .* inside of it"):
        read_model(raw, where="outer one")


def test_what_is_cut_off_is_refused_or_still_a_model() -> None:
    raw = identity()
    refused = 0
    for length in range(len(raw)):
        try:
            read_model(raw[:length], where="cut")
        except BackendError:
            refused += 1
    assert refused > len(raw) // 2


@given(st.binary(max_size=60))
def test_random_bytes_end_in_a_typed_error_or_a_model(raw: bytes) -> None:
    with suppress(BackendError):
        read_model(raw, where="noise")


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_ends_in_a_typed_error_or_a_model(place: int, byte: int) -> None:
    raw = bytearray(identity())
    raw[place % len(raw)] = byte
    with suppress(BackendError):
        read_model(bytes(raw), where="changed")
