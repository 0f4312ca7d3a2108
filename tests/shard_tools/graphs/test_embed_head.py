"""The graphs before and after the blocks, embed and head, against NumPy."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from shard_tools.graphs.embed_head import HeadSpec, HeadStep, build_embed, build_head
from sti.errors import StiError
from tests.support import graph_spec as spec
from tests.support.graph_cases import EPSILON, HIDDEN, embed_feeds, floats, run

NORMAL = (HeadStep("normalize", HIDDEN),)


def test_embed_sums_words_positions_and_types() -> None:
    rng = np.random.default_rng(14)
    feeds = embed_feeds(rng, batch=3, tokens=6)
    found = run(build_embed(hidden=HIDDEN, epsilon=EPSILON), feeds)
    np.testing.assert_allclose(found, spec.embed(feeds, epsilon=EPSILON), atol=2e-6)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_embedding_heads_pool(pooling: Literal["mean", "cls"], normalize: bool) -> None:
    rng = np.random.default_rng(15)
    tokens = np.ones((3, 5), np.float32)
    tokens[1, 3:] = 0
    feeds = {"h": floats(rng, 5, 3, HIDDEN), "tokens": tokens}
    expected = spec.mean_pool(feeds) if pooling == "mean" else feeds["h"][0].astype(float)
    if normalize:
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    if pooling == "cls":
        del feeds["tokens"]
    head = HeadSpec("embedding", (pooling,), NORMAL if normalize else ())
    found = run(build_head(hidden=HIDDEN, head=head), feeds)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_other_ways_of_pooling_leave_padding_out_and_stand_side_by_side() -> None:
    h = np.full((3, 2, HIDDEN), -100.0, np.float32)
    h[:, 0, 0], h[:2, 1, 0] = (1.0, -4.0, 3.0), (-2.0, -8.0)
    h[2, 1, 0] = 1000.0  # padding
    tokens = np.array([[1, 1, 1], [1, 1, 0]], np.float32)
    head = HeadSpec("embedding", ("cls", "max", "mean", "sqrt_len", "weighted_mean", "last"))
    found = run(build_head(hidden=HIDDEN, head=head), {"h": h, "tokens": tokens})
    assert found.shape == (2, 6 * HIDDEN)
    root3, root2 = np.sqrt([3.0, 2.0])
    expected = [
        [1.0, 3.0, 0.0, 0.0 / root3, (1.0 - 8.0 + 9.0) / 6.0, 3.0],
        [-2.0, -2.0, -5.0, -10.0 / root2, (-2.0 - 16.0) / 3.0, -8.0],
    ]
    np.testing.assert_allclose(found[:, ::HIDDEN], expected, rtol=1e-6, atol=1e-6)


def test_steps_follow_the_pooling_in_order() -> None:
    rng = np.random.default_rng(18)
    feeds = {
        "h": floats(rng, 4, 3, HIDDEN),
        "step0_w": floats(rng, HIDDEN, 24) / 10,
        "step0_b": floats(rng, 24),
        "step1_w": floats(rng, 24),
        "step1_b": floats(rng, 24),
    }
    steps = (HeadStep("dense", 24, "tanh"), HeadStep("norm", 24), HeadStep("normalize", 24))
    rows = np.tanh(feeds["h"][0] @ feeds["step0_w"] + feeds["step0_b"]).astype(float)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.sqrt(np.square(rows).mean(axis=1, keepdims=True) + 1e-5)
    rows = rows * feeds["step1_w"] + feeds["step1_b"]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = run(build_head(hidden=HIDDEN, head=HeadSpec("embedding", ("cls",), steps)), feeds)
    np.testing.assert_allclose(found, rows, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_sequence_heads_classify(pooling: Literal["mean", "cls", "pooler"]) -> None:
    rng = np.random.default_rng(16)
    feeds = {
        "h": floats(rng, 5, 3, HIDDEN),
        "classifier_w": floats(rng, HIDDEN, 7),
        "classifier_b": floats(rng, 7),
    }
    pooled = feeds["h"][0].astype(float)
    if pooling == "mean":
        feeds["tokens"] = np.ones((3, 5), np.float32)
        pooled = spec.mean_pool(feeds)
    if pooling == "pooler":
        feeds |= {"pooler_w": floats(rng, HIDDEN, HIDDEN), "pooler_b": floats(rng, HIDDEN)}
        pooled = np.tanh(pooled @ feeds["pooler_w"] + feeds["pooler_b"])
    found = run(build_head(hidden=HIDDEN, head=HeadSpec("sequence", (pooling,))), feeds)
    expected = pooled @ feeds["classifier_w"] + feeds["classifier_b"]
    assert found.shape == (3, 7)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_token_head_classifies_every_token() -> None:
    rng = np.random.default_rng(17)
    feeds = {
        "h": floats(rng, 4, 2, HIDDEN),
        "classifier_w": floats(rng, HIDDEN, 3),
        "classifier_b": floats(rng, 3),
    }
    found = run(build_head(hidden=HIDDEN, head=HeadSpec("tokens")), feeds)
    expected = feeds["h"] @ feeds["classifier_w"] + feeds["classifier_b"]
    np.testing.assert_allclose(found, expected.swapaxes(0, 1), atol=1e-4)


def test_an_embedding_has_no_pooler() -> None:
    with pytest.raises(StiError, match="without a pooler"):
        build_head(hidden=HIDDEN, head=HeadSpec("embedding", ("pooler",)))
