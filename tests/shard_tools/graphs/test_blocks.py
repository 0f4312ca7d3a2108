"""The block graphs of a pack against NumPy, and what the engine relies on to the bit."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shard_tools.graphs.blocks import build_connect
from shard_tools.graphs.embed_head import HeadSpec, build_embed, build_head
from sti.errors import StiError
from tests.support import graph_spec as spec
from tests.support.graph_cases import (
    ACTIVATIONS,
    EPSILON,
    EXACT,
    HEAD,
    HIDDEN,
    NEURONS,
    SATURATES,
    SLICES,
    Activation,
    Array,
    Feeds,
    attention_feeds,
    attention_model,
    connect_feeds,
    embed_feeds,
    ffn_feeds,
    ffn_model,
    flipped,
    floats,
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


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("slices", range(1, SLICES + 1))
def test_attention_computes_its_integers_and_approximates_its_floats(
    slices: int, masked: bool
) -> None:
    rng = np.random.default_rng(slices)
    feeds = attention_feeds(rng, batch=3, tokens=7, slices=slices)
    if masked:
        feeds["mask"] = np.zeros((3, 1, 7), dtype=np.float32)
        feeds["mask"][1, 0, 5:] = -10000
    found = run(attention_model(masked=masked), feeds)
    assert found.dtype == np.float32
    assert_integer_path(found, spec.attention(feeds, exact=True))
    assert_close_to_float(found, spec.attention(feeds, exact=False), share=0.015)


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
    found = FFN_SIDES.run(None, feeds)[0]
    assert_integer_path(found, spec.ffn(feeds, activation="gelu", exact=True))

    feeds = attention_feeds(rng, batch=batch, tokens=tokens, slices=slices)
    for name in "qkv":
        feeds |= side_feeds(rng, name, HIDDEN, (slices, HEAD), count)
    feeds |= side_feeds(rng, "o", slices * HEAD, (HIDDEN,), count)
    found = ATTENTION_SIDES.run(None, feeds)[0]
    assert_integer_path(found, spec.attention(feeds, exact=True))


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


def test_extreme_weights_and_activations_do_not_saturate() -> None:
    # Pairs of 255 x 127 are what overflows the 16-bit sums of processors without VNNI.
    rng = np.random.default_rng(6)
    feeds = ffn_feeds(rng, batch=1, tokens=4)
    extreme = np.full((SLICES, HIDDEN, NEURONS), 127, np.int8)
    feeds["up"] = extreme.view(np.uint8) ^ 0x80 if EXACT == "u8" else extreme
    feeds["h"] = np.full((1, 4, HIDDEN), 3.0, np.float32)
    assert_close_to_float(
        run(ffn_model(), feeds), spec.ffn(feeds, activation="gelu", exact=False), share=0.01
    )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tokens", [2, 3, 8, 17, 130])
def test_a_batch_gives_each_sentence_the_bits_it_has_alone(tokens: int, threads: int) -> None:
    rng = np.random.default_rng(tokens)
    batch = 5
    heads = {
        "pooler": HeadSpec("sequence", "pooler"),
        "mean": HeadSpec("sequence", "mean"),
        "cls": HeadSpec("embedding", "cls", normalize=True),
        "normal": HeadSpec("embedding", "mean", normalize=True),
        "tags": HeadSpec("tokens"),
    }
    fixed: Feeds = {
        "classifier_w": floats(rng, HIDDEN, 1),
        "classifier_b": floats(rng, 1),
        "pooler_w": floats(rng, HIDDEN, HIDDEN),
        "pooler_b": floats(rng, HIDDEN),
    }
    of_sentence = {"h", "words", "type_ids", "partial", "residual", "tokens", "mask"}
    side = attention_feeds(rng, batch=batch, tokens=tokens)
    for name in "qkv":
        side |= side_feeds(rng, name, HIDDEN, (SLICES, HEAD), 3)
    side |= side_feeds(rng, "o", SLICES * HEAD, (HIDDEN,), 3)
    ffn_side = ffn_feeds(rng, batch=batch, tokens=tokens)
    ffn_side |= side_feeds(rng, "up", HIDDEN, (SLICES, NEURONS), 3)
    ffn_side |= side_feeds(rng, "down", SLICES * NEURONS, (HIDDEN,), 3)
    mask = {"mask": np.zeros((batch, 1, tokens), np.float32)}
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
        model = build_head(hidden=HIDDEN, head=head)
        feeds = fixed | {"h": floats(rng, batch, tokens, HIDDEN)}
        feeds["tokens"] = np.ones((batch, tokens), np.float32)
        names = {item.name for item in session(model).get_inputs()}
        cases.append((model, {name: value for name, value in feeds.items() if name in names}))
    for model, feeds in cases:
        made = session(model, threads=threads)
        together = made.run(None, feeds)[0]
        for index in range(batch):
            alone = {
                name: value[index : index + 1] if name in of_sentence else value
                for name, value in feeds.items()
            }
            assert np.array_equal(made.run(None, alone)[0][0], together[index])


def test_padding_moves_the_answer_of_a_sentence_by_next_to_nothing() -> None:
    rng = np.random.default_rng(8)
    lengths = [5, 9, 12, 7, 3, 12, 11, 4]
    longest = max(lengths)
    present = (np.arange(longest) < np.array(lengths)[:, None]).astype(np.float32)
    connect = session(build_connect(hidden=HIDDEN, epsilon=EPSILON))
    head = session(build_head(hidden=HIDDEN, head=HeadSpec("embedding", "mean", normalize=True)))
    plain, masked = session(attention_model()), session(attention_model(masked=True))
    ffn = session(ffn_model())
    layers = []
    for _ in range(3):
        blocks = (attention_feeds(rng, batch=1, tokens=2), ffn_feeds(rng, batch=1, tokens=2))
        joins = [connect_feeds(rng, batch=1, tokens=2) for _ in blocks]
        layers.append((blocks, joins))

    def encode(h: Array, tokens: Array, mask: Array | None) -> Array:
        for (attention, feed_forward), joins in layers:
            first = attention | {"h": h} | ({} if mask is None else {"mask": mask})
            made = plain if mask is None else masked
            partial = made.run(None, first)[0]
            h = connect.run(None, joins[0] | {"partial": partial, "residual": h})[0]
            partial = ffn.run(None, feed_forward | {"h": h})[0]
            h = connect.run(None, joins[1] | {"partial": partial, "residual": h})[0]
        return np.asarray(head.run(None, {"h": h, "tokens": tokens})[0])

    h = floats(rng, len(lengths), longest, HIDDEN)
    together = encode(h, present, (present[:, None] - 1) * np.float32(10000))
    gaps, cosines = [], []
    for index, length in enumerate(lengths):
        alone = encode(h[index : index + 1, :length], np.ones((1, length), np.float32), None)[0]
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
    expected = spec.attention(feeds, exact=False)
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
    sliced = {"up", "up_scale", "up_bias", "down"}
    parts = sum(
        run(
            ffn_model(),
            {name: value[group] if name in sliced else value for name, value in feeds.items()},
        )
        for group in (slice(0, 1), slice(1, SLICES))
    )
    assert_close_to_float(np.asarray(parts), whole, share=0.01)


def test_a_token_of_zeros_stays_finite() -> None:
    rng = np.random.default_rng(12)
    attention, ffn = (make(rng, batch=1, tokens=3) for make in (attention_feeds, ffn_feeds))
    for model, feeds in ((attention_model(), attention), (ffn_model(activation="relu"), ffn)):
        feeds["h"][:] = 0
        for name in ("q_bias", "v_bias", "up_bias"):
            feeds[name] = np.zeros_like(feeds[name]) if name in feeds else np.zeros(0)
        used = {item.name for item in session(model).get_inputs()}
        found = run(model, {name: value for name, value in feeds.items() if name in used})
        assert np.array_equal(found, np.zeros_like(found))


def test_connect_adds_and_normalizes() -> None:
    rng = np.random.default_rng(13)
    feeds = connect_feeds(rng, batch=2, tokens=4)
    found = run(build_connect(hidden=HIDDEN, epsilon=EPSILON), feeds)
    np.testing.assert_allclose(found, spec.connect(feeds, epsilon=EPSILON), atol=2e-6)


def test_graphs_are_the_same_bytes_every_time_and_load_on_old_versions() -> None:
    for build in (attention_model, ffn_model):
        model = build(side=("down",) if build is ffn_model else ("o",))
        assert model == build(side=("down",) if build is ffn_model else ("o",))
        parsed = onnx.load_from_string(model)
        onnx.checker.check_model(parsed)
        # onnxruntime 1.21 reads IR versions up to 10 and opsets up to 22.
        assert parsed.ir_version <= 10
        assert all(item.version <= 21 for item in parsed.opset_import)
        assert all(math.prod(item.dims) <= 8 for item in parsed.graph.initializer)


def test_inputs_are_named_and_shaped_as_the_engine_feeds_them() -> None:
    model = onnx.load_from_string(attention_model(masked=True, side=("q", "o")))
    found = {
        item.name: [d.dim_param or d.dim_value for d in item.type.tensor_type.shape.dim]
        for item in model.graph.input
    }
    assert found == {
        "h": ["B", "S", HIDDEN],
        "mask": ["B", 1, "S"],
        **{name: ["m", HIDDEN, HEAD] for name in "qkv"},
        "o": ["m", HEAD, HIDDEN],
        **{f"{name}_scale": ["m", 1, HEAD] for name in "qkv"},
        "q_bias": ["m", 1, HEAD],
        "v_bias": ["m", 1, HEAD],
        "o_scale": [HIDDEN],
        "q_idx": ["k_q"],
        "q_w": ["m", "k_q", HEAD],
        "o_idx": ["k_o"],
        "o_w": ["k_o", HIDDEN],
    }


def test_an_unknown_product_has_no_side_input() -> None:
    with pytest.raises(StiError, match="down"):
        attention_model(side=("down",))
