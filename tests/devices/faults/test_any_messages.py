"""Whatever is sent to a worker, it goes on, and answers what makes sense as before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sti.devices import commands
from sti.devices.commands import run_key
from sti.errors import InputError
from sti.exchange.frames import DTYPES, encode
from sti.exchange.threads import ThreadExchange
from tests.support.packs import SHAPE, tiny_pack
from tests.support.raw_controllers import OTHER, WORKER, RawController, raw_controller, text_arrays

_WORDS = (
    *("do", "is", "facts", "number", "part", "lengths", "wait_s", "why", "without", "report"),
    *("name", "address", "first", "last", "preloads", "threads", "read_ahead", "before", "after"),
    *("link_type", "shapes", "protocol", "profile", "delay_s", "bytes_per_s"),
)
_VALUES = (
    *(commands.HELLO, commands.REACH, commands.PREPARE, commands.RUN, commands.DROP),
    *(commands.ECHO, commands.HIDDEN, commands.ANSWER, commands.DONE, commands.FAILED),
    *(WORKER, OTHER, "controller", "float32", "int8", ""),
)
_KINDS = (
    *("any", "prepare", "back", "run", "run of hidden states", "hello", "hidden", "hidden", "drop"),
)
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(_VALUES)
    | st.text(max_size=5)
)
_VALUE = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(_WORDS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
_HEADS = st.dictionaries(st.sampled_from(_WORDS) | st.text(max_size=3), _VALUE, max_size=6)
_SHAPES = st.lists(st.integers(0, 9) | st.just(SHAPE.hidden), max_size=3)


@st.composite
def arrays(draw: st.DrawFn) -> NDArray[Any]:
    """An array of any kind that is sent; some are hidden states or token ids."""
    shape, dtype = tuple(draw(_SHAPES)), draw(st.sampled_from(DTYPES))
    value = draw(st.sampled_from([0, 1, 7, -1, 100, float("nan"), 3e38]))
    with np.errstate(all="ignore"):
        return np.full(shape, value, np.float64).astype(dtype)


class Message:
    """Something to be sent: sound, but for what was changed."""

    def __init__(
        self,
        kind: str,
        changes: Mapping[str, Any],
        drops: str,
        arrays: list[NDArray[Any]] | None,
    ) -> None:
        self.kind, self.changes, self.drops, self.arrays = kind, changes, drops, arrays

    def __repr__(self) -> str:
        return f"Message({self.kind!r}, {self.changes!r}, {self.drops!r}, {self.arrays!r})"


@st.composite
def messages(draw: st.DrawFn) -> Message:
    kind = draw(st.sampled_from(_KINDS))
    changes = draw(_HEADS if kind == "any" else st.dictionaries(st.sampled_from(_WORDS), _VALUE))
    if kind != "any" and draw(st.booleans()):
        changes = {}
    drops = draw(st.sampled_from(["", *_WORDS]))
    found = draw(st.lists(arrays(), max_size=2)) if draw(st.booleans()) else None
    return Message(kind, changes, drops, found)


def send(controller: RawController, sender: ThreadExchange, message: Message, number: int) -> None:
    part = number % 3
    run = controller.next_run(part=part)
    wanted = controller.wanted(part=part)
    if message.kind == "back":
        wanted = controller.wanted_back(part)
    sound: Mapping[str, tuple[dict[str, Any], Any]] = {
        "any": ({}, ()),
        "prepare": (wanted.to_json(), wanted.plan_arrays),
        "back": (wanted.to_json(), wanted.plan_arrays),
        "run": (run.to_json(), text_arrays(4)),
        "run of hidden states": (run.to_json(), ()),
        "hello": ({"do": commands.HELLO, "facts": controller.facts.to_json()}, ()),
        "hidden": ({"is": commands.HIDDEN}, (np.zeros((4, SHAPE.hidden), np.float32),)),
        "drop": ({"do": commands.DROP, "number": run.number}, ()),
    }
    head, usual = sound[message.kind]
    head = {**head, **message.changes}
    head.pop(message.drops, None)
    found = usual if message.arrays is None else message.arrays
    key = f"{controller.session} ask {10**6 + number}"
    if message.kind in ("any", "run", "run of hidden states", "hidden"):
        key = run_key(controller.session, run.number - number % 2)
    try:
        encode(key, head, found)
    except InputError:
        return  # what no exchange sends does not arrive
    sender.send(WORKER, key, head, found)


def test_nothing_that_is_sent_ends_a_worker_or_makes_it_deaf() -> None:
    with raw_controller(tiny_pack()) as (controller, other):
        due = controller.is_well()

        @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
        @given(st.lists(st.tuples(messages(), st.booleans(), st.integers(0, 8)), max_size=6))
        def sent(items: list[tuple[Message, bool, int]]) -> None:
            for message, is_other, number in items:
                send(controller, other if is_other else controller.exchange, message, number)
            assert controller.is_well() == due

        sent()
