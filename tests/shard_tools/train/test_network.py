"""The network that is trained computes what the tools' float reference and the engine compute."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from safetensors.numpy import load_file, save_file

from shard_tools.architectures.base import Model, TokenBatch
from shard_tools.architectures.registry import open_model
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.checkpoint.tokenizer_files import load_tokenizer
from shard_tools.measuring.forward import BlockPrecision, Forward
from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from shard_tools.train.data import Batch, batches
from shard_tools.train.network import ElasticNetwork, Pass
from shard_tools.train.objective import hidden_loss, label_loss, pass_loss
from shard_tools.train.reorder import sort_slices, spread_layers
from shard_tools.train.tensors import load_network, named_tensors, sizes_of
from sti.arrays import Float32Array
from sti.codec.word_rows import decode_rows
from sti.errors import CheckpointError
from sti.pack.pack_reader import PackReader
from sti.text.tokenizer import Tokenizer
from tests.support.checkpoints import Shape, write_checkpoint
from tests.support.training import examples, opened, sentences, tokens, whole

SHAPE = Shape(layers=3)
TEXTS = sentences(7)


def written(place: Path, **more: object) -> Path:
    """A checkpoint whose weights are large enough for every part of it to matter."""
    write_checkpoint(place, task="mean_classification", shape=SHAPE, prefix=True, **more)  # type: ignore[arg-type]
    path = place / "model.safetensors"
    tensors = load_file(path)
    for name, values in tensors.items():
        if values.ndim == 2:
            tensors[name] = values * np.float32(4)
    save_file(tensors, path)
    return place


def reference(checkpoint: Path, layers: tuple[int, ...], width: int, slices: int) -> Float32Array:
    """Logits of a submodel by the float reference, a sentence at a time."""
    spec, vocabulary, tables = load_tokenizer(checkpoint)
    tokenizer, found = Tokenizer(spec, vocabulary, tables), []
    with Checkpoint(checkpoint) as source:
        model = open_model(source, slices=slices)
        residents = dict(model.residents(spec.max_tokens))
        residents["embed.positions"] = source.tensor(
            "bert.embeddings.position_embeddings.weight", (SHAPE.positions, SHAPE.hidden)
        )
        for text in TEXTS:
            encoding = tokenizer.encode(text)
            ids, types = np.array(encoding.ids), np.array(encoding.type_ids)
            batch = TokenBatch(ids, types, np.arange(len(ids)), (len(ids),))
            hidden = model.embed(batch, residents)
            for layer in layers:
                hidden = run_layer(model, layer, hidden, width)
            pooled = model.readout(hidden, batch.lengths)
            found.append(pooled @ residents["head.classifier_w"] + residents["head.classifier_b"])
    return np.concatenate(found)


def run_layer(model: Model, layer: int, hidden: Float32Array, width: int) -> Float32Array:
    for kind in model.kinds:
        weights = model.block(layer, kind.name)
        operands = {item.name: item.split(weights.matrices[item.name]) for item in kind.products}
        parts = model.contributions(kind.name, hidden, (len(hidden),), operands, weights.vectors)
        used = parts[: len(parts) // model.slices * width]
        hidden = model.connect(hidden + used.sum(axis=0), weights.vectors)
    return hidden


@pytest.mark.parametrize("layers", [(0, 1, 2), (0, 2), (1,)])
@pytest.mark.parametrize(("width", "slices"), [(4, 4), (3, 4), (1, 4), (1, 2), (1, 1)])
def test_a_float_pass_equals_the_reference_at_every_depth_and_width(
    tmp_path: Path, layers: tuple[int, ...], width: int, slices: int
) -> None:
    checkpoint = written(tmp_path)
    with opened(checkpoint, slices=slices) as network, torch.no_grad():
        found, states = network(tokens(checkpoint, TEXTS), Pass(layers, width, None))
    expected = reference(checkpoint, layers, width, slices)
    assert len(states) == len(layers)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)
    assert np.ptp(expected, axis=0).min() > 0.01  # the texts are told apart at all


@pytest.mark.parametrize("activation", ["relu", "gelu_new", "gelu_pytorch_tanh"])
def test_a_float_pass_equals_the_reference_for_every_activation(
    tmp_path: Path, activation: str
) -> None:
    checkpoint = written(tmp_path, config={"hidden_act": activation})
    with opened(checkpoint) as network, torch.no_grad():
        found, _ = network(tokens(checkpoint, TEXTS), whole(network))
    expected = reference(checkpoint, (0, 1, 2), 4, 4)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_products_in_bfloat16_are_near_those_in_float32(tmp_path: Path) -> None:
    checkpoint = written(tmp_path)
    batch = tokens(checkpoint, TEXTS)
    with opened(checkpoint) as network, torch.no_grad():
        expected, _ = network(batch, whole(network))
        network.dtype = torch.bfloat16
        found, _ = network(batch, whole(network))
    assert found.dtype == torch.float32
    difference = (found - expected).abs().max() / expected.std()
    assert 1e-5 < float(difference) < 0.1


def test_padding_changes_no_answer(tmp_path: Path) -> None:
    checkpoint = written(tmp_path)
    with opened(checkpoint) as network, torch.no_grad():
        together, _ = network(tokens(checkpoint, TEXTS), whole(network))
        alone = [network(tokens(checkpoint, [text]), whole(network))[0] for text in TEXTS]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [(0, 1, 2), (0, 2)])
@pytest.mark.parametrize("bits", [(8, 8, 8, 8), (2, 2, 2, 2), (8, 8), (6, 2, 3)])
def test_a_pass_in_the_code_answers_as_the_engine_does_with_the_pack(
    tmp_path: Path, layers: tuple[int, ...], bits: tuple[int, ...]
) -> None:
    checkpoint = written(tmp_path / "checkpoint")
    ladder = (2, 3, 4, 6, 8)
    build(checkpoint, tmp_path / "pack", BuildOptions(ladder=ladder), progress=False)
    with PackReader.open(tmp_path / "pack") as reader, Forward(reader, threads=1) as forward:
        setting = tuple(
            BlockPrecision(layer, kind, bits) for layer in layers for kind in ("attention", "ffn")
        )
        expected = forward.logits(forward.batches(TEXTS), setting)
        table = reader.manifest.embeddings
        raw = np.fromfile(reader.path, np.uint8)[reader.embeddings_offset :]
    words = np.empty((table.rows, table.hidden), dtype=np.float32)
    stored = raw[: table.rows * table.row_bytes].reshape(table.rows, -1)
    assert decode_rows(stored, np.arange(table.rows), table.group, words) is None
    levels = torch.tensor([[[ladder.index(step) for step in bits]] * 2] * len(layers))
    with opened(checkpoint) as network, torch.no_grad():
        network.words.copy_(torch.from_numpy(words))  # the pack rounds them to 4 bits
        batch = tokens(checkpoint, TEXTS)
        plain, _ = network(batch, Pass(layers, len(bits), None))
        network.use_code(ladder)
        found, _ = network(batch, Pass(layers, len(bits), levels))
    spread = expected.std()
    difference = np.abs(found.numpy() - expected).max()
    assert difference < 0.06 * spread  # the engine rounds activations to 8 bits
    if 2 in bits:
        assert np.abs(plain.numpy() - expected).max() > 3 * difference


def test_tensors_go_in_and_come_out_unchanged(tmp_path: Path) -> None:
    checkpoint = written(tmp_path)
    raw = load_file(checkpoint / "model.safetensors")
    for slices in (4, 2):
        with opened(checkpoint, slices=slices) as network:
            found = named_tensors(network)
        assert set(found) == set(raw)
        for name, values in raw.items():
            assert (found[name] == values).all(), name


def test_norms_may_have_their_old_names(tmp_path: Path) -> None:
    checkpoint = written(tmp_path)
    path = checkpoint / "model.safetensors"
    raw = load_file(path)
    old = {}
    for name, values in raw.items():
        new = name
        if "LayerNorm" in name:
            new = name.replace(".weight", ".gamma").replace(".bias", ".beta")
        old[new] = values
    save_file(old, path)
    with opened(checkpoint) as network:
        found = named_tensors(network)
    assert all((found[name] == values).all() for name, values in raw.items())


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    checkpoint = written(tmp_path)
    path = checkpoint / "model.safetensors"
    raw = load_file(path)
    del raw["bert.encoder.layer.1.output.dense.weight"]
    save_file(raw, path)
    with Checkpoint(checkpoint) as source:
        sizes = sizes_of(source, outputs=3, slices=None)
        with pytest.raises(CheckpointError, match=r"encoder\.layer\.1\.output\.dense\.weight"):
            load_network(source, sizes, torch.float32)


# The order of width and of depth


def loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    return label_loss(logits, batch.targets, regression=False)


def some(checkpoint: Path) -> list[Batch]:
    return list(batches(examples(checkpoint, sentences(24)), 8))


@pytest.mark.parametrize("slices", [4, 2])
def test_sorting_keeps_the_function(tmp_path: Path, slices: int) -> None:
    checkpoint = written(tmp_path)
    with opened(checkpoint, slices=slices) as network:
        batch = tokens(checkpoint, TEXTS)
        before = {name: tensor.copy() for name, tensor in named_tensors(network).items()}
        expected = network(batch, whole(network))[0].detach()
        sort_slices(network, some(checkpoint), loss)
        found = network(batch, whole(network))[0].detach()
        after = named_tensors(network)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    moved = [name for name in before if not (before[name] == after[name]).all()]
    assert any("query" in name for name in moved) and any("intermediate" in name for name in moved)
    for name, values in before.items():
        assert (np.sort(values, axis=None) == np.sort(after[name], axis=None)).all()


def test_what_adds_nothing_goes_last_and_what_adds_most_first(tmp_path: Path) -> None:
    checkpoint = written(tmp_path)
    with opened(checkpoint) as network, torch.no_grad():
        layer = network.layer(1)
        layer["o"][0] = 0.0
        layer["o"][2] *= 20.0
        flat = layer["down"].view(SHAPE.inner, -1)
        idle = torch.arange(0, 32)
        flat[idle] = 0.0
        flat[40] *= 50.0
        best, strong = layer["o"][2].clone(), flat[40].clone()
        with torch.enable_grad():
            sort_slices(network, some(checkpoint), loss)
        assert bool((layer["o"][0] == best).all())
        assert not layer["o"][3].any()
        flat = layer["down"].view(SHAPE.inner, -1)
        assert bool((flat[0] == strong).all())
        assert not flat[-len(idle) :].any() and bool(flat[: -len(idle)].any(dim=1).all())


def idle_layer(network: ElasticNetwork, number: int) -> None:
    """Make a layer do nothing, given that what comes in is normalized."""
    with torch.no_grad():
        layer = network.layer(number)
        for name in ("o", "down", "attention_bias", "ffn_bias", "attention_beta", "ffn_beta"):
            layer[name].zero_()
        for part in (layer, network.layer(number - 1)):
            part["ffn_gamma"].fill_(1.0)
            part["ffn_beta"].zero_()
        layer["attention_gamma"].fill_(1.0)


def test_every_depth_keeps_the_last_layer_the_first_and_some_between() -> None:
    assert spread_layers(3) == {1: (2,), 2: (0, 2), 3: (0, 1, 2)}
    assert spread_layers(1) == {1: (0,)}
    for layers in (4, 6, 12):
        for depth, kept in spread_layers(layers).items():
            assert len(set(kept)) == depth and kept == tuple(sorted(kept))
            assert kept[-1] == layers - 1 and (depth == 1 or kept[0] == 0)
            gaps = [after - before for before, after in pairwise(kept)]
            assert not gaps or max(gaps) - min(gaps) <= 1


# Losses


def test_hidden_states_are_compared_with_those_before_the_next_kept_layer() -> None:
    full = [torch.full((2, 3, 4), float(number)) for number in range(5)]
    present = torch.tensor([[True, True, True], [True, False, False]])
    states = [full[1].clone(), full[4].clone()]
    assert float(hidden_loss(states, (0, 2), full, present)) == 0.0
    states[0][1, 1:] = 100.0  # padding
    assert float(hidden_loss(states, (0, 2), full, present)) == 0.0
    states[0][0, 0] += 2.0
    # Of 4 tokens in 2 layers one is off by 2 everywhere.
    assert float(hidden_loss(states, (0, 2), full, present)) == pytest.approx(4.0 / 8)


def test_the_loss_of_a_pass_falls_to_that_of_the_labels_where_the_teacher_is_followed() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]])
    targets = torch.tensor([0.0, 1.0])
    label = label_loss(logits, targets, regression=False)
    same = pass_loss(logits, targets, logits + 3.0, None, regression=False)
    assert float(same) == pytest.approx(0.5 * float(label), abs=1e-6)
    other = pass_loss(logits, targets, -logits, torch.tensor(1.0), regression=False)
    assert float(other) > float(same) + 0.5
    values = torch.tensor([[1.0], [3.0]])
    loss = pass_loss(values, torch.tensor([1.0, 2.0]), values + 1.0, None, regression=True)
    assert float(loss) == pytest.approx(1.0 + 0.5 * 0.5)
