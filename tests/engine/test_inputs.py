"""What callers give an engine: batches that memory does not hold, methods of another task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sti
from sti.device import host
from sti.engine.inputs import METHODS, Batch, check_room, check_task
from sti.text.encoding import Alignment

HIDDEN = 100


def batch(*lengths: int) -> Batch:
    def encoding(length: int) -> sti.Encoding:
        ids = np.zeros(length, dtype=np.int64)
        return sti.Encoding(ids, ids, length > 9, Alignment(list))

    return Batch(["a text"] * len(lengths), [encoding(length) for length in lengths])


def test_a_batch_counts_its_tokens_and_the_texts_that_were_cut() -> None:
    found = batch(3, 4, 10)
    assert (found.tokens, found.mean_tokens, found.truncated) == (17, 6, 1)


def test_a_batch_that_memory_does_not_hold_is_refused_and_says_what_would_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def free(available: int | None) -> None:
        monkeypatch.setattr(host, "memory", lambda: host.Memory(None, available))

    wanted = 30 * HIDDEN * 8
    free(10_000)
    with pytest.raises(sti.InfeasibleError, match="give fewer at a time") as caught:
        check_room(batch(10, 20), HIDDEN, unchecked_bytes=0)
    assert (caught.value.limit, caught.value.asked) == ("memory", wanted)
    least = int(caught.value.needed)
    free(least)
    check_room(batch(10, 20), HIDDEN, unchecked_bytes=0)
    free(least - 1)
    with pytest.raises(sti.InfeasibleError):
        check_room(batch(10, 20), HIDDEN, unchecked_bytes=0)


def test_small_batches_and_systems_that_tell_no_memory_are_not_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host, "memory", lambda: host.Memory(None, 1))
    check_room(batch(10, 20), HIDDEN)
    monkeypatch.setattr(host, "memory", lambda: host.Memory(None, None))
    check_room(batch(10, 20), HIDDEN, unchecked_bytes=0)


@pytest.mark.parametrize("task", METHODS)
def test_each_task_has_one_method_and_the_others_name_it(task: str) -> None:
    check_task(Path("p"), task, METHODS[task])
    for method in set(METHODS.values()) - {METHODS[task]}:
        with pytest.raises(sti.InputError) as caught:
            check_task(Path("p"), task, method)
        assert f"`{method}`" in str(caught.value)
        assert str(caught.value).endswith(f"use `{METHODS[task]}`")
