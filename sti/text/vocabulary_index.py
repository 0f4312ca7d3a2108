"""The index of a vocabulary: a hash table of line numbers, made of a blob of words.

The hash of a word is the sum of its bytes, each times a power that depends on its position: all
words are hashed at once without a loop over them, and the hashes of all prefixes of a text are one
running sum. ``FORMAT.md`` specifies the three arrays, which packs contain.

In: the vocabulary blob of a pack. Out: a ``VocabularyIndex``, or an error where the blob is no
vocabulary. Knows nothing of look-ups, WordPiece or special tokens.
"""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sti.errors import PackFormatError

_Counts = NDArray[np.unsignedinteger[Any]]

HASH_BITS = 32

HASH_BASE = 0x9E3779B1
"""A byte of a word counts times a power of this; odd, so that the powers have inverses."""

HASH_SCALE = 0x85EBCA6B
"""Times this, what differs is carried up to the bits that choose the bucket."""

CHUNK_BYTES = 16384
"""Bytes of the blob, or words, that are worked on at a time."""

LONGEST_WORD = 512
"""Bytes of a word in an index that was not made here: a look-up goes along all of them. Known are
words of 256, lines of one character repeated, in vocabularies of bytes."""

FULLEST_BUCKET = 32
"""Words of a bucket in such an index: a look-up may compare all of them. Usual are ten."""

_DECODED_BYTES = 8192
"""Bytes that are decoded at a time, to see that they are text: the fastest of several sizes. NumPy,
telling it from the bytes without decoding, takes as long."""

_NEWLINE = ord("\n")
_LONGEST_BLOB = (1 << 32) - 2


class VocabularyIndex(NamedTuple):
    """The index of n words. All arrays are uint32."""

    starts: NDArray[np.uint32]
    """``[n + 1]``: where each line begins in the blob, and where one more would."""
    order: NDArray[np.uint32]
    """``[n]``: line numbers by hash, and by number where hashes are equal."""
    buckets: NDArray[np.uint32]
    """``[2 ** bucket_bits(n) + 1]``: where each bucket begins in ``order``, and where the last
    ends. A bucket has the hashes with equal leading bits."""


def bucket_bits(words: int) -> int:
    """Leading bits of a hash that choose its bucket: one to two buckets per word."""
    return words.bit_length()  # more buckets would hardly speed up a look-up


def make_index(
    blob: bytes, *, base: int = HASH_BASE, scale: int = HASH_SCALE, chunk: int = CHUNK_BYTES
) -> VocabularyIndex:
    """Index a blob of words.

    Args:
        blob: UTF-8 words joined by newlines.
        base, scale: numbers of the hash; packs use the usual ones.
        chunk: bytes of the blob, or words, that are worked on at a time.

    Raises:
        PackFormatError: the blob is not UTF-8, contains a word twice, or is 4 GB long.
    """
    _refuse_long(blob)
    starts = _line_starts(blob, chunk)
    segments = _segments(starts, chunk)
    refuse_ill_formed(blob)
    hashes = _line_hashes(blob, starts, segments, base, scale)
    # By two halves of 16 bits: NumPy sorts those by radix, several times as fast.
    order = np.lexsort((hashes.astype(np.uint16), (hashes >> 16).astype(np.uint16)))
    hashes = hashes[order]
    bits = bucket_bits(len(hashes))
    buckets = _first_of_each(hashes >> np.uint32(HASH_BITS - bits), 1 << bits, chunk)
    _refuse_repeated(blob, starts, order, hashes)
    return VocabularyIndex(starts.astype(np.uint32), order.astype(np.uint32), buckets)


def check_index(index: VocabularyIndex, blob: bytes | memoryview) -> None:
    """Refuse an index that a look-up in the blob would leave, or get lost in.

    Raises:
        PackFormatError: says what is wrong with it; or the blob is not UTF-8.
    """
    starts, order, buckets = index
    words = order.size
    if words == 0 or buckets.size != (1 << bucket_bits(words)) + 1:
        raise PackFormatError("tokenizer: the arrays of the index do not have sizes that fit")
    check_lines(starts, order, blob)
    if int(buckets[-1]) > words or not (buckets[1:] >= buckets[:-1]).all():
        raise PackFormatError("tokenizer: the buckets of the index do not rise to its end")
    if int((buckets[1:] - buckets[:-1]).max()) > FULLEST_BUCKET:
        raise PackFormatError(
            f"tokenizer: a bucket of the index has more than {FULLEST_BUCKET} words"
        )


def check_lines(
    starts: NDArray[np.uint32], order: NDArray[np.uint32], blob: bytes | memoryview
) -> None:
    """Refuse lines that are not those of the blob, or an order that names others.

    Raises:
        PackFormatError: says what is wrong; or the blob is not UTF-8.
    """
    words = order.size
    if words == 0 or starts.size != words + 1:
        raise PackFormatError("tokenizer: the arrays of the index do not have sizes that fit")
    ends = int(starts[0]) == 0 and int(starts[-1]) == len(blob) + 1
    if not ends or not (starts[1:] > starts[:-1]).all():
        raise PackFormatError("tokenizer: the lines of the index are not those of the vocabulary")
    if int((starts[1:] - starts[:-1]).max()) > LONGEST_WORD + 1:
        raise PackFormatError(f"tokenizer: a word has more than {LONGEST_WORD} bytes")
    parted = np.frombuffer(blob, np.uint8)[starts[1:-1] - np.uint32(1)]
    if not (parted == _NEWLINE).all():
        raise PackFormatError("tokenizer: the lines of the index are not those of the vocabulary")
    # Words of whole characters: pieces of a text are told apart by what is left of it.
    refuse_ill_formed(blob)
    if int(order.max()) >= words:
        raise PackFormatError("tokenizer: the index names a line beyond the vocabulary")


def line_starts(blob: bytes, chunk: int = CHUNK_BYTES) -> NDArray[np.uint32]:
    """Where each line of a blob begins, and where one more would: ``[lines + 1]``.

    Raises:
        PackFormatError: the blob is 4 GB long.
    """
    _refuse_long(blob)
    return _line_starts(blob, chunk).astype(np.uint32)


def refuse_ill_formed(blob: bytes | memoryview) -> None:
    """Refuse what is not UTF-8, without making a text as long as the blob.

    Raises:
        PackFormatError: says where.
    """
    if isinstance(blob, bytes) and blob.isascii():
        return
    data, start = memoryview(blob), 0
    try:
        while start < len(blob):
            end = start + _DECODED_BYTES
            start += codecs.utf_8_decode(data[start:end], "strict", end >= len(blob))[1]
    except UnicodeDecodeError as part:
        error = UnicodeDecodeError(
            part.encoding, bytes(blob), start + part.start, start + part.end, part.reason
        )
        raise PackFormatError(f"tokenizer: the vocabulary is not UTF-8: {error}") from part


def hash_powers(starts: _Counts, base: int, scale: int) -> NDArray[np.uint32]:
    """The power for each place in the longest line, modulo 2**32."""
    powers = np.full(int(np.max(np.diff(starts))) - 1, base, np.uint32)
    powers[:1] = scale
    return np.cumprod(powers, dtype=np.uint32, out=powers)


def _refuse_long(blob: bytes) -> None:
    if len(blob) > _LONGEST_BLOB:
        raise PackFormatError(f"tokenizer: a vocabulary of {len(blob)} bytes is too long")


def _line_starts(blob: bytes, chunk: int) -> _Counts:
    """Where each line begins, and where one more would: ``(lines + 1,)``."""
    dtype = np.min_scalar_type(len(blob) + 1)
    found = [np.zeros(1, dtype)]
    for begin, end in _chunks(len(blob), chunk):
        newlines = np.flatnonzero(np.frombuffer(blob, np.uint8, end - begin, begin) == _NEWLINE)
        found.append((newlines + begin + 1).astype(dtype))
    return np.concatenate((*found, np.array([len(blob) + 1], dtype)))


def _segments(starts: _Counts, chunk: int) -> list[tuple[int, int]]:
    """All lines, parted where chunks of the blob would be: each part has at least one."""
    offsets = np.arange(0, int(starts[-1]), chunk).astype(starts.dtype)
    cuts: list[int] = np.searchsorted(starts[:-1], offsets).tolist()
    return list(pairwise(sorted({0, len(starts) - 1, *cuts})))


def _line_hashes(
    blob: bytes, starts: _Counts, segments: Sequence[tuple[int, int]], base: int, scale: int
) -> NDArray[np.uint32]:
    """The hash of each line, modulo 2**32.

    A line's share of a running sum over many lines is its hash times the power of its start, which
    is divided out.
    """
    widest = max(int(starts[last] - starts[first]) for first, last in segments)
    powers = np.full(widest, base, np.uint32)
    inverses = np.full_like(powers, pow(base, -1, 1 << HASH_BITS))
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
    return hashes


def _first_of_each(buckets: NDArray[np.uint32], count: int, chunk: int) -> NDArray[np.uint32]:
    """Where each of ``count`` buckets begins in the sorted ``buckets``, and where the last ends."""
    firsts = np.zeros(count + 1, np.uint32)
    for begin, end in _chunks(len(buckets), chunk):
        firsts[buckets[begin:end] + 1] = np.arange(begin + 1, end + 1)  # of equals the last stays
    return np.maximum.accumulate(firsts, out=firsts)


def _refuse_repeated(
    blob: bytes, starts: _Counts, order: NDArray[np.intp], hashes: NDArray[np.uint32]
) -> None:
    """Among words with equal hashes, refuse the first that is repeated."""
    after = np.flatnonzero(hashes[1:] == hashes[:-1])
    if not after.size:
        return
    lines = sorted({*order[after].tolist(), *order[after + 1].tolist()})
    words = [blob[int(starts[line]) : int(starts[line + 1]) - 1] for line in lines]
    counts = Counter(words)
    for word in words:
        if counts[word] > 1:
            raise PackFormatError(f"tokenizer: the vocabulary holds {word.decode()!r} twice")


def _chunks(size: int, chunk: int) -> Iterator[tuple[int, int]]:
    """``[0, size)`` in parts, so that what is made of one stays small."""
    return ((at, min(size, at + chunk)) for at in range(0, size, chunk))
