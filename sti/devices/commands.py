"""What a controller and its workers tell each other, as values and as JSON.

    controller -> worker     Hello, Reach, Prepare, Run, Drop
    worker -> controller     facts, a link, how much memory, hidden states or answers, failures
    worker -> worker         hidden states

Each is a message (``sti.exchange``): a head, sometimes with arrays. The key of a message begins
with the session, a name that the controller made up for itself, so that nothing of an earlier life
of it is mistaken; behind it is the number of a run (``run_key``) or of a question (``ask_key``).
Runs of a session are numbered upwards, and each number is taken once. Whatever is asked for is
answered under its own key, if only by a failure. Knows nothing of networks or of what runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sti.device.lanes import LANES, MOST_THREADS, LaneThreads
from sti.errors import PeerError
from sti.exchange.frames import MOST_ARRAY_BYTES
from sti.exchange.names import is_device_name
from sti.json_fields import JsonFields, whole_number
from sti.model.workload import Workload
from sti.planning.links import LINK_TYPES
from sti.planning.plan import Plan
from sti.text.batching import group_by_length

HELLO, REACH, PREPARE, RUN, DROP = "hello", "reach", "prepare", "run", "drop"
"""What a controller asks for: the ``do`` of a head."""
ECHO = "echo"
"""What any peer may ask for: the same arrays back, to measure the link."""
HIDDEN, ANSWER, DONE, FAILED = "hidden", "answer", "done", "failed"
"""What comes of a run: the ``is`` of a head."""
MOST_NUMBER = 1 << 48
"""Of runs and parts."""
_SESSION = re.compile(r"[0-9a-f]{16}")
MOST_TEXTS, MOST_TOKENS = 4096, 1 << 18
"""Of one run: so many lengths have room in a head."""
MOST_WAIT_S = 3600.0
_MOST_WHY = 400
"""Characters of a reason that is told to a peer."""


def session_of(key: str) -> str | None:
    """The session that a key belongs to; None where it is none of ours."""
    session = key.partition(" ")[0]
    return session if _SESSION.fullmatch(session) else None


def run_key(session: str, number: int) -> str:
    """The key of what belongs to one run."""
    return f"{session} {number}"


def ask_key(session: str, number: int) -> str:
    """The key of a question outside of runs, and of its answer."""
    return f"{session} ask {number}"


def drop_key(session: str) -> str:
    """The key of what drops runs, which is not answered."""
    return f"{session} drop"


def run_number(key: str) -> int | None:
    """The number of the run that a key belongs to; None where it belongs to none."""
    return whole_number(key.partition(" ")[2])


class Prepare(NamedTuple):
    """Get ready for a part of a plan."""

    part: int
    """Names the part, for runs; one of the same name is replaced."""
    plan: Plan
    """The whole plan, which nothing is predicted of."""
    first: int
    last: int
    """The layers of the part."""
    preloads: tuple[int, ...]
    """Of each of the part's steps, the bytes to be held between runs."""
    threads: LaneThreads
    read_ahead: int
    before: str
    """Who sends the hidden states; empty for the first part, which embeds."""
    after: str
    """Who gets them; empty for the last part, which answers the controller."""
    link_type: str
    """How hidden states travel."""

    def to_json(self) -> dict[str, Any]:
        """The head of a message; ``plan_arrays`` go with it."""
        fields = {**self._asdict(), "threads": self.threads._asdict()}
        fields["preloads"] = list(self.preloads)
        del fields["plan"]
        return {"do": PREPARE, **fields}

    @property
    def plan_arrays(self) -> tuple[NDArray[np.uint8]]:
        """The plan, as bytes: those of large models have no room in a head."""
        return (np.frombuffer(self.plan.to_text().encode("ascii"), np.uint8),)

    @classmethod
    def from_json(cls, fields: JsonFields, arrays: Sequence[NDArray[Any]]) -> Prepare:
        """What a controller asks for.

        Raises:
            PeerError, PlanError: it is malformed.
        """
        fields.only("do", *(name for name in cls._fields if name != "plan"))
        if [(array.dtype.name, array.ndim) for array in arrays] != [("uint8", 1)]:
            raise PeerError(f"{fields.where}: a plan comes as one array of bytes")
        threads = fields.object("threads").only(*LANES)
        link_type = fields.text("link_type")
        if link_type not in LINK_TYPES:
            raise fields.fail("link_type", f"one of {', '.join(LINK_TYPES)}")
        return cls(
            part=fields.integer("part", most=MOST_NUMBER),
            plan=Plan.from_text(arrays[0].tobytes(), where=f"{fields.where}: plan"),
            first=fields.integer("first"),
            last=fields.integer("last"),
            preloads=fields.integers("preloads"),
            threads=LaneThreads(*(threads.integer(lane, most=MOST_THREADS) for lane in LANES)),
            read_ahead=fields.integer("read_ahead", least=1, most=1023),
            before=_name_or_none(fields, "before"),
            after=_name_or_none(fields, "after"),
            link_type=link_type,
        )


class Run(NamedTuple):
    """Compute one unit of a batch."""

    number: int
    """Above that of the run before."""
    part: int
    """Which part computes it."""
    lengths: tuple[int, ...]
    """Of each text, its tokens. The texts of a first part follow as arrays: token ids and types,
    ``[T]`` each, text after text."""
    wait_s: float
    """For how long hidden states may be waited for."""

    def to_json(self) -> dict[str, Any]:
        """The head of a message."""
        return {"do": RUN, **self._asdict(), "lengths": list(self.lengths)}

    @classmethod
    def from_json(cls, fields: JsonFields, *, most_tokens: int) -> Run:
        """What a controller asks for.

        Args:
            most_tokens: of a text, as the model takes them.

        Raises:
            PeerError: it is malformed, or has more texts or tokens than are taken.
        """
        fields.only("do", *cls._fields)
        lengths = fields.integers("lengths", least=1)
        if not lengths:
            raise fields.fail("lengths", "of at least one text")
        if len(lengths) > MOST_TEXTS or sum(lengths) > MOST_TOKENS or max(lengths) > most_tokens:
            raise PeerError(
                f"{fields.where}: {len(lengths)} texts of {sum(lengths)} tokens, the longest of "
                f"{max(lengths)}; at most {MOST_TEXTS} texts of {MOST_TOKENS} tokens are taken, "
                f"each of at most {most_tokens}"
            )
        return cls(
            number=fields.integer("number", most=MOST_NUMBER),
            part=fields.integer("part", most=MOST_NUMBER),
            lengths=lengths,
            wait_s=fields.number("wait_s", least=0.0, most=MOST_WAIT_S),
        )


def fits(unit: Workload, hidden: int) -> bool:
    """Whether a unit of a batch is no more than one run takes, and its hidden states no more than
    one message.

    Args:
        hidden: numbers of a hidden state.
    """
    tokens = unit.batch * unit.tokens
    return unit.batch <= MOST_TEXTS and tokens <= min(MOST_TOKENS, MOST_ARRAY_BYTES // (4 * hidden))


def grouped(lengths: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Of each group of sentences that attend together, the tokens of its sentences: all devices
    divide the texts of a run in the same way.
    """
    return tuple(
        tuple(lengths[member] for member in group.members) for group in group_by_length(lengths)
    )


class StageReport(NamedTuple):
    """What a stage of one run took on a device, in seconds and bytes."""

    total_s: float
    """From when it was begun to its end."""
    waited_s: float
    """Of that, until the hidden states were there."""
    read_bytes: int

    @classmethod
    def from_json(cls, fields: JsonFields) -> StageReport:
        """What a worker says.

        Raises:
            PeerError: it is malformed.
        """
        fields.only(*cls._fields)
        return cls(
            fields.number("total_s", least=0.0, most=MOST_WAIT_S),
            fields.number("waited_s", least=0.0, most=MOST_WAIT_S),
            fields.integer("read_bytes"),
        )


def failure(why: str, *, without: str = "") -> dict[str, str]:
    """The head of a message that says why something was not done.

    Args:
        without: the device that was waited for in vain, if that is why.
    """
    head = {"is": FAILED, "why": why[:_MOST_WHY]}
    return {**head, "without": without} if without else head


def answer_of(head: Mapping[str, Any], *, where: str) -> JsonFields:
    """The fields of an answer.

    Raises:
        PeerError: it is a failure; says which.
    """
    fields = fields_of(head, where=where)
    if fields.raw("is") == FAILED:
        raise PeerError(fields.text("why"))
    return fields


def fields_of(head: Mapping[str, Any], *, where: str) -> JsonFields:
    """A head whose fields are read with their types checked."""
    return JsonFields(head, where=where, error=PeerError)


def _name_or_none(fields: JsonFields, key: str) -> str:
    name = fields.text(key)
    if name and not is_device_name(name):
        raise fields.fail(key, "the name of a device")
    return name
