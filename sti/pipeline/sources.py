"""Where a run starts: texts to be embedded, or hidden states that other devices computed.

In: encoded texts, or what waits for hidden states. Out: states of the back end in front of the
first block of the run. Hidden states travel without padding (``HiddenStates``): the tokens of all
sentences one after another. Knows nothing of steps, plans or networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NamedTuple, Protocol

import numpy as np

from sti.arrays import Float32Array
from sti.backend.interface import Backend, SentenceState
from sti.device.lanes import COMPUTE, LINK, STORAGE
from sti.pipeline.token_embeddings import Embedder
from sti.pipeline.trace import EMBED, RECEIVE, Recorder
from sti.text.batching import SentenceGroup, group_by_length
from sti.text.encoding import Encoding


class HiddenStates(NamedTuple):
    """Groups of sentences between two blocks, without padding."""

    lengths: tuple[tuple[int, ...], ...]
    """Of each group, the tokens of its sentences."""
    packed: Float32Array
    """``[T, hidden]``: all tokens, sentence after sentence, group after group."""

    @classmethod
    def of(
        cls, states: Sequence[SentenceState], lengths: Sequence[tuple[int, ...]]
    ) -> HiddenStates:
        """What is in these states, whose sentences have so many tokens; a copy."""
        rows = [
            group[line, :length]
            for group, inside in zip((state.hidden() for state in states), lengths, strict=True)
            for line, length in enumerate(inside)
        ]
        return cls(tuple(lengths), np.concatenate(rows))

    def padded(self) -> list[Float32Array]:
        """Of each group, ``[B, S, hidden]``: a new array, with zeros where a sentence is padded."""
        hidden, found, at = self.packed.shape[1], [], 0
        for lengths in self.lengths:
            group = np.zeros((len(lengths), max(lengths), hidden), np.float32)
            for line, length in enumerate(lengths):
                group[line, :length] = self.packed[at : at + length]
                at += length
            found.append(group)
        return found


class Source(Protocol):
    """Where a run starts."""

    row_bytes: int
    """Bytes read of the token embedding table."""
    lengths: Sequence[tuple[int, ...]]
    """Of each group, the tokens of its sentences; none until the run is started, perhaps."""

    def start(self, recorder: Recorder) -> list[SentenceState]:
        """The states of all groups: on the caller's thread, once."""


class TextSource:
    """Texts to be embedded.

    Args:
        encodings: the texts.
        embedder: embeds them.

    Attributes:
        groups: of the texts, by their length.
        row_bytes, lengths: as of ``Source``.
    """

    def __init__(self, encodings: Sequence[Encoding], embedder: Embedder) -> None:
        self._encodings, self._embedder = encodings, embedder
        tokens = [len(encoding.ids) for encoding in encodings]
        self.groups: tuple[SentenceGroup, ...] = group_by_length(tokens)
        self.lengths: Sequence[tuple[int, ...]] = [
            tuple(tokens[member] for member in group.members) for group in self.groups
        ]
        self.row_bytes = 0

    def start(self, recorder: Recorder) -> list[SentenceState]:
        """Read the rows of the texts' tokens, and embed them."""
        start = perf_counter()
        rows = self._embedder.read(self._encodings)
        self.row_bytes = rows.raw.nbytes
        read = perf_counter()
        recorder.add(STORAGE, "embeddings", start, read)
        states = self._embedder.start(self._encodings, self.groups, rows)
        recorder.add(COMPUTE, EMBED, read, perf_counter())
        return states


class HiddenSource:
    """Hidden states that another device sends.

    Args:
        receive: waits for them; what it raises ends the run.
        backend: goes on from them.
    """

    def __init__(self, receive: Callable[[], HiddenStates], backend: Backend) -> None:
        self._receive, self._backend = receive, backend
        self.lengths: Sequence[tuple[int, ...]] = ()
        self.row_bytes = 0

    def start(self, recorder: Recorder) -> list[SentenceState]:
        """Wait for the hidden states; storage and decode threads go on meanwhile."""
        start = perf_counter()
        given = self._receive()
        self.lengths = given.lengths
        received = perf_counter()
        recorder.add(LINK, RECEIVE, start, received)
        states = [
            self._backend.resume(group, lengths, place=number)
            for number, (group, lengths) in enumerate(
                zip(given.padded(), given.lengths, strict=True)
            )
        ]
        recorder.add(COMPUTE, EMBED, received, perf_counter())
        return states


def by_text(
    groups: Sequence[SentenceGroup], answers: Sequence[Float32Array]
) -> tuple[Float32Array, ...]:
    """The answers of groups, ``[B, ...]`` each, in the order of the texts; views."""
    count = sum(len(group.members) for group in groups)
    rows: list[Float32Array] = [answers[0][0]] * count
    for group, answer in zip(groups, answers, strict=True):
        for member, row in zip(group.members, answer, strict=True):
            rows[member] = row
    return tuple(rows)
