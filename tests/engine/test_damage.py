"""Damaged packs: what is left out, what is refused, and that nothing changes silently."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import sti
from benchmarks.corruption import BAD, KINDS, Trial
from sti.engine.options import EngineOptions
from sti.model.manifest import SliceGroup
from sti.pack.pack_reader import PackReader
from sti.planning.plan import Plan
from sti.storage.file_reader import FileReader
from sti.testing.faults import Fault, Flipped, Raises
from sti.testing.faulty_reader import FaultyReader
from tests.support.packs import PROFILE, TEXTS, tiny_pack

GROUP = 3
"""The second group of the first feed-forward block."""


class Copy:
    """A copy of a pack that can be damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def flip(self, offset: int) -> None:
        with self.path.open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))

    def damage(self, piece: int, number: int = 1) -> SliceGroup:
        """Damage a piece of a slice of ``GROUP``: 0 is its outlier list, p its p-th plane."""
        with PackReader.open(self.path) as reader:
            group = reader.manifest.groups[GROUP]
            start = reader.group_offset(group)
        if piece == 0:
            self.flip(start + sum(group.outlier_bytes[:number]))
            return group
        start += sum(group.outlier_bytes)
        *below, plane = group.planes[:piece]
        start += sum(group.slices * item.shard_bytes for item in below)
        self.flip(start + plane.order.index(number) * plane.shard_bytes + 3)
        return group


Copier = Callable[..., Copy]


@pytest.fixture
def copy(tmp_path: Path) -> Copier:
    def make(task: str = "classification") -> Copy:
        path = tmp_path / f"{task}.sti.safetensors"
        return Copy(Path(shutil.copyfile(tiny_pack(task), path)))  # type: ignore[arg-type]

    return make


def opened(path: Path, **options: object) -> sti.Engine:
    named = {"fidelity": 8, "threads": 1, "profile": PROFILE} | options
    return sti.Engine.open(path, **named)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["classification", "tagging", "regression"])
@pytest.mark.parametrize("piece", [2, 3, 5])
def test_a_damaged_plane_is_left_out_told_and_replayable(
    copy: Copier, task: str, piece: int
) -> None:
    bad = copy(task)
    group = bad.damage(piece)
    with opened(bad.path) as engine:
        with pytest.warns(sti.StiWarning, match=f"slice {group.first + 1}, plane of") as said:
            found = engine.run(TEXTS)
        with pytest.warns(sti.StiWarning):
            straight = engine.run(TEXTS, mode="sequential")
    assert str(bad.path) in str(said[0].message) and "sti-shard verify" in str(said[0].message)
    (item,) = found.downgrades
    assert (item.layer, item.kind, item.group) == (group.layer, group.kind, group.number)
    assert item.bits == group.planes[piece - 1].bits
    step = found.plan.steps[GROUP]
    assert step.counts == (*(2,) * (piece - 1), *(0,) * (6 - piece))
    assert found.to_json()["downgrades"] == [item.to_json()]
    plan = Plan.from_text(found.plan.to_text(), where="replay")
    with sti.Engine.open(tiny_pack(task), plan=plan, threads=1) as sound:  # type: ignore[arg-type]
        again = sound.run(TEXTS)
    with opened(tiny_pack(task)) as sound:  # type: ignore[arg-type]
        whole = sound.run(TEXTS)
    assert str(found.answer.to_json()) == str(again.answer.to_json())
    assert str(found.answer.to_json()) == str(straight.answer.to_json())
    assert str(found.answer.to_json()) != str(whole.answer.to_json())


def test_two_damaged_planes_of_a_group_leave_the_lower_one_out(copy: Copier) -> None:
    bad = copy()
    bad.damage(4, number=0)
    bad.damage(3, number=1)
    with opened(bad.path) as engine, pytest.warns(sti.StiWarning):
        (item,) = engine.run(TEXTS).downgrades
    assert (item.bits, item.slice) == (4, 3)


def test_a_machine_is_measured_with_a_damaged_pack(
    copy: Copier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("sti.calibration.calibrate.BUDGET_S", 0.1)
    bad = copy()
    for number in range(2):
        bad.damage(5, number=number)
    with sti.Engine.open(bad.path, latency="60s", threads=1) as engine:
        assert tuple(engine.profile.decode.weight_s) == engine.manifest.ladder
        with pytest.warns(sti.StiWarning, match="plane of 8 bits"):
            assert engine.run(TEXTS).downgrades


def test_a_deleted_pack_can_be_aimed_elsewhere(
    copy: Copier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("sti.calibration.calibrate.BUDGET_S", 0.1)
    whole = copy()
    with sti.Engine.open(whole.path, fidelity=4, threads=1) as engine:
        whole.path.unlink()
        engine.set_target(latency="60s")  # which measures this machine
        with pytest.warns(sti.StiWarning, match="deleted"):
            engine.run(TEXTS)


def test_strict_engines_refuse_what_could_be_left_out(copy: Copier) -> None:
    bad = copy()
    bad.damage(4)
    with opened(bad.path, strict=True) as engine:
        with pytest.raises(sti.PackCorruptError, match="layer 0 ffn, group 1, slice 3, plane of 6"):
            engine.run(TEXTS)
        engine.set_target(fidelity=4)  # nothing that it reads is damaged
        engine.run(TEXTS)


def test_comparable_embeddings_refuse_and_others_answer(copy: Copier) -> None:
    bad = copy("embedding")
    bad.damage(2)
    with opened(bad.path) as engine, pytest.raises(sti.PackCorruptError, match="plane of 3 bits"):
        engine.run(TEXTS)
    with opened(bad.path, comparable=False) as engine, pytest.warns(sti.StiWarning):
        assert engine.run(TEXTS).downgrades


@pytest.mark.parametrize(("piece", "named"), [(0, "outlier list"), (1, "plane of 2 bits")])
@pytest.mark.parametrize("fidelity", [2, 8])
def test_what_every_fidelity_needs_is_refused_with_its_place(
    copy: Copier, piece: int, named: str, fidelity: int
) -> None:
    bad = copy()
    bad.damage(piece)
    place = f"{bad.path}: layer 0 ffn, group 1, slice 3, {named}: checksum does not match"
    with opened(bad.path, fidelity=fidelity) as engine:
        for _ in range(2):
            with pytest.raises(sti.PackCorruptError, match=place):
                engine.run(TEXTS)


def test_a_damaged_token_embedding_is_refused_where_a_text_needs_it(copy: Copier) -> None:
    bad = copy()
    with PackReader.open(bad.path) as reader:
        at, row_bytes = reader.embeddings_offset, reader.manifest.embeddings.row_bytes
    with opened(bad.path) as engine:
        first, second = (engine.tokenize([text])[0].ids for text in TEXTS[:2])
        used = next(token for token in first if token not in second)
        expected = engine.run([TEXTS[1]])
    bad.flip(at + int(used) * row_bytes)
    with opened(bad.path) as engine:
        with pytest.raises(sti.PackCorruptError, match=f"token embedding {used}: checksum"):
            engine.run([TEXTS[0]])
        np.testing.assert_array_equal(engine.run([TEXTS[1]]).logits, expected.logits)


def test_preloaded_bytes_are_checked_too(copy: Copier) -> None:
    bad = copy()
    bad.damage(3)
    with opened(bad.path, preload="1MB") as engine:
        assert engine.preloaded(10)
        with pytest.warns(sti.StiWarning):
            assert engine.run(TEXTS).downgrades


@pytest.mark.parametrize("strict", [False, True])
def test_what_is_held_is_read_again_after_it_proved_damaged(copy: Copier, strict: bool) -> None:
    whole = copy()
    with PackReader.open(whole.path) as reader:
        group = reader.manifest.groups[0]
        at = reader.group_offset(group) + group.length - 1
    storage = FaultyReader(FileReader(whole.path), Fault(effect=Flipped(at)))
    with opened(whole.path, preload="1MB", storage=storage, strict=strict) as engine:
        assert engine.preloaded(10) and storage.injected
        if strict:
            with pytest.raises(sti.PackCorruptError, match="layer 0 attention, group 0"):
                engine.run(TEXTS)
        else:
            with pytest.warns(sti.StiWarning):
                assert engine.run(TEXTS).downgrades
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(3):
                assert not engine.run(TEXTS).downgrades
                assert engine.preloaded(10)
            calls = storage.calls
            engine.run(TEXTS)
        assert storage.calls == calls + 1  # rows; all else is held again


def test_an_interrupt_while_weights_are_preloaded_costs_no_thread(copy: Copier) -> None:
    whole = copy()
    storage = FaultyReader(FileReader(whole.path), Fault(effect=Raises(KeyboardInterrupt)))
    with opened(whole.path, preload="1MB", storage=storage) as engine:
        assert not engine.preloaded(10) and storage.injected
        engine.run(TEXTS)
        assert engine.preloaded(10)


def test_verify_compares_the_whole_pack_at_opening(copy: Copier) -> None:
    bad = copy()
    opened(bad.path, verify=True).close()
    bad.damage(5)
    with pytest.raises(sti.PackCorruptError, match="SHA-256"):
        opened(bad.path, verify=True, fidelity=2)
    opened(bad.path, fidelity=2).close()


def test_only_engines_made_for_benchmarks_do_not_look(copy: Copier) -> None:
    bad = copy()
    bad.damage(3)
    options = EngineOptions(threads=1, profile=PROFILE, check=False)
    with (
        sti.Engine(PackReader.open(bad.path), sti.TargetSpec(fidelity=8), options) as engine,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        assert not engine.run(TEXTS).downgrades


@pytest.mark.parametrize("task", ["classification", "embedding"])
def test_random_damage_never_changes_an_answer_silently(tmp_path: Path, task: str) -> None:
    trial = Trial(tiny_pack(task), tmp_path)  # type: ignore[arg-type]
    outcomes = [trial.run(number, 7) for number in range(20 * len(KINDS))]
    assert {kind for kind, _ in outcomes} == set(KINDS)
    assert not [outcome for _, outcome in outcomes if outcome in BAD]
    assert {"refused", "same answer"} <= {outcome for _, outcome in outcomes}
