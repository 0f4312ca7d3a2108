"""What a worker is not to obey: it says why, under the same key, and goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sti.device.lanes import LaneThreads
from sti.devices import commands
from sti.devices.commands import DROP, ECHO, HELLO, HIDDEN, MOST_TEXTS, REACH, RUN, run_key
from sti.devices.sessions import MOST_WAITING
from sti.exchange.interface import Message
from sti.exchange.threads import ThreadExchange
from tests.support.packs import SHAPE, tiny_pack
from tests.support.processes import WAIT_S
from tests.support.raw_controllers import OTHER, WORKER, RawController, raw_controller, text_arrays

HIDDEN_SIZE = SHAPE.hidden


@pytest.fixture
def members() -> Iterator[tuple[RawController, ThreadExchange]]:
    """A controller that has said hello, and another device; the worker is well at the end."""
    with raw_controller(tiny_pack()) as (controller, other):
        due = controller.is_well()
        yield controller, other
        assert controller.is_well() == due


def receive(member: ThreadExchange, key: str) -> Message:
    return member.receive(key=key, peer=WORKER, deadline=time.monotonic() + WAIT_S)


@pytest.mark.parametrize(
    ("head", "why"),
    [
        ({}, "field 'do' must be something that a controller may ask for, found 'nothing'"),
        ({"do": "dance"}, "found 'dance'"),
        ({"do": ["run"]}, "found"),
        ({"do": HELLO}, "facts: expected an object"),
        ({"do": HELLO, "facts": {}}, "field 'protocol' must be"),
        ({"do": HELLO, "facts": {}, "more": 1}, "unknown field 'more'"),
        ({"do": ECHO, "is": None, "x": 1}, "unknown field 'is'"),
        ({"do": DROP, "number": "1"}, "field 'number' must be an integer"),
        ({"do": DROP, "number": 1, "all": True}, "unknown field 'all'"),
        ({"do": REACH, "name": "b"}, "field 'address' must be a string"),
        ({"do": REACH, "name": "../b", "address": "x"}, "the name of another device"),
        ({"do": REACH, "name": WORKER, "address": "x"}, "the name of another device"),
        ({"do": RUN}, "field 'lengths' must be a list of integers"),
        ({"do": RUN, "batch": 1}, "unknown field 'batch'"),
        ({"do": "prepare"}, "a plan comes as one array of bytes"),
        ({"a": {"b": {"c": {"d": {"e": {}}}}}}, "field 'do' must be"),
    ],
)
def test_heads_that_make_no_command(
    members: tuple[RawController, ThreadExchange], head: dict[str, Any], why: str
) -> None:
    assert why in members[0].refused(head)


def test_strangers_to_a_session_cannot_use_it(
    members: tuple[RawController, ThreadExchange],
) -> None:
    controller, other = members
    key = run_key(controller.session, 77)
    run = controller.next_run()
    other.send(WORKER, key, run.to_json(), text_arrays(4))
    assert "b: says hello first in a session of its own" in receive(other, key).head["why"]
    key = f"{controller.session} ask 1"
    other.send(WORKER, key, {"do": HELLO, "facts": controller.facts.to_json()})
    assert "the session is that of controller" in receive(other, key).head["why"]
    other.send(WORKER, "no session", {"do": HELLO, "facts": controller.facts.to_json()})
    assert "no name of a session" in receive(other, "no session").head["why"]


@pytest.mark.parametrize(
    ("others", "why"),
    [
        ({"first": 1}, "its ends do not fit layers 1 to 2"),
        ({"last": 0}, "its ends do not fit layers 0 to 0"),
        ({"first": 2, "last": 1}, "it has no layers 2 to 1"),
        ({"last": 7}, "it has no layers 0 to 7"),
        ({"preloads": (0,)}, "1 preloads for"),
        ({"threads": LaneThreads(0, 0, 0)}, "no use for such threads"),
        ({"threads": LaneThreads(0, 1, 1)}, "no use for such threads"),
        ({"threads": LaneThreads(1, 0, 100)}, "it computes on 100 threads, a on 2"),
        ({"before": WORKER}, "is no neighbour of its own"),
        ({"after": WORKER}, "is no neighbour of its own"),
        ({"before": "no name"}, "the name of a device"),
        ({"link_type": "float8"}, "one of float32, float16, int8"),
        ({"read_ahead": 0}, "an integer of at least 1"),
    ],
)
def test_parts_that_cannot_be_prepared(
    members: tuple[RawController, ThreadExchange], others: dict[str, Any], why: str
) -> None:
    found = members[0].prepare(**others)
    assert found["is"] == commands.FAILED
    assert why in found["why"]


def test_plans_of_other_packs(members: tuple[RawController, ThreadExchange]) -> None:
    controller, _ = members
    with raw_controller(tiny_pack(seed=1)) as (stranger, _):
        plan = stranger.plan
    assert "the plan was made for another pack" in controller.prepare(plan=plan)["why"]


@pytest.mark.parametrize(
    "arrays",
    [
        (),
        (np.zeros(3, np.int8),),
        (np.zeros((1, 3), np.uint8),),
        (np.frombuffer(b"{", np.uint8),),
        (np.frombuffer(b"[" * 50_000, np.uint8),),
        (np.zeros(0, np.uint8), np.zeros(0, np.uint8)),
        (np.frombuffer(b"\xff\xfe", np.uint8),),
    ],
)
def test_plans_that_are_none(
    members: tuple[RawController, ThreadExchange], arrays: Sequence[NDArray[Any]]
) -> None:
    controller, _ = members
    assert "plan" in controller.refused(controller.wanted().to_json(), arrays)


TOO_LONG = SHAPE.positions + 1


@pytest.mark.parametrize(
    ("others", "arrays", "why"),
    [
        ({"part": 3}, text_arrays(4), "part 3 was not prepared"),
        ({"lengths": ()}, (), "of at least one text"),
        ({"lengths": (0, 4)}, text_arrays(4), "a list of integers of at least 1"),
        ({"lengths": (TOO_LONG,)}, text_arrays(TOO_LONG), f"each of at most {SHAPE.positions}"),
        ({"lengths": (1,) * (MOST_TEXTS + 1)}, (), f"at most {MOST_TEXTS} texts"),
        ({"number": 0}, text_arrays(4), "was asked for already, and numbers rise"),
        ({"wait_s": 1e9}, text_arrays(4), "a number of at most"),
        ({}, (), "texts come with runs of a first part"),
        ({}, text_arrays(5), "ids and types of 4 were due"),
        ({}, text_arrays(4)[:1], "ids and types of 4 were due"),
        ({}, (np.zeros(4, np.int32), np.zeros(4, np.int32)), "ids and types of 4 were due"),
        ({}, (np.full(4, 10**6), np.zeros(4, np.int64)), "tokens that the pack does not have"),
        ({}, (np.full(4, -1), np.zeros(4, np.int64)), "tokens that the pack does not have"),
        ({}, (np.ones(4, np.int64), np.full(4, -1)), "tokens that the pack does not have"),
        ({}, (np.ones(4, np.int64), np.full(4, 99)), ""),
    ],
)
def test_runs_that_cannot_be_computed(
    members: tuple[RawController, ThreadExchange],
    others: dict[str, Any],
    arrays: Sequence[NDArray[Any]],
    why: str,
) -> None:
    controller, _ = members
    found = controller.run(controller.next_run(**others), arrays)
    assert found.head["is"] == commands.FAILED
    assert why in found.head["why"]


def test_a_run_that_is_replayed_is_computed_once(
    members: tuple[RawController, ThreadExchange],
) -> None:
    controller, _ = members
    run = controller.next_run()
    assert controller.run(run).head["is"] == commands.ANSWER
    assert "was asked for already" in controller.run(run).head["why"]


def send_hidden(
    member: ThreadExchange, key: str, array: NDArray[Any] | None = None, tokens: int = 4
) -> None:
    found = np.zeros((tokens, HIDDEN_SIZE), np.float32) if array is None else array
    member.send(WORKER, key, {"is": HIDDEN}, (found,))


def test_hidden_states_come_before_their_run_or_behind_it(
    members: tuple[RawController, ThreadExchange],
) -> None:
    controller, other = members
    assert controller.back()["is"] == commands.PREPARE
    runs = [controller.next_run(part=1) for _ in range(2)]
    early, late = (run_key(controller.session, run.number) for run in runs)
    send_hidden(other, early)
    send_hidden(other, early)  # replayed
    controller.send(runs[0].to_json(), key=early)
    assert controller.answer(early).head["is"] == commands.ANSWER
    controller.send(runs[1].to_json(), key=late)
    send_hidden(other, late)
    assert controller.answer(late).head["is"] == commands.ANSWER
    send_hidden(other, late)  # replayed: the run is over


NOT_FINITE = np.full((4, HIDDEN_SIZE), np.nan, np.float32)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, HIDDEN_SIZE), np.float16),
        np.zeros((5, HIDDEN_SIZE), np.float32),
        np.zeros((4, HIDDEN_SIZE + 1), np.float32),
        np.zeros(4 * HIDDEN_SIZE, np.float32),
        NOT_FINITE,
        np.where(np.eye(4, HIDDEN_SIZE) > 0, np.inf, 0).astype(np.float32),
    ],
    ids=["dtype", "tokens", "hidden", "flat", "nan", "infinite"],
)
@pytest.mark.parametrize("is_early", [False, True])
def test_hidden_states_that_are_wrong_end_their_run(
    members: tuple[RawController, ThreadExchange], wrong: NDArray[Any], is_early: bool
) -> None:
    controller, other = members
    controller.back()
    run = controller.next_run(part=1)
    key = run_key(controller.session, run.number)
    if is_early:
        send_hidden(other, key, wrong)
        assert controller.ask({"do": ECHO})["is"] == ECHO  # it is there
        controller.send(run.to_json(), key=key)
    else:
        controller.send(run.to_json(), key=key)
        send_hidden(other, key, wrong)
    found = controller.answer(key).head
    assert found["is"] == commands.FAILED
    assert f"b: hidden states of run {run.number}" in found["why"]
    if not is_early:
        assert found["without"] == OTHER
        assert receive(other, key).head["is"] == commands.FAILED


def test_hidden_states_of_somebody_else_change_nothing(
    members: tuple[RawController, ThreadExchange],
) -> None:
    controller, other = members
    controller.back(before="controller")
    run = controller.next_run(part=1)
    key = run_key(controller.session, run.number)
    controller.send(run.to_json(), key=key)
    send_hidden(other, key)
    assert "are due from controller" in receive(other, key).head["why"]
    send_hidden(controller.exchange, key)
    assert controller.answer(key).head["is"] == commands.ANSWER


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("ffffffffffffffff 1", "of a session that is not here"),
        ("{session} 9999", "are not due"),
    ],
)
def test_hidden_states_that_nobody_waits_for(
    members: tuple[RawController, ThreadExchange], key: str, why: str
) -> None:
    controller, other = members
    key = key.format(session=controller.session)
    send_hidden(other, key)
    assert why in receive(other, key).head["why"]


def test_answers_and_failures_are_never_answered(
    members: tuple[RawController, ThreadExchange],
) -> None:
    controller, other = members
    for kind in (commands.FAILED, commands.ANSWER, commands.DONE, ECHO, HELLO, "x", 1, []):
        for key in (run_key(controller.session, 1), "ffffffffffffffff 1", "x"):
            other.send(WORKER, key, {"is": kind})
    key = "after them"
    other.send(WORKER, key, {"do": ECHO})
    message = other.receive(peer=WORKER, deadline=time.monotonic() + WAIT_S)
    while message.key in ("lost", "found"):
        message = other.receive(peer=WORKER, deadline=time.monotonic() + WAIT_S)
    assert message.key == key


def test_more_than_a_worker_keeps_is_refused(
    members: tuple[RawController, ThreadExchange],
) -> None:
    controller, other = members
    controller.back()
    runs = [controller.next_run(part=1) for _ in range(MOST_WAITING + 1)]
    keys = [run_key(controller.session, run.number) for run in runs]
    for run, key in zip(runs, keys, strict=True):
        controller.send(run.to_json(), key=key)
    assert "64 runs are waiting already" in controller.answer(keys[-1]).head["why"]
    controller.send({"do": DROP, "number": runs[-1].number})
    for number in range(MOST_WAITING + 1):
        send_hidden(other, run_key(controller.session, 10_000 + number))
    found = receive(other, run_key(controller.session, 10_000 + MOST_WAITING))
    assert "64 runs to come have theirs already" in found.head["why"]


def test_a_run_that_is_dropped_ends_at_once(
    members: tuple[RawController, ThreadExchange],
) -> None:
    controller, _ = members
    controller.back()
    run = controller.next_run(part=1)
    controller.send(run.to_json(), key=run_key(controller.session, run.number))
    controller.send({"do": DROP, "number": run.number})
    assert controller.ask({"do": ECHO})["is"] == ECHO


@pytest.mark.parametrize(
    "ends",
    [
        lambda controller, other: other.kill(),
        lambda controller, other: controller.hello(),
        lambda controller, other: other.send(
            WORKER, run_key(controller.session, 2), commands.failure("no")
        ),
    ],
    ids=["its sender is lost", "its controller begins anew", "its sender failed"],
)
def test_a_run_that_waits_for_hidden_states_does_not_wait_for_ever(
    ends: Callable[[RawController, ThreadExchange], object],
) -> None:
    with raw_controller(tiny_pack()) as (controller, other):
        controller.is_well()
        controller.back()
        run = controller.next_run(part=1)
        assert run.number == 2
        controller.send(run.to_json(), key=run_key(controller.session, 2))
        assert controller.ask({"do": ECHO})["is"] == ECHO  # amid its waiting
        ends(controller, other)
        controller.is_well()


def test_hidden_states_that_do_not_come_are_told(
    members: tuple[RawController, ThreadExchange],
) -> None:
    controller, _ = members
    controller.back()
    run = controller.next_run(part=1, wait_s=0.01)
    key = run_key(controller.session, run.number)
    controller.send(run.to_json(), key=key)
    found = controller.answer(key).head
    assert "b sent no hidden states within 0.01 s" in found["why"]
    assert found["without"] == OTHER
