"""Inputs that once broke a reader, or reach most of it, and a few others made of them."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.fuzz import corpus
from tests.fuzz.keeping import fewest
from tests.fuzz.mutations import mutated
from tests.fuzz.names import NAMES
from tests.fuzz.registry import all_targets
from tests.fuzz.target import Target, examine, must

_MUTANTS = 5


@pytest.mark.parametrize("name", NAMES)
def test_readers_refuse_what_they_cannot_use(name: str) -> None:
    if name == "state":
        pytest.importorskip("torch")
    target, rng = all_targets()[name], Random(name)
    inputs = [*target.seeds(), *corpus.stored(name)]
    mutants = (mutated(rng.choice(inputs), target.form, target.words, rng) for _ in range(_MUTANTS))
    found = [examine(target, data) for data in (*inputs, *mutants)]
    assert [item for item in found if item is not None and item.said] == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::sti.errors.StiWarning")  # entries of another kind
def test_sound_inputs_are_taken(name: str) -> None:
    target = all_targets()[name]
    for data in target.seeds():
        target.read(data)


def test_errors_of_other_kinds_and_broken_promises_are_findings() -> None:
    def read(data: bytes) -> None:
        must(data != b"promise", "another promise")
        _ = 1 // len(data)

    target = Target("made up", read, lambda: [b"a"], "bytes")
    assert examine(target, b"a") is None
    for data, kind in ((b"", "ZeroDivisionError harness"), (b"promise", "Broken harness")):
        found = examine(target, data)
        assert found is not None
        assert found.kind == kind


def test_the_corpus_keeps_what_reaches_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = all_targets()["units"]
    inputs = [b"200ms", b"1ms", b"nothing", b"99%", b"98%"]
    kept = fewest(target, inputs)
    assert len(kept) < len(inputs)
    monkeypatch.setattr(corpus, "CORPUS", tmp_path)
    assert corpus.store("units", kept, [b"always"]) == len(kept) + 1
    assert corpus.stored("units") == [b"always", *kept]
    before = (tmp_path / "units.tar.xz").read_bytes()
    corpus.store("units", kept, [b"always"])
    assert (tmp_path / "units.tar.xz").read_bytes() == before
