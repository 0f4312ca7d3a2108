"""What training sees and when: rows kept out, batches, and the passes of a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

import torch

from shard_tools.checkpoint.tokenizer_files import load_tokenizer
from shard_tools.data.rows import Row
from shard_tools.train.data import Batch, Examples, batches, encode_rows, hold_out
from shard_tools.train.sampling import Sampler, milestones
from sti.errors import InputError
from sti.text.tokenizer import Tokenizer
from tests.support.checkpoints import write_checkpoint

# Rows kept out

PHRASES = st.lists(st.sampled_from(["a", "b", "A", "aa", "ab"]), min_size=1, max_size=5)
ROWS = st.lists(st.tuples(PHRASES, st.sampled_from("xy")), min_size=1, max_size=30)


def rows_of(items: Sequence[tuple[Sequence[str], str]]) -> list[Row]:
    return [Row(" ".join(words), label, line) for line, (words, label) in enumerate(items, 2)]


def inside(one: Row, other: Row) -> bool:
    """Whether the words of ``one`` stand somewhere in ``other``, one after the other."""
    short, long = (str(row.text).lower().split() for row in (one, other))
    starts = range(len(long) - len(short) + 1)
    return any(long[start : start + len(short)] == short for start in starts)


@settings(max_examples=200)
@given(items=ROWS, count=st.integers(0, 12), seed=st.integers(0, 3), by_label=st.booleans())
def test_nothing_held_out_is_trained_on_not_even_as_a_part(
    items: Sequence[tuple[Sequence[str], str]], count: int, seed: int, by_label: bool
) -> None:
    rows = rows_of(items)
    try:
        training, held = hold_out(rows, count, seed=seed, by_label=by_label)
    except InputError:
        assert count > 0
        return
    assert len(held) == count
    lines = {row.line for row in held}
    for row in rows:
        leaks = any(inside(row, other) or inside(other, row) for other in held)
        trained = any(row is other for other in training)
        # Nothing leaks, and nothing is left out without need.
        assert trained == (not leaks if count else True)
        assert not (trained and row.line in lines)
    for part in (training, held):
        assert [row.line for row in part] == sorted(row.line for row in part)


def unique_rows(counts: dict[str, int]) -> list[Row]:
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [Row(f"w{line}", label, line) for line, label in enumerate(labels)]


def test_every_label_gives_its_share_of_what_is_held_out() -> None:
    rows = unique_rows({"x": 100, "y": 50, "z": 7})
    training, held = hold_out(rows, 30, seed=0, by_label=True)
    shares = Counter(row.label for row in held)
    assert sum(shares.values()) == 30 and len(training) == 127
    assert 19 <= shares["x"] <= 21 and 9 <= shares["y"] <= 11 and 1 <= shares["z"] <= 3


def test_what_is_held_out_depends_on_the_seed_alone() -> None:
    rows = unique_rows({"x": 100, "y": 50})
    first = hold_out(rows, 30, seed=5, by_label=True)
    assert hold_out(list(rows), 30, seed=5, by_label=True) == first
    assert hold_out(rows, 30, seed=6, by_label=True) != first


def test_only_rows_that_are_no_part_of_another_are_held_out_on_request() -> None:
    whole = [f"w{line} x w{line} y z{line}" for line in range(20)]
    parts = [f"W{line} y" for line in range(20)] + ["x"] * 10
    alike = ["twice there", "Twice  there"]  # neither is a part of the other
    texts = [*parts[:25], *whole, *parts[25:], *alike]
    rows = [Row(text, "x", line) for line, text in enumerate(texts)]
    for seed in range(8):
        _, held = hold_out(rows, 18, seed=seed, by_label=False, whole=True)
        assert {str(row.text) for row in held} <= {*whole, *alike} and len(held) == 18
    message = "rows.tsv: 23 rows for calibration .* there are 22 that are no part of another row"
    with pytest.raises(InputError, match=message):
        hold_out(rows, 23, seed=0, by_label=False, whole=True, where="rows.tsv")


def test_pairs_leak_as_wholes_only() -> None:
    texts = [("a b", "c"), ("A  b", "c"), ("a", "b c"), ("b", "c"), ("a b", "d")]
    rows = [Row(text, "x", line) for line, text in enumerate(texts)]
    for seed in range(8):
        training, held = hold_out(rows, 1, seed=seed, by_label=False)
        left = {row.line for row in rows} - {row.line for row in (*training, *held)}
        # Pair 1 is pair 0 in other letters, and pair 3 ends both.
        assert left == {0: {1, 3}, 1: {0, 3}, 2: set(), 3: {0, 1}, 4: set()}[held[0].line]


def test_holding_out_more_than_there_is_or_all_is_refused() -> None:
    rows = unique_rows({"x": 10})
    message = r"d: 11 rows for calibration .* there are 10; .*--calibration-rows"
    with pytest.raises(InputError, match=message):
        hold_out(rows, 11, seed=0, by_label=True, where="d")
    with pytest.raises(InputError, match="with 10 rows for calibration none are left to train on"):
        hold_out(rows, 10, seed=0, by_label=True)
    assert hold_out(rows, 0, seed=0, by_label=True) == (rows, [])


# Batches


def made(lengths: Sequence[int]) -> Examples:
    """Examples whose tokens tell which they are."""
    ids = tuple(np.full(length, row + 1) for row, length in enumerate(lengths))
    types = tuple(np.arange(length) % 2 for length in lengths)
    return Examples(ids, types, np.arange(len(lengths), dtype=np.float32))


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=40),
    size=st.integers(1, 7),
    seed=st.none() | st.integers(0, 3),
)
def test_batches_have_every_example_once_and_whole(
    lengths: Sequence[int], size: int, seed: int | None
) -> None:
    examples = made(lengths)

    def run() -> list[Batch]:
        return list(batches(examples, size, shuffle=None if seed is None else Random(seed)))

    found = run()
    assert sorted(row for batch in found for row in batch.rows) == list(range(len(lengths)))
    assert len(found) == -(-len(lengths) // size)
    for batch in found:
        longest = max(lengths[row] for row in batch.rows)
        assert batch.tokens.ids.shape == (len(batch.rows), longest)
        assert batch.targets.tolist() == list(batch.rows)
        for place, row in enumerate(batch.rows):
            present = batch.tokens.present[place]
            assert present.tolist() == [at < lengths[row] for at in range(longest)]
            assert batch.tokens.ids[place].tolist() == (present * (row + 1)).tolist()
            assert batch.tokens.types[place][present].tolist() == examples.types[row].tolist()
    assert [batch.rows for batch in run()] == [batch.rows for batch in found]


def test_batches_hold_texts_of_like_length_in_an_order_that_changes() -> None:
    lengths = [int(n) for n in np.random.default_rng(0).integers(1, 60, 2000)]
    examples = made(lengths)
    orders = [list(batches(examples, 16, shuffle=Random(seed))) for seed in (0, 1)]
    padded = sum(batch.tokens.ids.numel() for batch in orders[0])
    assert padded < 1.1 * sum(lengths)
    assert orders[0][0].rows != orders[1][0].rows
    longest = [batch.tokens.ids.shape[1] for batch in orders[0]]
    assert longest != sorted(longest)


def test_long_texts_are_cut_as_the_tokenizer_cuts_them(tmp_path: Path) -> None:
    spec, vocabulary, tables = load_tokenizer(write_checkpoint(tmp_path))
    short = spec._replace(max_tokens=7)
    rows = [Row("the dog runs " * 9, "", 2), Row(("the dog " * 5, "a cat"), "", 3)]
    found = encode_rows(rows, [0.0, 1.0], Tokenizer(short, vocabulary, tables))
    ends = vocabulary.decode().split("\n").index("[SEP]")
    assert [len(ids) for ids in found.ids] == [7, 7]
    assert all(ids[-1] == ends for ids in found.ids)
    assert found.types[1].max() == 1  # something is left of the second text


# Passes

DEPTHS = {3: (0, 1, 2), 2: (0, 2), 1: (2,)}


def test_the_same_step_has_the_same_passes_whatever_ran_before() -> None:
    sampler = Sampler(DEPTHS, 4, (2, 4, 8), seed=3, passes=2)
    expected = sampler.others(17)
    for step in range(5):
        sampler.others(step)
    torch.manual_seed(99)
    for (name, run), (known, wanted) in zip(sampler.others(17), expected, strict=True):
        assert (name, run.layers, run.width) == (known, wanted.layers, wanted.width)
        assert run.levels is not None and wanted.levels is not None
        assert run.levels.tolist() == wanted.levels.tolist()
    other = Sampler(DEPTHS, 4, (2, 4, 8), seed=4, passes=2)
    assert any(str(other.others(step)) != str(sampler.others(step)) for step in range(3))


@pytest.mark.parametrize("ladder", [(2, 4, 8), ()])
def test_every_depth_width_and_fidelity_has_its_turn(ladder: tuple[int, ...]) -> None:
    sampler = Sampler(DEPTHS, 4, ladder, seed=0, passes=2)
    sizes, levels, of_smallest, mixed = set(), set(), set(), 0
    for step in range(400):
        names, runs = zip(*sampler.others(step), strict=True)
        assert names == ("smallest", "middle", "random", "random")
        smallest, between = runs[:2]
        assert (smallest.layers, smallest.width) == ((2,), 1)
        assert (between.layers, between.width) == ((2,), 2)
        for run in runs:
            assert run.layers == DEPTHS[len(run.layers)]
            sizes.add((len(run.layers), run.width))
            if not ladder:
                assert run.levels is None
                continue
            assert run.levels is not None
            assert run.levels.shape == (len(run.layers), 2, run.width)
            found = set(run.levels.flatten().tolist())
            levels |= found
            mixed += len(found) > 1
        if smallest.levels is not None:
            of_smallest |= set(smallest.levels.flatten().tolist())
    assert sizes == {(depth, width) for depth in DEPTHS for width in (1, 2, 3, 4)}
    assert levels == of_smallest == set(range(len(ladder)))
    assert (mixed > 50) == bool(ladder)


def test_the_full_pass_is_the_full_model_at_the_top() -> None:
    run = Sampler(DEPTHS, 4, (2, 4, 8), seed=0, passes=2).full()
    assert (run.layers, run.width) == ((0, 1, 2), 4)
    assert run.levels is not None and bool((run.levels == 2).all())
    assert Sampler(DEPTHS, 4, (), seed=0, passes=2).full().levels is None


def test_a_uniform_pass_has_the_level_of_its_bits() -> None:
    run = Sampler(DEPTHS, 4, (2, 4, 8), seed=0, passes=2).uniform(2, 3, 4)
    assert (run.layers, run.width) == ((0, 2), 3)
    assert run.levels is not None and run.levels.tolist() == [[[1] * 3] * 2] * 2


@pytest.mark.parametrize(("layers", "slices"), [(12, 12), (6, 12), (2, 4), (1, 1)])
def test_milestones_lie_within_the_model(layers: int, slices: int) -> None:
    for ladder in ((2, 3, 4, 6, 8), (4,), (0,)):
        found = milestones(layers, slices, ladder)
        assert found[0] == (layers, slices, ladder[-1])
        for depth, width, bits in found:
            assert 1 <= depth <= layers and 1 <= width <= slices and bits in ladder


def alike_and_unlike() -> list[Row]:
    """For each of two labels, six rows that vary one text, and six that share no word."""
    rows = []
    for label in "ab":
        rows += [Row(f"{label} turn the light in room {i} on", label, 1) for i in range(6)]
        rows += [Row(f"{label}{i} only{label}{i} here{label}{i}", label, 1) for i in range(6)]
    return rows


def test_rows_unlike_any_other_are_held_out_where_asked_for() -> None:
    rows = alike_and_unlike()
    training, held = hold_out(rows, 12, seed=0, by_label=True, share=0.5)
    assert len(held) == 12 and len(training) == 12
    assert all("light" not in row.text for row in held)


def test_more_rows_than_the_share_has_are_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match=r"there are 12 in the share of 0\.5.*--calibration-rows"):
        hold_out(alike_and_unlike(), 13, seed=0, by_label=True, share=0.5)
