"""Looking up words of a vocabulary: the line number of a word, and the longest word that fits.

A dict of 30,000 words costs megabytes and milliseconds. Here the words stay in the blob, with a
hash table of line numbers beside it. The hash of a word is the sum of its bytes, each times a power
that depends on its position: all words are hashed at once without a loop over them, and the hashes
of all prefixes of a text are one running sum. A hash only says where to look; every match is
compared with the blob.

In: the vocabulary blob of a pack. Out: line numbers. Knows nothing of WordPiece or special tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from operator import mul
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.errors import PackFormatError

_Counts = NDArray[np.unsignedinteger[Any]]

_HASH_BITS = 32

HASH_BASE = 0x9E3779B1
"""A byte of a word counts times a power of this; odd, so that the powers have inverses."""

HASH_SCALE = 0x85EBCA6B
"""Times this, what differs is carried up to the bits that choose the bucket."""

CHUNK_BYTES = 16384
"""Bytes of the blob, or words, that are worked on at a time."""


class Vocabulary:
    """Distinct words and their line numbers.

    Args:
        blob: UTF-8 words joined by newlines; kept, not copied.
        base, scale: numbers of the hash, ``base`` odd; they change speed, never an answer.
        chunk: bytes of the blob, or words, that are worked on at a time while it is indexed.

    Raises:
        PackFormatError: the blob is not UTF-8, or contains a word twice.

    Takes 12 to 16 bytes of memory per word besides the blob. Safe to share between threads.
    """

    def __init__(
        self,
        blob: bytes,
        *,
        base: int = HASH_BASE,
        scale: int = HASH_SCALE,
        chunk: int = CHUNK_BYTES,
    ) -> None:
        starts = _line_starts(blob, chunk)
        segments = _segments(starts, chunk)
        _refuse_ill_formed(blob, starts, segments)
        self._blob = blob
        hashes, powers = _line_hashes(blob, starts, segments, base, scale)
        # By two halves of 16 bits: NumPy sorts those by radix, several times as fast.
        order = np.lexsort((hashes.astype(np.uint16), (hashes >> 16).astype(np.uint16)))
        hashes = hashes[order]
        # One to two buckets per word: more would hardly speed up a look-up.
        self._shift = _HASH_BITS - len(hashes).bit_length()
        self._mask = (1 << _HASH_BITS - self._shift) - 1
        # Indexing a memoryview gives plain Python integers, faster than indexing an array.
        self._starts = memoryview(starts)
        self._order = memoryview(order.astype(np.uint32))
        self._buckets = memoryview(
            _first_of_each(hashes >> np.uint32(self._shift), self._mask + 1, chunk)
        )
        self._powers = memoryview(powers)
        self._refuse_repeated(order, hashes)

    def __len__(self) -> int:
        return len(self._order)

    def find(self, word: str) -> int | None:
        """The line of a word, counted from 0; None where it is not in the vocabulary."""
        data = encoded(word)
        found = self.longest(data, at_least=len(data))
        return None if found is None else found[0]

    def longest(self, text: bytes, *, at_least: int) -> tuple[int, int] | None:
        """The longest word that a text begins with: its line, and its length in bytes.

        The text is as ``encoded`` returns it; words are UTF-8 too, so every match ends at the end
        of a character. None where no word of at least ``at_least`` bytes fits.
        """
        blob, starts, order, buckets = self._blob, self._starts, self._order, self._buckets
        shift, mask = self._shift, self._mask
        hashes = list(accumulate(map(mul, text, self._powers), initial=0))
        for length in range(len(hashes) - 1, at_least - 1, -1):
            bucket = hashes[length] >> shift & mask
            for place in range(buckets[bucket], buckets[bucket + 1]):
                line = order[place]
                if blob[starts[line] : starts[line + 1] - 1] == text[:length]:
                    return line, length
        return None

    def _refuse_repeated(self, order: NDArray[np.intp], hashes: NDArray[np.uint32]) -> None:
        """Among words with equal hashes, refuse the first that is repeated."""
        after = np.flatnonzero(hashes[1:] == hashes[:-1])
        if not after.size:
            return
        lines = sorted({*order[after].tolist(), *order[after + 1].tolist()})
        words = [self._blob[self._starts[line] : self._starts[line + 1] - 1] for line in lines]
        counts = Counter(words)
        for word in words:
            if counts[word] > 1:
                raise PackFormatError(f"tokenizer: the vocabulary holds {word.decode()!r} twice")


def encoded(text: str) -> bytes:
    """UTF-8 for ``Vocabulary.longest``: lone surrogates become bytes that no word contains."""
    return text.encode("utf-8", "surrogatepass")


def _line_starts(blob: bytes, chunk: int) -> _Counts:
    """Where each line begins, and where one more would: ``(lines + 1,)``."""
    dtype = np.min_scalar_type(len(blob) + 1)
    found = [np.zeros(1, dtype)]
    for begin, end in _chunks(len(blob), chunk):
        newlines = np.flatnonzero(np.frombuffer(blob, np.uint8, end - begin, begin) == ord("\n"))
        found.append((newlines + begin + 1).astype(dtype))
    return np.concatenate((*found, np.array([len(blob) + 1], dtype)))


def _segments(starts: _Counts, chunk: int) -> list[tuple[int, int]]:
    """All lines, parted where chunks of the blob would be: each part has at least one."""
    offsets = np.arange(0, int(starts[-1]), chunk).astype(starts.dtype)
    cuts: list[int] = np.searchsorted(starts[:-1], offsets).tolist()
    return list(pairwise(sorted({0, len(starts) - 1, *cuts})))


def _refuse_ill_formed(blob: bytes, starts: _Counts, segments: Sequence[tuple[int, int]]) -> None:
    """Refuse what is not UTF-8, without making a text as long as the blob."""
    for first, last in segments:
        begin = int(starts[first])
        try:
            blob[begin : starts[last]].decode()
        except UnicodeDecodeError as part:
            start, end = begin + part.start, begin + part.end
            error = UnicodeDecodeError(part.encoding, blob, start, end, part.reason)
            raise PackFormatError(f"tokenizer: the vocabulary is not UTF-8: {error}") from error


def _line_hashes(
    blob: bytes, starts: _Counts, segments: Sequence[tuple[int, int]], base: int, scale: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The hash of each line, and the power for each place in the longest, both modulo 2**32.

    A line's share of a running sum over many lines is its hash times the power of its start, which
    is divided out.
    """
    widest = max(int(starts[last] - starts[first]) for first, last in segments)
    powers = np.full(widest, base, np.uint32)
    inverses = np.full_like(powers, pow(base, -1, 1 << _HASH_BITS))
    powers[0], inverses[0] = scale, 1
    np.cumprod(powers, dtype=np.uint32, out=powers)
    np.cumprod(inverses, dtype=np.uint32, out=inverses)
    hashes = np.empty(len(starts) - 1, np.uint32)
    sums = np.zeros(len(powers) + 1, np.uint32)
    for first, last in segments:
        begin, size = int(starts[first]), int(starts[last] - starts[first]) - 1
        values = np.frombuffer(blob, np.uint8, size, begin)
        np.multiply(values, powers[:size], out=sums[1 : size + 1])
        np.cumsum(sums[1 : size + 1], dtype=np.uint32, out=sums[1 : size + 1])
        places = starts[first : last + 1].astype(np.intp) - begin
        at = places[:-1]
        hashes[first:last] = (sums[places[1:] - 1] - sums[at]) * inverses[at]
    return hashes, powers[: int(np.max(np.diff(starts))) - 1].copy()


def _first_of_each(buckets: NDArray[np.uint32], count: int, chunk: int) -> NDArray[np.uint32]:
    """Where each of ``count`` buckets begins in the sorted ``buckets``, and where the last ends."""
    firsts = np.zeros(count + 1, np.uint32)
    for begin, end in _chunks(len(buckets), chunk):
        firsts[buckets[begin:end] + 1] = np.arange(begin + 1, end + 1)  # of equals the last stays
    return np.maximum.accumulate(firsts, out=firsts)


def _chunks(size: int, chunk: int) -> Iterator[tuple[int, int]]:
    """``[0, size)`` in parts, so that what is made of one stays small."""
    return ((at, min(size, at + chunk)) for at in range(0, size, chunk))
