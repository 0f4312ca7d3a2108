"""Which decoder is chosen, and what is said where there is none of the name."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sti.codec.decoders import available_paths, kernel, kernel_path, make_decoder
from sti.codec.native import kernel as native_kernel
from sti.codec.native.library import library
from sti.codec.native.structures import FINE
from sti.codec.word_rows import decode_rows
from sti.errors import BackendError
from tests.support.codes import bell_codebook

BOOK = bell_codebook()
KERNEL = "sti.codec.native.kernel"


def test_every_path_can_be_asked_for_and_the_first_one_is_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("STI_KERNEL", raising=False)
    paths = available_paths()
    assert paths[-1] == "portable" and len(set(paths)) == len(paths)
    assert make_decoder(BOOK, weights="s8").path == kernel_path() == paths[0]
    for path in paths:
        assert make_decoder(BOOK, weights="u8", path=path).path == path
        monkeypatch.setenv("STI_KERNEL", path)
        assert make_decoder(BOOK, weights="s8").path == kernel_path() == path
        assert make_decoder(BOOK, weights="s8", path="portable").path == "portable"


def test_a_path_that_does_not_work_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"^no decoder 'sse9' on this.*; name one.*portable"):
        make_decoder(BOOK, weights="s8", path="sse9")
    monkeypatch.setenv("STI_KERNEL", "sse9")
    with pytest.raises(BackendError, match=r"^STI_KERNEL: no decoder 'sse9'.*; unset STI_KERNEL"):
        make_decoder(BOOK, weights="s8")
    with pytest.raises(BackendError, match=r"^STI_KERNEL: no decoder 'sse9'"):
        kernel_path()


def test_without_the_kernel_numpy_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STI_KERNEL", raising=False)
    without_library = ModuleType(KERNEL)
    without_library.available_paths = tuple  # type: ignore[attr-defined]
    for found in (None, without_library):
        monkeypatch.setitem(sys.modules, KERNEL, found)  # type: ignore[arg-type]
        assert available_paths() == ("portable",)
        assert kernel() is None
        assert make_decoder(BOOK, weights="s8").path == "portable"


def test_the_path_that_is_named_decodes_word_rows_too(
    compiled_kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, used = library(), []
    assert loaded is not None

    def rows(*given: Any) -> int:
        used.append(given[-2])  # the features
        return FINE

    watched = SimpleNamespace(paths=loaded.paths, rows=rows)
    monkeypatch.setattr(native_kernel, "library", lambda: watched)
    raw, ids, out = np.zeros((1, 38), np.uint8), np.zeros(1, np.int64), np.ones((1, 64), np.float32)
    for path in ("", *loaded.paths):
        monkeypatch.setenv("STI_KERNEL", path)
        assert decode_rows(raw, ids, 64, out) is None
    best, *_ = features = list(loaded.paths.values())
    assert used == [best, *features]
    monkeypatch.setenv("STI_KERNEL", "portable")
    assert kernel() is None
    assert decode_rows(raw, ids, 64, out) == 0  # its checksum
    assert used == [best, *features]
    monkeypatch.setenv("STI_KERNEL", "sse9")
    with pytest.raises(BackendError, match="sse9"):
        decode_rows(raw, ids, 64, out)
