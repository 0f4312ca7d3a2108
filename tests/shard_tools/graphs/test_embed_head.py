"""The graphs before and after the blocks, embed and head, against NumPy."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from shard_tools.graphs.embed_head import HeadSpec, build_embed, build_head
from sti.errors import StiError
from tests.support import graph_spec as spec
from tests.support.graph_cases import EPSILON, HIDDEN, embed_feeds, floats, run


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
    head = HeadSpec("embedding", pooling, normalize=normalize)
    found = run(build_head(hidden=HIDDEN, head=head), feeds)
    np.testing.assert_allclose(found, expected, atol=2e-6)


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
    found = run(build_head(hidden=HIDDEN, head=HeadSpec("sequence", pooling)), feeds)
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
    with pytest.raises(StiError, match="mean or cls"):
        build_head(hidden=HIDDEN, head=HeadSpec("embedding", "pooler"))
