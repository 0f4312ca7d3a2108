"""The plan that ``sti plan`` shows, and those for other targets, each made in the same way.

In: parsed arguments. Out: plans with the conditions they come from: for this machine by the engine
that would run them; with ``--device`` from the pack's manifest alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from sti.cli.arguments import workload_tokens
from sti.cli.opening import devices_of, open_engine, target_of
from sti.device.profile import DeviceProfile
from sti.engine.pinned_plan import check_in_time, read_plan
from sti.engine.targets import TargetSpec
from sti.errors import InfeasibleError, InputError
from sti.model.manifest import Manifest
from sti.model.workload import Workload, bucket
from sti.pack.pack_reader import PackReader
from sti.planning.conditions import Conditions, as_measured
from sti.planning.memory import MemoryPart
from sti.planning.plan import Plan, PlanRequest
from sti.planning.planner import make_plan
from sti.planning.prediction import predict
from sti.planning.uniform import uniform_plan

if TYPE_CHECKING:
    from sti.engine.engine import Engine
    from sti.planning.strategies import Strategy


@dataclass(frozen=True, slots=True)
class Made:
    """A plan with its prediction, and what it was made from."""

    plan: Plan
    manifest: Manifest
    profile: DeviceProfile
    """The machine as it was measured."""
    target: TargetSpec
    shown: Conditions
    """What it was predicted with."""
    decided: Conditions
    """What it was found with."""
    memory: tuple[MemoryPart, ...] | None
    """What an engine takes that runs it, by part; None on another machine."""

    @property
    def free(self) -> bool:
        """The planner chose; neither the plan nor its fidelities were given."""
        return self.target.plan is None and self.target.fidelity is None


class Planning(Protocol):
    """Makes plans for the workload of a command."""

    def made(self, target: TargetSpec | None = None) -> Made:
        """The plan for a target; None: for that of the command.

        Raises:
            InfeasibleError: the target cannot be met for the workload asked for.
        """

    def strategies(self) -> tuple[list[Strategy], Strategy] | None:
        """Who could compute the plan of the command, and who does; None without other devices."""


@contextmanager
def open_planning(args: argparse.Namespace) -> Iterator[Planning]:
    """What makes the plans that ``args`` of ``sti plan`` ask for.

    Raises:
        InfeasibleError: the target cannot be met for the workload asked for.
    """
    if args.device is not None:
        yield _Elsewhere(args)
        return
    try:
        engine = open_engine(args, tokens=_one_length(args))
    except InfeasibleError:
        # An engine does not open where not even the shortest text is in time, and speaks of that.
        with open_engine(args, TargetSpec()) as other:
            tokens = workload_tokens(args.tokens, other.manifest)
            asked = Workload(args.batch, tokens)
            _searched(asked, target_of(args), other.manifest, other.pack_id, other.profile)
        raise
    with engine:
        yield _Here(args, engine)


class _Here:
    """For this machine, by the engine that would run them."""

    def __init__(self, args: argparse.Namespace, engine: Engine) -> None:
        self._engine, self._has_devices = engine, devices_of(args) is not None
        self._asked = Workload(args.batch, workload_tokens(args.tokens, engine.manifest))

    def made(self, target: TargetSpec | None = None) -> Made:
        """As ``Planning.made``."""
        engine, asked, wanted = self._engine, self._asked, target or self._engine.target
        try:
            found = engine.planned(tokens=asked.tokens, batch=asked.batch, target=target)
        except InfeasibleError:  # it may speak of other texts
            _searched(asked, wanted, engine.manifest, engine.pack_id, engine.profile)
            raise
        plan, shown, decided, memory = found
        return Made(plan, engine.manifest, engine.profile, wanted, shown, decided, memory)

    def strategies(self) -> tuple[list[Strategy], Strategy] | None:
        """As ``Planning.strategies``."""
        if not self._has_devices:
            return None
        return self._engine.strategies(tokens=self._asked.tokens, batch=self._asked.batch)


class _Elsewhere:
    """For another machine: no engine is opened."""

    def __init__(self, args: argparse.Namespace) -> None:
        from sti.device.device_files import load_device

        if devices_of(args) is not None:
            raise InputError("--devices work with this machine; leave --device or --devices out")
        if args.threads is not None:
            raise InputError("--threads is for this machine; a --device file states its own")
        self._target = target_of(args)
        if self._target.memory_bytes is not None:
            raise InputError(
                "--memory is for this machine, where what opening takes is measured; with --device "
                "give a --preload"
            )
        with PackReader.open_whole(args.pack) as reader:
            self._manifest, self._pack_id = reader.manifest, reader.pack_id
        self._asked = Workload(args.batch, workload_tokens(args.tokens, self._manifest))
        self._profile = load_device(args.device, self._manifest)

    def made(self, target: TargetSpec | None = None) -> Made:
        """As ``Planning.made``."""
        wanted = target or self._target
        return _searched(self._asked, wanted, self._manifest, self._pack_id, self._profile)

    def strategies(self) -> None:
        """There are no other devices: they work with this machine."""


def _one_length(args: argparse.Namespace) -> int | None:
    """The length of text that the one plan of comparable embeddings is made for; None for packs
    that have a plan for each length.
    """
    if args.tokens is None:
        return None
    # An engine that is opened for one length has to have such a plan, which its pack tells.
    with PackReader.open_whole(args.pack) as reader:
        return args.tokens if reader.manifest.task == "embedding" else None


def _searched(
    asked: Workload,
    target: TargetSpec,
    manifest: Manifest,
    pack_id: str,
    profile: DeviceProfile,
) -> Made:
    """Planned from the manifest and a device profile alone."""
    if target.plan is not None:
        plan = read_plan(target.plan, manifest, pack_id)
        plan = replace(plan, predicted=predict(manifest, profile, plan))
    else:
        workload = bucket(*asked, most=manifest.dimensions.max_tokens)
        request = PlanRequest(manifest, pack_id, workload, target.limits(), asked)
        if target.fidelity is None:
            plan = make_plan(request, profile)
        else:
            plan = uniform_plan(request, bits=target.fidelity, profile=profile)
            check_in_time(plan, profile, target.fidelity)
    conditions = as_measured(profile, plan.workload, plan.target)
    return Made(plan, manifest, profile, target, conditions, conditions, None)
