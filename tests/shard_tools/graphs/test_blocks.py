"""The block graphs of a pack against NumPy, and what the engine relies on to the bit."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shard_tools.graphs.blocks import ACTIVATIONS, Activation, build_connect
from shard_tools.graphs.embed_head import HeadSpec, HeadStep, build_embed, build_head
from sti.errors import StiError
from tests.support import graph_spec as spec
from tests.support.graph_cases import (
    DISTANCES,
    EPSILON,
    EXACT,
    HEAD,
    HIDDEN,
    NEURONS,
    SATURATES,
    SLICES,
    Array,
    Feeds,
    answer,
    answers,
    attention_feeds,
    attention_model,
    connect_feeds,
    distance_feeds,
    embed_feeds,
    ffn_feeds,
    ffn_model,
    flipped,
    floats,
    hidden_feeds,
    run,
    session,
    side_feeds,
)


def assert_integer_path(found: Array, expected: Array) -> None:
    """Equal but for floats of one rounding apart that fall on two sides of a quantization step.

    Such a flip is rare, and moves the outputs of one token by one step of one channel.
    """
    gap = np.abs(found - expected)
    spread = float(expected.std())
    assert np.quantile(gap, 0.25) <= 1e-6 * spread
    assert gap.max() <= 0.02 * spread


def assert_close_to_float(found: Array, expected: Array, *, share: float) -> None:
    """Root mean square of the error, as a share of the output's spread."""
    assert np.sqrt(np.mean((found - expected) ** 2)) <= share * expected.std()


NORMAL = (HeadStep("normalize", HIDDEN),)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("slices", range(1, SLICES + 1))
def test_attention_computes_its_integers_and_approximates_its_floats(
    slices: int, masked: bool
) -> None:
    rng = np.random.default_rng(slices)
    feeds = attention_feeds(rng, batch=3, tokens=7, slices=slices)
    if masked:
        feeds["mask"] = np.zeros((3, 1, 1, 7), dtype=np.float32)
        feeds["mask"][1, ..., 5:] = -10000
    found = run(attention_model(masked=masked), feeds)
    assert found.dtype == np.float32
    assert_integer_path(found, spec.attention(feeds, head=HEAD, exact=True))
    assert_close_to_float(found, spec.attention(feeds, head=HEAD, exact=False), share=0.015)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_adds_a_bias_by_head_and_distance(masked: bool) -> None:
    rng = np.random.default_rng(11)
    feeds = attention_feeds(rng, batch=2, tokens=9) | distance_feeds(rng, tokens=9)
    if masked:
        feeds["mask"] = np.zeros((2, 1, 1, 9), dtype=np.float32)
        feeds["mask"][0, ..., 4:] = -10000
    model = session(attention_model(masked=masked, distances=DISTANCES))
    found, expected = answer(model, feeds), spec.attention(feeds, head=HEAD, exact=True)
    assert_integer_path(found, expected)
    assert not np.allclose(found, answer(model, feeds | {"distances": feeds["distances"].T}))
    own = spec.own_tokens(feeds, 2, 9)
    np.testing.assert_allclose(answer(model, feeds | own), found[2:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("slices", range(1, SLICES + 1))
def test_ffn_computes_its_integers_and_approximates_its_floats(
    slices: int, activation: Activation
) -> None:
    rng = np.random.default_rng(slices)
    feeds = ffn_feeds(rng, batch=2, tokens=5, slices=slices)
    found = run(ffn_model(activation=activation), feeds)
    assert_integer_path(found, spec.ffn(feeds, activation=activation, exact=True))
    expected = spec.ffn(feeds, activation=activation, exact=False)
    assert_close_to_float(found, expected, share=0.015)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1 << 32),
    batch=st.integers(1, 4),
    tokens=st.integers(2, 9),
    slices=st.integers(1, SLICES),
    count=st.integers(0, 6),
)
def test_all_extents_and_side_channels_are_symbolic(
    seed: int, batch: int, tokens: int, slices: int, count: int
) -> None:
    rng = np.random.default_rng(seed)
    feeds = ffn_feeds(rng, batch=batch, tokens=tokens, slices=slices)
    feeds |= side_feeds(rng, "up", HIDDEN, (slices, NEURONS), count)
    feeds |= side_feeds(rng, "down", slices * NEURONS, (HIDDEN,), count)
    found = answer(FFN_SIDES, feeds)
    assert_integer_path(found, spec.ffn(feeds, activation="gelu", exact=True))

    feeds = attention_feeds(rng, batch=batch, tokens=tokens, slices=slices)
    for name in "qkv":
        feeds |= side_feeds(rng, name, HIDDEN, (slices, HEAD), count)
    feeds |= side_feeds(rng, "o", slices * HEAD, (HIDDEN,), count)
    found = answer(ATTENTION_SIDES, feeds)
    assert_integer_path(found, spec.attention(feeds, head=HEAD, exact=True))


FFN_SIDES = session(ffn_model(side=("up", "down")))
ATTENTION_SIDES = session(attention_model(side=("q", "k", "v", "o")))


@pytest.mark.skipif(SATURATES, reason="u8 x s8 products overflow on this processor")
def test_signed_and_unsigned_weights_give_the_same_bits() -> None:
    rng = np.random.default_rng(5)
    attention, ffn = (make(rng, batch=2, tokens=6) for make in (attention_feeds, ffn_feeds))
    assert np.array_equal(
        run(attention_model("s8"), attention), run(attention_model("u8"), flipped(attention))
    )
    assert np.array_equal(run(ffn_model("s8"), ffn), run(ffn_model("u8"), flipped(ffn)))


def test_halves_of_weights_give_what_twice_their_values_give() -> None:
    rng = np.random.default_rng(5)
    attention, ffn = (make(rng, batch=2, tokens=6) for make in (attention_feeds, ffn_feeds))
    attention |= side_feeds(rng, "k", HIDDEN, (SLICES, HEAD), 3)
    for variant, feeds, model in (
        ("att", attention, partial(attention_model, side=("k",))),
        ("ffn", ffn, ffn_model),
    ):
        halves = {
            name: rng.integers(-64, 64, value.shape).astype(np.int8)
            for name, value in feeds.items()
            if value.ndim == 2 and value.dtype != np.float32
        }
        twice = {name: 2 * value.astype(np.int16) for name, value in halves.items()}
        zero = 128 if EXACT == "u8" else 0
        whole = {name: (value + zero).astype(feeds[name].dtype) for name, value in twice.items()}
        assert len(halves) == (4 if variant == "att" else 2)
        assert np.array_equal(run(model("s7"), feeds | halves), run(model(), feeds | whole))


@pytest.mark.parametrize("tokens", [2, 9])
def test_halves_never_saturate(tokens: int) -> None:
    """On any processor: sums of two products of 255 and 64 fit 16 bits."""
    rng = np.random.default_rng(6)
    feeds = ffn_feeds(rng, batch=1, tokens=tokens)
    for name in ("up", "down"):
        feeds[name] = np.full(feeds[name].shape, -64, np.int8)
    feeds["up"][:, ::2] = 63
    feeds |= hidden_feeds(np.full((tokens, 1, HIDDEN), 3.0, np.float32))
    expected = spec.ffn(feeds, activation="gelu", exact=False, unit=2)
    assert_close_to_float(run(ffn_model("s7"), feeds), expected, share=0.01)


def test_extreme_weights_and_activations_do_not_saturate() -> None:
    # Pairs of 255 x 127 are what overflows the 16-bit sums of processors without VNNI.
    rng = np.random.default_rng(6)
    feeds = ffn_feeds(rng, batch=1, tokens=4)
    extreme = np.full((HIDDEN, SLICES * NEURONS), 127, np.int8)
    feeds["up"] = extreme.view(np.uint8) ^ 0x80 if EXACT == "u8" else extreme
    feeds |= hidden_feeds(np.full((4, 1, HIDDEN), 3.0, np.float32))
    assert_close_to_float(
        run(ffn_model(), feeds), spec.ffn(feeds, activation="gelu", exact=False), share=0.01
    )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tokens", [2, 3, 8, 17, 130])
def test_a_batch_gives_each_sentence_the_bits_it_has_alone(tokens: int, threads: int) -> None:
    rng = np.random.default_rng(tokens)
    batch = 5
    dense = (HeadStep("dense", 24, "tanh"), HeadStep("norm", 24), HeadStep("dense", 1, "gelu"))
    heads = {
        "pooler": HeadSpec("sequence", ("pooler",)),
        "relu": HeadSpec("sequence", ("pooler",), activation="relu"),
        "gelu": HeadSpec("sequence", ("pooler",), activation="gelu"),
        "mean": HeadSpec("sequence", ("mean",)),
        "cls": HeadSpec("embedding", ("cls",), NORMAL),
        "normal": HeadSpec("embedding", ("mean",), NORMAL),
        "others": HeadSpec("embedding", ("max", "sqrt_len", "weighted_mean", "last")),
        "steps": HeadSpec("embedding", ("last",), dense),
        "tags": HeadSpec("tokens"),
    }
    fixed: Feeds = {
        "classifier_w": floats(rng, HIDDEN, 1),
        "classifier_b": floats(rng, 1),
        "pooler_w": floats(rng, HIDDEN, HIDDEN),
        "pooler_b": floats(rng, HIDDEN),
        "step0_w": floats(rng, HIDDEN, 24),
        "step0_b": floats(rng, 24),
        "step1_w": floats(rng, 24),
        "step1_b": floats(rng, 24),
        "step2_w": floats(rng, 24, 1),
        "step2_b": floats(rng, 1),
    }
    by_sentence = {"words", "type_ids", "tokens", "mask"}
    by_token = {"h", "xq", "xs", "own_h", "own_xq", "own_xs", "partial", "residual"}
    side = attention_feeds(rng, batch=batch, tokens=tokens)
    for name in "qkv":
        side |= side_feeds(rng, name, HIDDEN, (SLICES, HEAD), 3)
    side |= side_feeds(rng, "o", SLICES * HEAD, (HIDDEN,), 3)
    ffn_side = ffn_feeds(rng, batch=batch, tokens=tokens)
    ffn_side |= side_feeds(rng, "up", HIDDEN, (SLICES, NEURONS), 3)
    ffn_side |= side_feeds(rng, "down", SLICES * NEURONS, (HIDDEN,), 3)
    mask = {"mask": np.zeros((batch, 1, 1, tokens), np.float32)}
    cases: list[tuple[bytes, Feeds]] = [
        (attention_model(), attention_feeds(rng, batch=batch, tokens=tokens)),
        (attention_model(masked=True), attention_feeds(rng, batch=batch, tokens=tokens) | mask),
        (attention_model(side=("q", "k", "v", "o")), side),
        *(
            (ffn_model(activation=name), ffn_feeds(rng, batch=batch, tokens=tokens))
            for name in ACTIVATIONS
        ),
        (ffn_model(side=("up", "down")), ffn_side),
        (
            build_connect(hidden=HIDDEN, epsilon=EPSILON),
            connect_feeds(rng, batch=batch, tokens=tokens),
        ),
        (
            build_embed(hidden=HIDDEN, epsilon=EPSILON),
            embed_feeds(rng, batch=batch, tokens=tokens),
        ),
    ]
    for head in heads.values():
        feeds = fixed | {"h": floats(rng, tokens, batch, HIDDEN)}
        feeds["tokens"] = np.ones((batch, tokens), np.float32)
        cases.append((build_head(hidden=HIDDEN, head=head), feeds))
    for model, feeds in cases:
        made = session(model, threads=threads)
        token_major = made.get_outputs()[0].name in ("h", "partial")
        for index in range(batch):
            alone = feeds | {name: feeds[name][index, None] for name in by_sentence & feeds.keys()}
            alone |= {name: feeds[name][:, index, None] for name in by_token & feeds.keys()}
            for one, all_of_them in zip(answers(made, alone), answers(made, feeds), strict=True):
                place = np.s_[:, index, None] if token_major else np.s_[index, None]
                assert np.array_equal(one, all_of_them[place])


def test_padding_moves_the_answer_of_a_sentence_by_next_to_nothing() -> None:
    rng = np.random.default_rng(8)
    lengths = [5, 9, 12, 7, 3, 12, 11, 4]
    longest = max(lengths)
    present = (np.arange(longest) < np.array(lengths)[:, None]).astype(np.float32)
    connect = session(build_connect(hidden=HIDDEN, epsilon=EPSILON))
    head = session(build_head(hidden=HIDDEN, head=HeadSpec("embedding", ("mean",), NORMAL)))
    plain, masked = session(attention_model()), session(attention_model(masked=True))
    ffn = session(ffn_model())
    layers = []
    for _ in range(3):
        blocks = (attention_feeds(rng, batch=1, tokens=2), ffn_feeds(rng, batch=1, tokens=2))
        joins = [connect_feeds(rng, batch=1, tokens=2) for _ in blocks]
        layers.append((blocks, joins))

    def encode(h: Array, tokens: Array, mask: Array | None) -> Array:
        given = hidden_feeds(h)
        for (attention, feed_forward), joins in layers:
            first = attention | ({} if mask is None else {"mask": mask})
            blocks = ((plain if mask is None else masked, first), (ffn, feed_forward))
            for (made, feeds), join in zip(blocks, joins, strict=True):
                feeds = feeds | given | spec.own_tokens(given)
                residual = {"partial": answer(made, feeds), "residual": given["h"]}
                given = dict(zip(("h", "xq", "xs"), answers(connect, join | residual), strict=True))
        return answer(head, given | {"tokens": tokens})

    h = floats(rng, longest, len(lengths), HIDDEN)
    together = encode(h, present, (present[:, None, None] - 1) * np.float32(10000))
    gaps, cosines = [], []
    for index, length in enumerate(lengths):
        alone = encode(h[:length, index, None], np.ones((1, length), np.float32), None)[0]
        gaps.append(np.abs(alone - together[index]))
        cosines.append(float(alone @ together[index]))
    assert np.median(gaps) <= 1e-6
    assert min(cosines) >= 0.995


def test_side_weights_are_exact() -> None:
    rng = np.random.default_rng(9)
    nothing = np.int8(0) if EXACT == "s8" else np.uint8(128)
    feeds = ffn_feeds(rng, batch=2, tokens=6) | side_feeds(rng, "up", HIDDEN, (SLICES, NEURONS), 4)
    feeds |= side_feeds(rng, "down", SLICES * NEURONS, (HIDDEN,), 9)
    feeds["up"][:] = nothing
    feeds["down"][:] = nothing
    found = run(ffn_model(side=("up", "down")), feeds)
    expected = spec.ffn(feeds, activation="gelu", exact=False)
    np.testing.assert_allclose(found, expected, atol=5e-6 * expected.std())

    feeds = attention_feeds(rng, batch=2, tokens=6)
    for name in "qkv":
        feeds |= side_feeds(rng, name, HIDDEN, (SLICES, HEAD), 3)
        feeds[name][:] = nothing
    feeds |= side_feeds(rng, "o", SLICES * HEAD, (HIDDEN,), 5)
    feeds["o"][:] = nothing
    found = run(attention_model(side=("q", "k", "v", "o")), feeds)
    expected = spec.attention(feeds, head=HEAD, exact=False)
    np.testing.assert_allclose(found, expected, atol=2e-5 * expected.std())


def test_no_side_channels_are_as_good_as_no_side_input() -> None:
    rng = np.random.default_rng(10)
    feeds = ffn_feeds(rng, batch=2, tokens=3)
    empty = side_feeds(rng, "up", HIDDEN, (SLICES, NEURONS), 0)
    empty |= side_feeds(rng, "down", SLICES * NEURONS, (HIDDEN,), 0)
    assert np.array_equal(
        run(ffn_model(side=("up", "down")), feeds | empty), run(ffn_model(), feeds)
    )


def test_partial_sums_of_slice_groups_add_up() -> None:
    rng = np.random.default_rng(11)
    feeds = ffn_feeds(rng, batch=2, tokens=5)
    whole = run(ffn_model(), feeds)
    parts = np.zeros_like(whole)
    for group in (np.s_[:NEURONS], np.s_[NEURONS:]):
        part = {name: feeds[name][..., group] for name in ("up", "up_scale", "up_bias")}
        parts += run(ffn_model(), feeds | part | {"down": feeds["down"][group]})
    assert_close_to_float(parts, whole, share=0.01)


def test_a_token_of_zeros_stays_finite() -> None:
    rng = np.random.default_rng(12)
    attention, ffn = (make(rng, batch=1, tokens=3) for make in (attention_feeds, ffn_feeds))
    for model, feeds in ((attention_model(), attention), (ffn_model(activation="relu"), ffn)):
        feeds |= {name: np.zeros_like(feeds[name]) for name in feeds if name.endswith("_bias")}
        zeros = {"partial": np.zeros_like(feeds["h"]), "residual": np.zeros_like(feeds["h"])}
        zeros |= {name: np.zeros(HIDDEN, np.float32) for name in ("bias", "gamma", "beta")}
        connect = session(build_connect(hidden=HIDDEN, epsilon=EPSILON))
        made = dict(zip(("h", "xq", "xs"), answers(connect, zeros), strict=True))
        assert not made["xs"].any()
        found = run(model, feeds | made | spec.own_tokens(made))
        assert np.array_equal(found, np.zeros_like(found))


def test_connect_adds_and_normalizes() -> None:
    rng = np.random.default_rng(13)
    feeds = connect_feeds(rng, batch=2, tokens=4)
    found = run(build_connect(hidden=HIDDEN, epsilon=EPSILON), feeds)
    np.testing.assert_allclose(found, spec.connect(feeds, epsilon=EPSILON), atol=2e-6)


def test_connect_and_embed_quantize_the_hidden_states_for_the_next_block() -> None:
    rng = np.random.default_rng(14)
    connect, embed = (make(rng, batch=3, tokens=9) for make in (connect_feeds, embed_feeds))
    for model, feeds in (
        (build_connect(hidden=HIDDEN, epsilon=EPSILON), connect),
        (build_embed(hidden=HIDDEN, epsilon=EPSILON), embed),
    ):
        h, xq, xs = answers(session(model), feeds)
        assert h.shape == (9, 3, HIDDEN)
        expected = spec.quantized_input(h)
        assert np.array_equal(xq, expected["xq"]) and np.array_equal(xs, expected["xs"])


def test_graphs_are_the_same_bytes_every_time_and_load_on_old_versions() -> None:
    for build in (attention_model, ffn_model):
        model = build(side=("down",) if build is ffn_model else ("o",))
        assert model == build(side=("down",) if build is ffn_model else ("o",))
        parsed = onnx.load_from_string(model)
        onnx.checker.check_model(parsed)
        # The oldest onnxruntime that STI runs with, and older ones, read these.
        assert parsed.ir_version <= 10
        assert all(item.version <= 21 for item in parsed.opset_import)
        assert all(math.prod(item.dims) <= 8 for item in parsed.graph.initializer)


def test_inputs_are_named_and_shaped_as_the_engine_feeds_them() -> None:
    model = onnx.load_from_string(attention_model(masked=True, side=("q", "k", "o")))
    found = {
        item.name: [d.dim_param or d.dim_value for d in item.type.tensor_type.shape.dim]
        for item in model.graph.input
    }
    assert found == {
        "xq": ["S", "B", HIDDEN],
        "xs": ["S", "B", 1],
        "h": ["S", "B", HIDDEN],
        "own_xq": ["R", "B", HIDDEN],
        "own_xs": ["R", "B", 1],
        "own_h": ["R", "B", HIDDEN],
        "mask": ["B", 1, 1, "S"],
        **{name: [HIDDEN, "n"] for name in "qkv"},
        "o": ["n", HIDDEN],
        **{f"{name}_scale": ["n"] for name in "qkv"},
        "q_bias": ["n"],
        "v_bias": ["n"],
        "o_scale": [HIDDEN],
        "q_idx": ["k_q"],
        "q_w": ["m", "k_q", HEAD],
        "k_idx": ["k_k"],
        "k_w": ["m", "k_k", HEAD],
        "o_idx": ["k_o"],
        "o_w": ["k_o", HIDDEN],
    }
    for made in (attention_model(side=("o",)), ffn_model(side=("down",)), ffn_model()):
        names = {item.name for item in onnx.load_from_string(made).graph.input}
        assert names.isdisjoint({"h", "own_h"})


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cuts", [(0, 9, 40), (0, 20, 40), (0, 8, 17, 32, 40)])
def test_shares_of_the_tokens_together_are_the_whole_to_the_bit(
    cuts: tuple[int, ...], masked: bool
) -> None:
    rng = np.random.default_rng(15)
    attention, ffn = (make(rng, batch=2, tokens=40) for make in (attention_feeds, ffn_feeds))
    if masked:
        attention["mask"] = np.zeros((2, 1, 1, 40), np.float32)
        attention["mask"][1, ..., 33:] = -10000
    for model, feeds in ((attention_model(masked=masked), attention), (ffn_model(), ffn)):
        whole, parts = run(model, feeds), []
        for first, last in pairwise(cuts):
            own = spec.own_tokens(feeds, first, last)
            if "own_xq" not in feeds:
                own = {name.removeprefix("own_"): rows for name, rows in own.items()}
            parts.append(run(model, feeds | own))
        assert np.array_equal(np.concatenate(parts), whole)


def test_an_unknown_product_has_no_side_input() -> None:
    with pytest.raises(StiError, match="down"):
        attention_model(side=("down",))
