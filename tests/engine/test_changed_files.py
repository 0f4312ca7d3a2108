"""A pack that is changed, replaced or deleted under an open engine is noticed in that run."""

from __future__ import annotations

import mmap
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import sti
from sti.backend.onnxruntime.compute import OrtSentenceState
from tests.support.packs import PROFILE, TEXTS, tiny_pack

Change = Callable[[Path], None]


def _overwrite(path: Path, data: bytes, offset: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def copied_over(path: Path) -> None:
    _overwrite(path, other().read_bytes())


def copied_over_with_its_old_time(path: Path) -> None:
    before = path.stat()
    _overwrite(path, other().read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def start_copied_over(path: Path) -> None:
    _overwrite(path, other().read_bytes()[:16384])


def end_copied_over(path: Path) -> None:
    _overwrite(path, other().read_bytes()[-16384:], path.stat().st_size - 16384)


def same_bytes_written_again(path: Path) -> None:
    _overwrite(path, path.read_bytes())


def bit_flipped(path: Path) -> None:
    _overwrite(path, bytes([path.read_bytes()[-20000] ^ 1]), path.stat().st_size - 20000)


def zeroed(path: Path) -> None:
    _overwrite(path, bytes(path.stat().st_size))


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096)


def truncated_and_restored(path: Path) -> None:
    data = path.read_bytes()
    os.truncate(path, 0)
    path.write_bytes(data)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def appended_to(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def written_through_a_map(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        data[-20000] ^= 1
        data.flush()


def written_through_another_name(path: Path) -> None:
    twin = path.with_name("twin")
    os.link(path, twin)
    bit_flipped(twin)


def touched(path: Path) -> None:
    os.utime(path)


def replaced(path: Path) -> None:
    draft = path.with_name("draft")
    shutil.copyfile(other(), draft)
    draft.replace(path)


def replaced_by_the_same(path: Path) -> None:
    draft = path.with_name("draft")
    shutil.copyfile(path, draft)
    draft.replace(path)


def deleted(path: Path) -> None:
    path.unlink()


def deleted_and_made_again(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


def moved_away(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def link_to_another(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(other())


def directory_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


def directory_replaced(path: Path) -> None:
    path.parent.rename(path.parent.with_name("old"))
    path.parent.mkdir()
    shutil.copyfile(other(), path)


WRITTEN: tuple[Change, ...] = (
    copied_over,
    start_copied_over,
    end_copied_over,
    same_bytes_written_again,
    bit_flipped,
    zeroed,
    truncated,
    truncated_and_restored,
    emptied,
    appended_to,
    written_through_a_map,
    written_through_another_name,
    touched,
)
"""The file that is open is no longer what it was: nothing of it can be trusted."""


def rights_changed(path: Path) -> None:
    path.chmod(0o600)


def second_name_given(path: Path) -> None:
    os.link(path, path.with_name("twin"))


def moved_away_and_back(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.with_name("elsewhere").rename(path)


HARMLESS: tuple[Change, ...] = (rights_changed, second_name_given, moved_away_and_back)
"""The bytes are what they were, and so is the time of writing them."""

REPLACED: tuple[Change, ...] = (
    replaced,
    replaced_by_the_same,
    deleted,
    deleted_and_made_again,
    moved_away,
    link_to_another,
    directory_in_its_place,
    directory_replaced,
)
"""The file that is open is whole; its name no longer leads to it."""


def other() -> Path:
    """A pack of the same shape and size with other weights."""
    return tiny_pack(seed=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "packs"
    place.mkdir()
    return Path(shutil.copyfile(tiny_pack(), place / "pack.sti.safetensors"))


@pytest.fixture
def engine(path: Path) -> Iterator[sti.Engine]:
    with sti.Engine.open(path, fidelity=4, threads=1, profile=PROFILE) as opened:
        yield opened


def test_the_other_pack_could_be_taken_for_this_one() -> None:
    assert other().stat().st_size == tiny_pack().stat().st_size


@pytest.mark.parametrize("change", WRITTEN, ids=lambda change: change.__name__)
def test_a_file_that_is_written_to_is_refused(
    path: Path, engine: sti.Engine, change: Change
) -> None:
    engine.run(TEXTS)
    change(path)
    for _ in range(2):
        with pytest.raises(sti.PackCorruptError, match="changed after it was opened"):
            engine.run(TEXTS)


def test_other_bytes_with_the_old_time_are_found_by_their_checksums(
    path: Path, engine: sti.Engine
) -> None:
    engine.run(TEXTS)
    copied_over_with_its_old_time(path)
    for _ in range(2):
        with pytest.raises(sti.PackCorruptError, match="checksum does not match"):
            engine.run(TEXTS)


@pytest.mark.parametrize("change", HARMLESS, ids=lambda change: change.__name__)
def test_other_rights_or_names_change_nothing(
    path: Path, engine: sti.Engine, change: Change
) -> None:
    expected = engine.embed(TEXTS)
    change(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            np.testing.assert_array_equal(engine.embed(TEXTS), expected)


@pytest.mark.parametrize("change", REPLACED, ids=lambda change: change.__name__)
def test_a_file_that_is_replaced_is_told_once_and_still_answers(
    path: Path, engine: sti.Engine, change: Change
) -> None:
    expected = engine.embed(TEXTS)
    change(path)
    with pytest.warns(sti.StiWarning, match="after it was opened") as said:
        result = engine.run(TEXTS)
    assert result.notices == (str(said[0].message),) == tuple(result.to_json()["notices"])
    assert said[0].filename == __file__
    np.testing.assert_array_equal(result.embeddings, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = engine.run(TEXTS)
    assert not result.notices
    np.testing.assert_array_equal(result.embeddings, expected)


def test_warnings_that_are_errors_are_raised_once_a_change(path: Path, engine: sti.Engine) -> None:
    expected = engine.embed(TEXTS)
    path.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(sti.StiWarning, match="deleted"):
            engine.embed(TEXTS)
        np.testing.assert_array_equal(engine.embed(TEXTS), expected)


def test_what_a_failed_run_could_not_tell_is_told_by_the_next(
    path: Path, engine: sti.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(OrtSentenceState, "finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.run(TEXTS)
    with pytest.warns(sti.StiWarning, match="deleted"):
        assert len(engine.run(TEXTS).notices) == 1
    assert not engine.run(TEXTS).notices


def test_a_path_is_meant_from_where_it_was_opened(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    with sti.Engine.open(path.name, fidelity=4, threads=1, profile=PROFILE) as engine:
        monkeypatch.chdir(tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            engine.run(TEXTS)


def test_an_engine_that_does_not_open_leaves_no_descriptor(path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    kept = []
    for _ in range(3):
        with pytest.raises(sti.PlanError) as error:
            sti.Engine.open(path, plan=path.with_name("no plan"), threads=1)
        kept.append(error)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("change", [copied_over, touched, bit_flipped])
def test_a_file_that_is_written_to_during_a_run_is_refused_in_that_run(
    path: Path, engine: sti.Engine, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = OrtSentenceState.step, []

    def step(self: OrtSentenceState, *args: object, **named: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            change(path)
        real(self, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(OrtSentenceState, "step", step)
    with pytest.raises(sti.PackCorruptError):
        engine.run(TEXTS)


def test_a_replaced_file_that_is_then_written_to_is_refused(path: Path, engine: sti.Engine) -> None:
    engine.run(TEXTS)
    twin = path.with_name("twin")
    os.link(path, twin)
    path.unlink()
    with pytest.warns(sti.StiWarning, match="deleted"):
        engine.run(TEXTS)
    bit_flipped(twin)
    with pytest.raises(sti.PackCorruptError, match="changed after it was opened"):
        engine.run(TEXTS)
