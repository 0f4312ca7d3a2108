"""Parts on a worker: what one takes of memory is given back when another one takes its place."""

from __future__ import annotations

from sti.devices.commands import Prepare
from sti.devices.stage_runner import ReadyPart, ready_part
from sti.model.workload import Workload
from sti.planning.links import FLOAT32
from sti.planning.plan import Plan, PlanRequest
from sti.planning.uniform import uniform_plan
from sti.storage.byte_ranges import HUGE_PAGE
from tests.support.devices import Machine, machine
from tests.support.paths import MINILM

ROOM = 1 << 30


def part_of(at_work: Machine, plan: Plan, first: int, last: int, read_ahead: int) -> ReadyPart:
    steps = [step for step in plan.steps if first <= step.layer <= last]
    wanted = Prepare(
        part=0,
        plan=plan,
        first=first,
        last=last,
        preloads=(0,) * len(steps),
        threads=plan.threads,
        read_ahead=read_ahead,
        before="before" if first else "",
        after="" if last == plan.steps[-1].layer else "after",
        link_type=FLOAT32,
    )
    return ready_part(wanted, at_work.reader, at_work.backend, device="a", room_bytes=ROOM)


def test_the_ring_of_a_larger_part_is_given_back() -> None:
    with machine(MINILM) as at_work:
        request = PlanRequest(at_work.reader.manifest, at_work.reader.pack_id, Workload(1, 8))
        plan = uniform_plan(request, bits=8)
        held = at_work.runner.preloading
        for first, last, ahead in ((0, 0, 1), (1, 5, 9), (2, 3, 3), (0, 0, 1)):
            ready = part_of(at_work, plan, first, last, ahead)
            held.hold(ready.jobs, ready.part)
            held.await_filled()
            assert held.buffer_bytes == max(HUGE_PAGE, ready.memory_bytes)
