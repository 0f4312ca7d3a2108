"""Looking up words of a vocabulary: the line number of a word, and the longest word that fits.

A dict of 30,000 words costs megabytes and milliseconds. Here the words stay in the blob, with a
hash table of line numbers beside it (``sti.text.vocabulary_index``), which a pack brings along. A
hash only says where to look; every match is compared with the blob.

In: the vocabulary blob of a pack, and its index. Out: line numbers. Knows nothing of WordPiece or
special tokens.
"""

from __future__ import annotations

from copy import copy
from itertools import accumulate
from operator import mul

from sti.text.vocabulary_index import (
    CHUNK_BYTES,
    HASH_BASE,
    HASH_BITS,
    HASH_SCALE,
    VocabularyIndex,
    bucket_bits,
    check_index,
    hash_powers,
    make_index,
)


class Vocabulary:
    """Distinct words and their line numbers.

    Args:
        blob: UTF-8 words joined by newlines; kept, not copied. Look-ups are faster in bytes than in
            a view of memory that is there anyway.
        index: what ``make_index`` made of it with the usual numbers; None to make it now. It is
            kept, not copied.
        base, scale: numbers of the hash, ``base`` odd; they change speed, never an answer.
        chunk: bytes of the blob, or words, that are worked on at a time while it is indexed.

    Raises:
        PackFormatError: the index cannot be of this blob; the blob is not UTF-8; or, where
            the index is made now, it contains a word twice.

    An index that is made takes 12 bytes of memory per word besides the blob. One that is given is
    checked only so far that look-ups stay inside it: where it is of other words, words are not
    found. Safe to share between threads.
    """

    def __init__(
        self,
        blob: bytes | memoryview,
        index: VocabularyIndex | None = None,
        *,
        base: int = HASH_BASE,
        scale: int = HASH_SCALE,
        chunk: int = CHUNK_BYTES,
    ) -> None:
        if index is None:
            index = make_index(bytes(blob), base=base, scale=scale, chunk=chunk)
        else:
            check_index(index, blob)
        self.blob = blob
        self.starts = index.starts
        self._most = len(index.order)
        bits = bucket_bits(len(index.order))
        self._shift, self._mask = HASH_BITS - bits, (1 << bits) - 1
        # Indexing a memoryview gives plain Python integers, faster than indexing an array.
        self._starts = memoryview(index.starts)
        self._order = memoryview(index.order)
        self._buckets = memoryview(index.buckets)
        self._powers = memoryview(hash_powers(index.starts, base, scale))

    def __len__(self) -> int:
        return self._most

    def of_first(self, count: int) -> Vocabulary:
        """The same without its words from line ``count`` on; memory is shared."""
        found = copy(self)
        found._most = min(count, len(self))
        return found

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
        blob, starts, order, buckets = self.blob, self._starts, self._order, self._buckets
        shift, mask = self._shift, self._mask
        hashes = list(accumulate(map(mul, text, self._powers), initial=0))
        for length in range(len(hashes) - 1, at_least - 1, -1):
            bucket = hashes[length] >> shift & mask
            for place in range(buckets[bucket], buckets[bucket + 1]):
                line = order[place]
                same = blob[starts[line] : starts[line + 1] - 1] == text[:length]
                if same and line < self._most:
                    return line, length
        return None


def encoded(text: str) -> bytes:
    """UTF-8 for ``Vocabulary.longest``: lone surrogates become bytes that no word contains."""
    return text.encode("utf-8", "surrogatepass")
