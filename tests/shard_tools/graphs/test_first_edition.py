"""Today's block graphs against those of the first edition, on the same weights."""

from __future__ import annotations

import numpy as np
import pytest

from shard_tools.graphs.spec import GraphSpec
from tests.support import graph_spec
from tests.support.first_graphs import FIRST_GRAPHS, first_graphs
from tests.support.graph_cases import (
    EXACT,
    Array,
    Feeds,
    floats,
    hidden_feeds,
    row_scales,
    run,
    side_feeds,
    weights,
)

BATCH = 3


def sliced(joined: Array, slices: int) -> Array:
    """Slices side by side ``[..., m n]``, as the first edition took them: ``[m, ..., n]``."""
    rows = joined.reshape(-1, slices, joined.shape[-1] // slices)
    return np.ascontiguousarray(rows.transpose(1, 0, 2))


def by_sentence(h: Array) -> Array:
    """Hidden states ``[S, B, d]`` in the order of the first edition."""
    return np.ascontiguousarray(h.swapaxes(0, 1))


def block_feeds(rng: np.random.Generator, spec: GraphSpec, kind: str, slices: int) -> Feeds:
    """Random feeds of today's graph of a block kind."""
    attention = kind == "attention"
    width = spec.head_size if attention else spec.neurons
    inner, outer = (("q", "k", "v"), "o") if attention else (("up",), "down")
    channels = slices * width
    feeds: Feeds = {}
    for name in inner:
        feeds[name] = weights(rng, spec.hidden, channels)
        feeds[f"{name}_scale"] = row_scales(rng, channels)
        if name != "k":
            feeds[f"{name}_bias"] = floats(rng, channels, spread=0.3)
        feeds |= side_feeds(rng, name, spec.hidden, (slices, width), 3)
    feeds[outer] = weights(rng, channels, spec.hidden)
    feeds[f"{outer}_scale"] = row_scales(rng, spec.hidden)
    return feeds | side_feeds(rng, outer, channels, (spec.hidden,), 3)


def first_feeds(feeds: Feeds, slices: int) -> Feeds:
    """The same for the first edition."""
    found = dict(feeds)
    for name in ("q", "k", "v", "up"):
        for part in (name, f"{name}_scale", f"{name}_bias"):
            if part in found:
                found[part] = sliced(found[part], slices)
    for name in ("o", "down"):
        if name in found:
            found[name] = found[name].reshape(slices, -1, found[name].shape[-1])
    if "mask" in found:
        found["mask"] = found["mask"][:, 0]
    return found


@pytest.mark.parametrize("tokens", [2, 9, 40])
@pytest.mark.parametrize("name", ["attention", "attention_masked", "ffn"])
@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("number", range(len(FIRST_GRAPHS)))
def test_blocks_have_the_bits_of_the_first_edition(
    number: int, slices: int, name: str, tokens: int
) -> None:
    rng = np.random.default_rng(tokens)
    spec = GraphSpec.from_json(FIRST_GRAPHS[number]["spec"], where="")
    h = floats(rng, tokens, BATCH, spec.hidden)
    feeds = block_feeds(rng, spec, name.partition("_")[0], slices)
    feeds["mask"] = np.zeros((BATCH, 1, 1, tokens), np.float32)
    feeds["mask"][1, ..., tokens - 1 :] = -10000
    now = feeds | hidden_feeds(h)
    found = run(spec.build()[f"{name}.{EXACT}"], now | graph_spec.own_tokens(now))
    then = first_feeds(feeds, slices) | {"h": by_sentence(h)}
    expected = run(first_graphs(number)[f"{name}.{EXACT}"], then)
    np.testing.assert_array_equal(by_sentence(found), expected)


@pytest.mark.parametrize("tokens", [2, 9, 40])
@pytest.mark.parametrize("number", range(len(FIRST_GRAPHS)))
def test_what_is_around_blocks_has_the_bits_of_the_first_edition(number: int, tokens: int) -> None:
    rng = np.random.default_rng(tokens)
    spec = GraphSpec.from_json(FIRST_GRAPHS[number]["spec"], where="")
    now, then, d = spec.build(), first_graphs(number), spec.hidden
    embed = {
        "words": floats(rng, BATCH, tokens, d),
        "positions": floats(rng, 64, d).astype(np.float16),
        "types": floats(rng, 2, d),
        "type_ids": rng.integers(0, 2, (BATCH, tokens)),
        "gamma": 1 + floats(rng, d, spread=0.1),
        "beta": floats(rng, d, spread=0.1),
    }
    h = run(now["embed"], embed)
    np.testing.assert_array_equal(by_sentence(h), run(then["embed"], embed))

    sums = {name: floats(rng, tokens, BATCH, d) for name in ("partial", "residual")}
    fixed = {"bias": floats(rng, d), "gamma": embed["gamma"], "beta": embed["beta"]}
    first = {name: by_sentence(value) for name, value in sums.items()}
    found, expected = run(now["connect"], fixed | sums), run(then["connect"], fixed | first)
    np.testing.assert_array_equal(by_sentence(found), expected)

    counted = np.ones((BATCH, tokens), np.float32)
    counted[1, tokens - 1 :] = 0
    head = {
        "tokens": counted,
        "pooler_w": floats(rng, d, d),
        "pooler_b": floats(rng, d),
        "classifier_w": floats(rng, d, 5),
        "classifier_b": floats(rng, 5),
    }
    expected = run(then["head"], head | {"h": by_sentence(h)})
    np.testing.assert_array_equal(run(now["head"], head | {"h": h}), expected)
