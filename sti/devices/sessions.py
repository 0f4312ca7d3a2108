"""What one controller asked of a worker, and how far that is.

In: parts that were prepared, runs that were asked for, hidden states that arrived, in whatever
order the network brings them. Out: which run is next, and whether what it starts from is there.
Bounded: a controller that asks for more is refused. Knows nothing of computing or of sending.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sti.devices.commands import Prepare, Run, grouped
from sti.devices.hidden_arrays import from_arrays
from sti.devices.stage_runner import ReadyPart
from sti.errors import PeerError
from sti.exchange.interface import Message
from sti.model.manifest import Manifest
from sti.pipeline.sources import HiddenStates
from sti.text.encoding import Alignment, Encoding

MOST_WAITING = 64
"""Runs of a session that wait to be computed, and hidden states that came before their run."""
MOST_WAITING_BYTES = 1 << 29
"""Of them all."""
MOST_PARTS = 16
"""Parts that a session has ready; the one that was prepared longest ago is forgotten."""


class SessionPart(NamedTuple):
    """A part that a controller asked for, and what was made of it."""

    wanted: Prepare
    ready: ReadyPart


@dataclass(slots=True)
class DueRun:
    """A run that waits to be computed."""

    run: Run
    part: SessionPart
    texts: list[Encoding] | None
    """Of a first part."""
    hidden: HiddenStates | None = None
    """Of another one, once they are there."""
    given_up: bool = False
    """Whether it is not to be computed after all."""

    @property
    def has_input(self) -> bool:
        """Whether what it starts from is there."""
        return self.texts is not None or self.hidden is not None

    def needs(self, peer: str) -> bool:
        """Whether it cannot go on without a peer: one that is still to send it something, or to
        get what it gives.
        """
        before, after = self.part.wanted.before, self.part.wanted.after
        return peer == after or (peer == before and self.hidden is None)


@dataclass(slots=True)
class Session:
    """One controller at one worker, from its greeting until it is lost. For one thread."""

    key: str
    """Its name, which the controller made up."""
    controller: str
    manifest: Manifest
    parts: dict[int, SessionPart] = field(default_factory=dict)
    runs: deque[DueRun] = field(default_factory=deque)
    """In the order in which they are computed."""
    early: dict[int, Message] = field(default_factory=dict)
    """Hidden states of runs that were not asked for yet: they took a shorter way."""
    last: int = -1
    """Number of the last run that was asked for."""

    def add_part(self, wanted: Prepare, ready: ReadyPart) -> None:
        """A part is ready."""
        self.parts.pop(wanted.part, None)
        while len(self.parts) >= MOST_PARTS:
            del self.parts[next(iter(self.parts))]
        self.parts[wanted.part] = SessionPart(wanted, ready)

    def add_run(self, run: Run, arrays: tuple[Any, ...]) -> None:
        """A run is asked for.

        Raises:
            PeerError: it was asked for already, its part is not ready, too much waits, or what came
                with it, or before it, is not what it starts from.
        """
        where = f"run {run.number} of {self.controller}"
        if run.number <= self.last:
            raise PeerError(f"{where}: run {self.last} was asked for already, and numbers rise")
        self.last = run.number
        early = self.early.pop(run.number, None)
        for over in [number for number in self.early if number < run.number]:
            del self.early[over]
        part = self.parts.get(run.part)
        if part is None:
            raise PeerError(f"{where}: part {run.part} was not prepared")
        if len(self.runs) >= MOST_WAITING:
            raise PeerError(f"{where}: {MOST_WAITING} runs are waiting already")
        self._check_room(arrays, where)
        first = not part.wanted.before
        texts = texts_of(run, arrays, rows=self.manifest.embeddings.rows, where=where)
        if (texts is not None) != first:
            raise PeerError(f"{where}: texts come with runs of a first part, and with no others")
        due = DueRun(run, part, texts)
        if early is not None:
            _check_sender(due, early)
            self.take_hidden(due, early)
        self.runs.append(due)

    def due_for(self, number: int, message: Message) -> DueRun | None:
        """The run that hidden states are for; None where that is to come yet, and they are kept
        until then, or is over.

        Raises:
            PeerError: nobody waits for them, they come from another device than they are due from,
                or too much waits already.
        """
        where = f"{message.peer}: hidden states of run {number}"
        due = next((item for item in self.runs if item.run.number == number), None)
        if due is not None:
            _check_sender(due, message)
            if due.hidden is not None:
                raise PeerError(f"{where}: came already")
            return due
        if number <= self.last:
            return None
        if message.peer not in {part.wanted.before for part in self.parts.values()}:
            raise PeerError(f"{where}: are not due")
        if number not in self.early and len(self.early) >= MOST_WAITING:
            raise PeerError(f"{where}: {MOST_WAITING} runs to come have theirs already")
        self._check_room(message.arrays, where)
        self.early[number] = message
        return None

    def take_hidden(self, due: DueRun, message: Message) -> None:
        """The hidden states of a run arrived.

        Raises:
            PeerError: they are not what they are to be, or too much waits already.
        """
        where = f"{message.peer}: hidden states of run {due.run.number}"
        self._check_room(message.arrays, where)
        due.hidden = from_arrays(
            message.arrays,
            due.part.wanted.link_type,
            grouped(due.run.lengths),
            self.manifest.dimensions.hidden,
            where=where,
        )

    def give_up(self, due: DueRun) -> None:
        """A run is computed, or is not to be."""
        due.given_up = True
        self.runs = deque(item for item in self.runs if item is not due)

    def give_up_all(self, most: int | None = None) -> None:
        """None of the runs up to this number is to be computed, or none at all."""
        for due in list(self.runs):
            if most is None or due.run.number <= most:
                self.give_up(due)

    def _check_room(self, arrays: tuple[Any, ...], where: str) -> None:
        """Refuse what there is no room for beside what waits already."""
        found = [array.nbytes for array in arrays]
        found += [item.hidden.packed.nbytes for item in self.runs if item.hidden is not None]
        found += [2 * text.ids.nbytes for item in self.runs for text in item.texts or ()]
        found += [array.nbytes for early in self.early.values() for array in early.arrays]
        if sum(found) > MOST_WAITING_BYTES:
            raise PeerError(f"{where}: with it more than {MOST_WAITING_BYTES} bytes would wait")


def _check_sender(due: DueRun, message: Message) -> None:
    if message.peer != due.part.wanted.before:
        raise PeerError(
            f"{message.peer}: hidden states of run {due.run.number} are due from "
            f"{due.part.wanted.before or 'nobody'}"
        )


def texts_of(run: Run, arrays: tuple[Any, ...], *, rows: int, where: str) -> list[Encoding] | None:
    """The texts of a run as they were sent: token ids and types. None where none were.

    Args:
        rows: of the token embedding table.

    Raises:
        PeerError: they are not what was to come.
    """
    if not arrays:
        return None
    tokens = sum(run.lengths)
    found = [(array.dtype.name, array.shape) for array in arrays]
    if found != [("int64", (tokens,))] * 2:
        raise PeerError(f"{where}: sent arrays {found}, and ids and types of {tokens} were due")
    ids, types = arrays
    if ids.min() < 0 or ids.max() >= rows or types.min() < 0:
        raise PeerError(f"{where}: sent tokens that the pack does not have")
    ends = np.cumsum(run.lengths)
    return [
        Encoding(ids[end - length : end], types[end - length : end], False, Alignment(list))
        for end, length in zip(ends, run.lengths, strict=True)
    ]
