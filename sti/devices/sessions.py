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

from sti.devices.commands import Prepare, Run
from sti.devices.hidden_arrays import from_arrays
from sti.devices.stage_runner import ReadyPart
from sti.errors import PeerError
from sti.exchange.interface import Message
from sti.model.manifest import Manifest
from sti.pipeline.sources import HiddenStates
from sti.text.encoding import Alignment, Encoding

MOST_WAITING = 64
"""Runs of a session that wait to be computed, and hidden states that came before their run."""
MOST_PARTS = 16
"""Parts that a session has ready; the one that was prepared longest ago is forgotten."""


class SessionPart(NamedTuple):
    """A part that a controller asked for, and what was made of it."""

    wanted: Prepare
    ready: ReadyPart

    @property
    def neighbours(self) -> tuple[str, str]:
        """Who sends hidden states, and who gets them; empty where nobody does."""
        return self.wanted.before, self.wanted.after


@dataclass(slots=True)
class DueRun:
    """A run that waits to be computed."""

    run: Run
    part: SessionPart
    texts: list[Encoding] | None
    """Of a first part."""
    hidden: HiddenStates | None = None
    """Of another one, once they are there."""

    @property
    def has_input(self) -> bool:
        """Whether what it starts from is there."""
        return self.texts is not None or self.hidden is not None


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
    ended: int = -1
    """Runs up to this number are computed, failed or dropped."""

    def add_part(self, wanted: Prepare, ready: ReadyPart) -> None:
        """A part is ready."""
        self.parts.pop(wanted.part, None)
        while len(self.parts) >= MOST_PARTS:
            del self.parts[next(iter(self.parts))]
        self.parts[wanted.part] = SessionPart(wanted, ready)

    def add_run(self, run: Run, arrays: tuple[Any, ...]) -> None:
        """A run is asked for.

        Raises:
            PeerError: it was asked for already, its part is not ready, too many wait, or what came
                with it is not what it starts from.
        """
        where = f"run {run.number} of {self.controller}"
        part = self.parts.get(run.part)
        if part is None:
            raise PeerError(f"{where}: part {run.part} was not prepared")
        if run.number <= self.last:
            raise PeerError(f"{where}: run {self.last} was asked for already")
        if len(self.runs) >= MOST_WAITING:
            raise PeerError(f"{where}: {MOST_WAITING} runs are waiting already")
        first = not part.wanted.before
        texts = texts_of(run, arrays, rows=self.manifest.embeddings.rows, where=where)
        if (texts is not None) != first:
            raise PeerError(f"{where}: texts come with runs of a first part, and with no others")
        self.last = run.number
        self.runs.append(DueRun(run, part, texts))
        early = self.early.pop(run.number, None)
        if early is not None:
            self.add_hidden(run.number, early)

    def add_hidden(self, number: int, message: Message) -> None:
        """Hidden states arrived.

        Raises:
            PeerError: nobody waits for them, they come from another device than they are due from,
                or they are not what they are to be.
        """
        if number <= self.ended:
            return
        due = next((item for item in self.runs if item.run.number == number), None)
        if due is None:
            senders = {part.wanted.before for part in self.parts.values()}
            if number <= self.last or message.peer not in senders:
                raise PeerError(f"{message.peer}: hidden states of run {number} are not due")
            if len(self.early) >= MOST_WAITING:
                raise PeerError(f"{message.peer}: too many hidden states of runs to come")
            self.early[number] = message
            return
        if message.peer != due.part.wanted.before:
            raise PeerError(
                f"{message.peer}: hidden states of run {number} are due from "
                f"{due.part.wanted.before or 'nobody'}"
            )
        due.hidden = from_arrays(
            message.arrays,
            due.part.wanted.link_type,
            due.run.groups,
            self.manifest.dimensions.hidden,
            where=f"{message.peer}: run {number}",
        )

    def end(self, number: int) -> None:
        """Forget runs up to this number."""
        self.ended = max(self.ended, number)
        self.runs = deque(item for item in self.runs if item.run.number > self.ended)
        for early in [found for found in self.early if found <= self.ended]:
            del self.early[early]

    def runs_with(self, peer: str) -> list[DueRun]:
        """The runs that a peer sends hidden states for, or gets them of."""
        return [item for item in self.runs if peer in item.part.neighbours]


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
