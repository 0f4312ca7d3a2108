"""What all members of a group do together with an array: gather, sum and scatter, sum.

In: an exchange, the group's names in an order that all of them use, an array. Out: the same bits at
every member and over every transport: sums are added up in the order of the group. Each member
sends to each directly, so that what is slow is the network and not a chain of steps. Rows (axis 0)
are divided unevenly where members are unequal. Knows nothing of what the arrays mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.errors import InputError, PeerError
from sti.exchange.interface import Exchange

SUMMED = ("float32", "float16", "int32", "int64")
"""Dtypes that are added up; sums of bytes would overflow."""
ONE_ROUND_BYTES = 1 << 14
"""Arrays of at most so many bytes are summed in one round by everybody, each of whom then receives
all of them; larger ones in two, in which each receives two arrays at most."""


def all_gather(
    exchange: Exchange,
    group: Sequence[str],
    part: NDArray[Any],
    *,
    key: str,
    deadline: float | None,
) -> NDArray[Any]:
    """The parts of all members, joined along axis 0 in the order of the group.

    Args:
        group: names, this member's among them.
        part: of any number of rows; the dtype and the other axes are the same at all members.
        key: of the messages; may serve one collective after another.
        deadline: as ``Exchange.receive`` takes it.

    Returns:
        An array of the caller's own.

    Raises:
        InputError: the group or the part cannot be used.
        PeerError: a member was lost, is late, or has a part that does not belong to this one.
        ClosedError: the exchange was closed, or the key given up.
    """
    members = _Round(exchange, group, key, deadline)
    if part.ndim < 1:
        raise InputError("an array without axes has no rows to gather")
    for peer in members.others:
        members.send(peer, part)
    found = [part if peer == exchange.name else members.receive(peer, like=part) for peer in group]
    return np.concatenate(found)


def reduce_scatter(
    exchange: Exchange,
    group: Sequence[str],
    array: NDArray[Any],
    shares: Sequence[int],
    *,
    key: str,
    deadline: float | None,
) -> NDArray[Any]:
    """The sum of the arrays of all members, of which each gets rows of its own.

    Args:
        group: names, this member's among them.
        array: of one shape and dtype at all members, one of ``SUMMED``.
        shares: how many rows each member gets, in the order of the group; all of them together.
        key: of the messages; may serve one collective after another.
        deadline: as ``Exchange.receive`` takes it.

    Returns:
        An array of the caller's own.

    Raises:
        InputError: the group, the array or the shares cannot be used.
        PeerError, ClosedError: as ``all_gather``.
    """
    members = _Round(exchange, group, key, deadline)
    _check_summed(array)
    rows = dict(zip(group, _divided(array, shares, len(group)), strict=True))
    for peer in members.others:
        members.send(peer, rows[peer])
    return members.sum(rows[exchange.name])


def all_reduce(
    exchange: Exchange,
    group: Sequence[str],
    array: NDArray[Any],
    *,
    key: str,
    deadline: float | None,
) -> NDArray[Any]:
    """The sum of the arrays of all members.

    Args:
        group: names, this member's among them.
        array: of one shape and dtype at all members, one of ``SUMMED``.
        key: of the messages; may serve one collective after another.
        deadline: as ``Exchange.receive`` takes it.

    Returns:
        An array of the caller's own.

    Raises:
        InputError: the group or the array cannot be used.
        PeerError, ClosedError: as ``all_gather``.
    """
    members = _Round(exchange, group, key, deadline)
    _check_summed(array)
    if len(group) <= 2 or array.nbytes <= ONE_ROUND_BYTES:
        for peer in members.others:
            members.send(peer, array)
        return members.sum(array)
    flat, count = array.reshape(-1), len(group)
    ends = [(number + 1) * flat.size // count for number in range(count)]
    shares = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    part = reduce_scatter(exchange, group, flat, shares, key=key, deadline=deadline)
    whole = all_gather(exchange, group, part, key=key, deadline=deadline)
    if whole.size != array.size:
        raise PeerError(f"message {key!r}: a sum of {whole.size} values, not of {array.size}")
    return whole.reshape(array.shape)


class _Round:
    """Messages of one key between the members of a group."""

    def __init__(
        self, exchange: Exchange, group: Sequence[str], key: str, deadline: float | None
    ) -> None:
        if len(set(group)) < len(group) or exchange.name not in group:
            raise InputError(
                f"group {', '.join(group)}: names are to be there once each, {exchange.name} too"
            )
        self._exchange, self._group, self._key, self._deadline = exchange, group, key, deadline
        own = group.index(exchange.name)
        self.others = [*group[own + 1 :], *group[:own]]
        """Beginning with the one after this member: not all send to the first at first."""

    def send(self, peer: str, array: NDArray[Any]) -> None:
        self._exchange.send(peer, self._key, arrays=[array])

    def receive(self, peer: str, *, like: NDArray[Any]) -> NDArray[Any]:
        """The array that a peer sent; its rows may be more or fewer."""
        arrays = self._exchange.receive(
            key=self._key, peer=peer, watch=self.others, deadline=self._deadline
        ).arrays
        if len(arrays) != 1:
            raise PeerError(f"{peer}: {len(arrays)} arrays in message {self._key!r}, not one")
        found = arrays[0]
        if (found.dtype, found.ndim, found.shape[1:]) != (like.dtype, like.ndim, like.shape[1:]):
            raise self._foreign(peer, found, like)
        return found

    def sum(self, own: NDArray[Any]) -> NDArray[Any]:
        """What all have sent to this member, and its own, added up in the order of the group."""
        total: NDArray[Any] | None = None
        for peer in self._group:
            is_own = peer == self._exchange.name
            part = own if is_own else self.receive(peer, like=own)
            if part.shape != own.shape:
                raise self._foreign(peer, part, own)
            if total is None:
                total = part.copy() if is_own else part
            else:
                total += part
        assert total is not None
        return total

    def _foreign(self, peer: str, array: NDArray[Any], own: NDArray[Any]) -> PeerError:
        return PeerError(
            f"{peer}: {array.dtype} {array.shape} in message {self._key!r} does not belong to "
            f"{own.dtype} {own.shape} here; the members do not run the same"
        )


def _check_summed(array: NDArray[Any]) -> None:
    if array.dtype.name not in SUMMED:
        raise InputError(f"arrays of {array.dtype} are not summed; known are {', '.join(SUMMED)}")


def _divided(array: NDArray[Any], shares: Sequence[int], count: int) -> Iterator[NDArray[Any]]:
    """The rows of each member."""
    rows = len(array) if array.ndim else 0
    if len(shares) != count or min(shares) < 0 or sum(shares) != rows:
        raise InputError(f"shares {list(shares)} do not divide {rows} rows among {count} members")
    ends = accumulate(shares)
    return (array[end - share : end] for end, share in zip(ends, shares, strict=True))
