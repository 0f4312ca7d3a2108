"""What a controller and its workers tell each other, as values and as JSON.

    controller -> worker     Hello, Reach, Prepare, Run, Drop
    worker -> controller     facts, a link, how much memory, hidden states or answers, failures
    worker -> worker         hidden states

Each is the head of a message (``sti.exchange``). The key of a message begins with the session, a
name that the controller made up for itself, so that nothing of an earlier life of it is mistaken;
behind it is the number of a batch (``run_key``) or of a question (``ask_key``). A batch is computed
in one run or several; runs of a session are numbered upwards, and each number is taken once. Knows
nothing of networks or of what runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from sti.device.lanes import LANES, MOST_THREADS, LaneThreads
from sti.errors import PeerError
from sti.json_fields import JsonFields
from sti.planning.links import LINK_TYPES
from sti.planning.plan import Plan

HELLO, REACH, PREPARE, RUN, DROP = "hello", "reach", "prepare", "run", "drop"
"""What a controller asks for: the ``do`` of a head."""
ECHO = "echo"
"""What any peer may ask for: the same arrays back, to measure the link."""
HIDDEN, ANSWER, DONE, FAILED, DROPPED = "hidden", "answer", "done", "failed", "dropped"
"""What comes of a run: the ``is`` of a head."""
MOST_NUMBER = 1 << 48
"""Of runs and parts."""
_SESSION = re.compile(r"[0-9a-f]{16}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_MOST_TEXTS, _MOST_TOKENS = 4096, 1 << 20
_MOST_WAIT_S = 3600.0


def session_of(key: str) -> str | None:
    """The session that a key belongs to; None where it is none of ours."""
    session = key.partition(" ")[0]
    return session if _SESSION.fullmatch(session) else None


def is_device_name(name: str) -> bool:
    """Whether a device may have this name."""
    return _NAME.fullmatch(name) is not None


def run_key(session: str, batch: int) -> str:
    """The key of what belongs to the runs of one batch."""
    return f"{session} {batch}"


def ask_key(session: str, number: int) -> str:
    """The key of a question outside of runs, and of its answer."""
    return f"{session} ask {number}"


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
        """The head of a message."""
        return {
            "do": PREPARE,
            **self._asdict(),
            "plan": self.plan.to_json(),
            "preloads": list(self.preloads),
            "threads": self.threads._asdict(),
        }

    @classmethod
    def from_json(cls, fields: JsonFields) -> Prepare:
        """What a controller asks for.

        Raises:
            PeerError, PlanError: it is malformed.
        """
        fields.only("do", *cls._fields)
        threads = fields.object("threads").only(*LANES)
        link_type = fields.text("link_type")
        if link_type not in LINK_TYPES:
            raise fields.fail("link_type", f"one of {', '.join(LINK_TYPES)}")
        return cls(
            part=fields.integer("part", most=MOST_NUMBER),
            plan=Plan.from_json(fields.raw("plan"), where=f"{fields.where}: plan"),
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
    batch: int
    """Number of the first run of its batch."""
    part: int
    """Which part computes it."""
    groups: tuple[tuple[int, ...], ...]
    """Of each group of sentences, the tokens of its sentences. The texts of a first part follow as
    arrays: token ids and types, ``[T]`` each, in the order of the texts."""
    lengths: tuple[int, ...]
    """Of each text, in the order of the texts."""
    wait_s: float
    """For how long hidden states may be waited for."""

    def to_json(self) -> dict[str, Any]:
        """The head of a message."""
        return {
            "do": RUN,
            "number": self.number,
            "batch": self.batch,
            "part": self.part,
            "groups": [list(group) for group in self.groups],
            "lengths": list(self.lengths),
            "wait_s": self.wait_s,
        }

    @classmethod
    def from_json(cls, fields: JsonFields, *, most_tokens: int) -> Run:
        """What a controller asks for.

        Raises:
            PeerError: it is malformed, or texts are longer than the model takes.
        """
        fields.only("do", *cls._fields)
        rows = fields.items("groups")
        inside = [
            JsonFields({"group": row}, where=fields.where, error=PeerError).integers(
                "group", least=1
            )
            for row in rows[:_MOST_TEXTS]
        ]
        lengths = fields.integers("lengths", least=1)
        flat = sorted(length for group in inside for length in group)
        if flat != sorted(lengths) or not flat or not all(inside):
            raise fields.fail("groups", "of the same texts as `lengths`, none of them empty")
        if len(flat) > _MOST_TEXTS or sum(flat) > _MOST_TOKENS or flat[-1] > most_tokens:
            raise PeerError(
                f"{fields.where}: {len(flat)} texts of up to {flat[-1]} tokens; at most "
                f"{_MOST_TEXTS} of {most_tokens} are taken"
            )
        return cls(
            number=fields.integer("number", most=MOST_NUMBER),
            batch=fields.integer("batch", most=MOST_NUMBER),
            part=fields.integer("part", most=MOST_NUMBER),
            groups=tuple(inside),
            lengths=lengths,
            wait_s=fields.number("wait_s", least=0.0, most=_MOST_WAIT_S),
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
            fields.number("total_s", least=0.0, most=_MOST_WAIT_S),
            fields.number("waited_s", least=0.0, most=_MOST_WAIT_S),
            fields.integer("read_bytes"),
        )


def fields_of(head: Mapping[str, Any], *, where: str) -> JsonFields:
    """A head whose fields are read with their types checked."""
    return JsonFields(head, where=where, error=PeerError)


def _name_or_none(fields: JsonFields, key: str) -> str:
    name = fields.text(key)
    if name and not is_device_name(name):
        raise fields.fail(key, "the name of a device")
    return name
