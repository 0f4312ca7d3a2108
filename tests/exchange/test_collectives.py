"""What members do together: the same bits as NumPy's, at every member and over every transport."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sti.errors import DeadlineError, InputError, PeerError, PeerLostError
from sti.exchange.collectives import ONE_ROUND_BYTES, all_gather, all_reduce, reduce_scatter
from sti.exchange.interface import Exchange
from sti.exchange.threads import thread_exchanges
from tests.exchange.members import TRANSPORTS, members_of, soon

each_transport = pytest.mark.parametrize("transport", TRANSPORTS)


def together(members: Sequence[Exchange], act: Callable[[Exchange, int], Any]) -> list[Any]:
    """What each member gets, all at once."""
    with ThreadPoolExecutor(len(members)) as pool:
        return list(pool.map(act, members, range(len(members))))


def values(count: int, shape: tuple[int, ...], dtype: str) -> list[NDArray[Any]]:
    """For each member, numbers whose sum depends on the order of addition."""
    random = np.random.default_rng(len(shape))
    return [(random.standard_normal(shape) * 10.0**number).astype(dtype) for number in range(count)]


def names(members: Sequence[Exchange]) -> list[str]:
    return [member.name for member in members]


@each_transport
@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_every_transport_gives_the_bits_of_numpy(transport: str, count: int, dtype: str) -> None:
    shares = [5, 0, 2, 9][:count]
    rows = sum(shares)
    ends = np.cumsum(shares)
    arrays = values(count, (rows, 3), dtype)
    parts = [array[: shares[number]] for number, array in enumerate(arrays)]
    total = reduce(add, arrays)
    with members_of(transport, count) as members:
        group = names(members)

        def act(member: Exchange, number: int) -> list[NDArray[Any]]:
            kept: dict[str, Any] = {"key": "k", "deadline": soon()}
            return [
                all_gather(member, group, parts[number], **kept),
                reduce_scatter(member, group, arrays[number], shares, **kept),
                all_reduce(member, group, arrays[number], **kept),
            ]

        for number, (gathered, scattered, reduced) in enumerate(together(members, act)):
            assert gathered.tobytes() == np.concatenate(parts).tobytes()
            own = total[ends[number] - shares[number] : ends[number]]
            assert scattered.shape == own.shape and scattered.tobytes() == own.tobytes()
            assert reduced.shape == total.shape and reduced.tobytes() == total.tobytes()


@each_transport
@pytest.mark.parametrize("more_bytes", [0, 4, 1 << 20])
def test_sums_in_one_round_and_in_two_are_the_same(transport: str, more_bytes: int) -> None:
    arrays = values(3, ((ONE_ROUND_BYTES + more_bytes) // 4,), "float32")
    total = reduce(add, arrays)
    with members_of(transport, 3) as members:
        found = together(
            members,
            lambda member, number: all_reduce(
                member, names(members), arrays[number], key="k", deadline=soon()
            ),
        )
        assert {array.tobytes() for array in found} == {total.tobytes()}


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_the_order_of_a_group_is_the_order_of_addition_and_of_parts(order: list[int]) -> None:
    members = list(thread_exchanges("abc").values())
    arrays = values(3, (40,), "float32")
    group = [members[number].name for number in order]
    total = reduce(add, [arrays[number] for number in order])
    found = together(
        members,
        lambda member, number: (
            all_reduce(member, group, arrays[number], key="k", deadline=soon()),
            all_gather(member, group, arrays[number][:2], key="k", deadline=soon()),
        ),
    )
    for summed, gathered in found:
        assert summed.tobytes() == total.tobytes()
        assert gathered.tobytes() == b"".join(arrays[number][:2].tobytes() for number in order)


def test_arrays_of_no_axis_are_summed_and_inputs_stay_as_they_are() -> None:
    members = list(thread_exchanges("ab").values())
    ones = [np.ones((), np.float32), np.ones((), np.float32)]
    found = together(
        members,
        lambda member, number: all_reduce(member, "ab", ones[number], key="k", deadline=soon()),
    )
    assert [array.item() for array in found] == [2, 2] and all(array == 1 for array in ones)
    alone = all_gather(members[0], ["a"], np.ones(2, np.float32), key="k", deadline=None)
    alone[:] = 0  # the caller's own


@each_transport
def test_whoever_waits_for_a_lost_member_is_told(transport: str) -> None:
    with members_of(transport, 3) as members:
        group = names(members)
        array = np.ones(8, np.float32)

        def act(member: Exchange, number: int) -> None:
            if number == 2:
                member.close()
            else:
                with pytest.raises(PeerLostError) as caught:
                    all_reduce(member, group, array, key="k", deadline=soon())
                assert caught.value.peer == "c"

        together(members, act)


def test_whoever_waits_for_a_late_member_is_told() -> None:
    members = thread_exchanges("ab")
    with pytest.raises(DeadlineError, match="from b"):
        all_gather(members["a"], "ab", np.ones(1, np.float32), key="k", deadline=0.0)


@pytest.mark.parametrize(
    "other",
    [
        [np.ones(4, np.float16)],
        [np.ones((4, 1), np.float32)],
        [np.ones(5, np.float32)],
        [],
        [np.ones(4, np.float32)] * 2,
    ],
    ids=range(5),
)
def test_arrays_that_do_not_belong_together_are_refused(other: list[NDArray[Any]]) -> None:
    members = thread_exchanges("ab")
    members["b"].send("a", "k", arrays=other)
    with pytest.raises(PeerError, match=r"b: .*message 'k'"):
        all_reduce(members["a"], "ab", np.ones(4, np.float32), key="k", deadline=soon())


def test_input_that_cannot_be_used_is_refused_before_anything_is_sent() -> None:
    members = thread_exchanges("ab")
    a, rows, kept = members["a"], np.ones((4, 2), np.float32), {"key": "k", "deadline": 0.0}
    with pytest.raises(InputError, match="there once each, a too"):
        all_gather(a, "b", rows, **kept)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="there once each"):
        all_gather(a, "aab", rows, **kept)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="without axes"):
        all_gather(a, "ab", np.ones((), np.float32), **kept)  # type: ignore[arg-type]
    for shares in ([4], [1, 2], [5, -1], [2, 2, 0]):
        with pytest.raises(InputError, match="do not divide 4 rows among 2 members"):
            reduce_scatter(a, "ab", rows, shares, **kept)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="arrays of int8 are not summed"):
        all_reduce(a, "ab", rows.astype(np.int8), **kept)  # type: ignore[arg-type]
    with pytest.raises(DeadlineError):
        members["b"].receive(key="k", deadline=0.0)
