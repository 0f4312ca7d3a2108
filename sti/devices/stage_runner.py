"""A part of a plan, made ready on this device, and run unit by unit.

In: what a controller asks for (``Prepare``), checked against the pack; then texts or hidden states.
Out: hidden states or answers, and what it took. Used by workers and, for its own stage, by the
controller. Knows nothing of networks. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import NamedTuple

from sti.backend.interface import Backend
from sti.devices.commands import Prepare, StageReport
from sti.devices.facts import plans_pack_id
from sti.errors import PeerError
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Runner, StageOutcome
from sti.pipeline.sources import HiddenStates
from sti.pipeline.trace import Recorder
from sti.planning.check import check_plan
from sti.planning.lane_threads import are_known
from sti.planning.memory import ring_bytes
from sti.planning.plan import Plan
from sti.planning.stages import Stage, layers_of, part_of
from sti.planning.step_jobs import StepJob, prepare
from sti.text.encoding import Encoding

StageInput = Sequence[Encoding] | Callable[[], HiddenStates]
"""Texts, or what waits for hidden states."""


class ReadyPart(NamedTuple):
    """A part of a plan with the jobs of its steps."""

    part: Plan
    jobs: tuple[StepJob, ...]
    last: bool
    """Whether the head answers behind it."""

    @property
    def memory_bytes(self) -> int:
        """What is held of it between runs, and what is read ahead in one."""
        held = sum(job.preload_bytes for job in self.jobs)
        sizes = [job.slot_bytes for job in self.jobs]
        return held + ring_bytes(sizes, self.part.read_ahead + 1)


def ready_part(
    wanted: Prepare, reader: PackReader, backend: Backend, *, device: str, room_bytes: int | None
) -> ReadyPart:
    """Check a part that is asked for, and make the jobs of its steps.

    Args:
        device: name of this device.
        room_bytes: memory that it may take; None: any.

    Raises:
        PlanError: the plan does not fit the pack.
        PeerError: the part is none of it, this pack has other layers, or there is no room for it;
            says what there is.
    """
    where = f"plan for {device}"
    plan = replace(wanted.plan, predicted=None)
    check_plan(plan, reader.manifest, plans_pack_id(reader), where=where)
    layers = layers_of(plan)
    stage = Stage(device, wanted.first, wanted.last)
    if wanted.first not in layers or wanted.last not in layers or wanted.first > wanted.last:
        raise PeerError(f"{where}: it has no layers {wanted.first} to {wanted.last}")
    if (wanted.before == "") != (wanted.first == layers[0]) or (wanted.after == "") != (
        wanted.last == layers[-1]
    ):
        raise PeerError(f"{where}: its ends do not fit layers {wanted.first} to {wanted.last}")
    held = reader.manifest.held_layers
    if not (reader.holds(stage.first) and reader.holds(stage.last)):
        raise PeerError(
            f"{where}: layers {stage.first} to {stage.last} are wanted, and its part has "
            f"{held[0]} to {held[-1]}"
        )
    part = part_of(plan, stage)
    if len(wanted.preloads) != len(part.steps):
        raise PeerError(f"{where}: {len(wanted.preloads)} preloads for {len(part.steps)} steps")
    if not are_known(wanted.threads):
        raise PeerError(f"{where}: it has no use for such threads: {wanted.threads}")
    if wanted.threads.compute > backend.lanes:
        raise PeerError(
            f"{where}: it computes on {wanted.threads.compute} threads, {device} on {backend.lanes}"
        )
    steps = tuple(
        step._replace(preload_bytes=size)
        for step, size in zip(part.steps, wanted.preloads, strict=True)
    )
    part = replace(
        part,
        steps=steps,
        threads=wanted.threads,
        read_ahead=wanted.read_ahead,
        # So that memory is given back where the part before took more.
        target=plan.target._replace(memory_bytes=room_bytes),
    )
    jobs = prepare(part, reader.manifest, reader.group_offset)
    found = ReadyPart(part, jobs, last=wanted.last == layers[-1])
    if room_bytes is not None and found.memory_bytes > room_bytes:
        raise PeerError(
            f"{device}: layers {wanted.first} to {wanted.last} take {found.memory_bytes} bytes "
            f"there, and it has room for {room_bytes}; give it fewer layers, or more --memory"
        )
    return found


def run_part(
    runner: Runner,
    ready: ReadyPart,
    start: StageInput,
    recorder: Recorder | None = None,
    *,
    go_on: Callable[[], None],
) -> tuple[StageOutcome, StageReport]:
    """Run a unit.

    Args:
        recorder: is told of all work; None: nobody is.
        go_on: as of ``Runner.run_stage``.

    Raises:
        As ``Runner.run_stage``.
    """
    begun, waited_s = perf_counter(), 0.0

    def wait() -> HiddenStates:
        nonlocal waited_s
        assert callable(start), "nothing else waits"
        found, waited_s = start(), perf_counter() - begun
        return found

    outcome = runner.run_stage(
        ready.jobs,
        ready.part,
        wait if callable(start) else start,
        last=ready.last,
        recorder=recorder or Recorder(begun),
        go_on=go_on,
    )
    return outcome, StageReport(perf_counter() - begun, waited_s, outcome.bytes_read)
