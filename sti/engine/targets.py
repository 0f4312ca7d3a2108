"""Targets: a latency, memory, a preload buffer, a quality floor, a fidelity or a plan.

In: what people write, in Python or in a configuration (``sti.engine.config``). Out: ``TargetSpec``,
with units parsed and values checked; ``resolve`` applies the caller's arguments on top of a target.
Knows nothing of packs or devices: whether a fidelity exists or a target can be met is checked
later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sti.errors import ConfigError, InputError
from sti.planning.plan import DEFAULT_FLOOR, DEFAULT_QUANTILE, Plan, Target
from sti.units import exact_share, exact_size, exact_time, parse_share, parse_size, parse_time

if TYPE_CHECKING:
    from datetime import timedelta

    from sti.engine.config import Config


LEAST_QUANTILE, MOST_QUANTILE = 0.5, 0.999


@dataclass(frozen=True, slots=True, init=False, repr=False)
class TargetSpec:
    """What to aim at. Immutable, hashable, comparable; checked when it is made.

    Args:
        latency: what a run may take, text in to answer out: ``"30ms"``, ``"1.5s"`` or a
            ``datetime.timedelta``. None: the best quality the pack has.
        memory: the most that an engine may add to the memory of its process, everything counted:
            ``"64MB"``. What runs leave of it holds weights. None: what runs take and ``preload``.
            With glibc, memory of 512 KiB and more is then mapped by itself in the whole process,
            from now on, as heaps would keep it when it is freed.
        preload: compressed bytes held between runs: ``"2MB"``, ``"512KB"``. None: none, or with
            ``memory`` as much as there is room for.
        quantile: share of the runs that shall keep the latency: ``"99%"``. None: 98 %.
        floor: the least metric to expect, as a share of the full model's: ``"90%"``; a latency that
            takes less is refused. None: one that takes less than 95 % is kept, with a warning.
        fidelity: bits of every shard, instead of planning.
        plan: a plan to follow, or the file that holds one, instead of planning. It brings its own
            target and fidelities, so it stands alone.

    Raises:
        InputError: a value that cannot be used, or ``plan`` together with another one.

    Attributes:
        latency_s: seconds, or None.
        memory_bytes, preload_bytes: bytes, or None.
        quantile_share, floor_share: shares of one, or None.
        fidelity: bits, or None.
        plan: a plan or the path of its file, or None.
    """

    latency_s: float | None
    memory_bytes: int | None
    preload_bytes: int | None
    quantile_share: float | None
    floor_share: float | None
    fidelity: int | None
    plan: Plan | Path | None = field(hash=False)

    def __init__(
        self,
        *,
        latency: str | timedelta | None = None,
        memory: str | None = None,
        preload: str | None = None,
        quantile: str | None = None,
        floor: str | None = None,
        fidelity: int | None = None,
        plan: Plan | str | Path | None = None,
    ) -> None:
        others = {
            "latency": latency,
            "memory": memory,
            "preload": preload,
            "quantile": quantile,
            "floor": floor,
            "fidelity": fidelity,
        }
        given = [name for name, value in others.items() if value is not None]
        if plan is not None and given:
            raise InputError(
                f"{given[0]} and plan exclude each other: a plan brings its own target and "
                "fidelities; give one of them"
            )
        _check_fidelity(fidelity)
        values = {
            "latency_s": None if latency is None else seconds_of(latency, name="latency"),
            "memory_bytes": None if memory is None else parse_size(memory, name="memory"),
            "preload_bytes": None if preload is None else parse_size(preload, name="preload"),
            "quantile_share": None if quantile is None else _quantile(quantile),
            "floor_share": None if floor is None else parse_share(floor, name="floor"),
            "fidelity": fidelity,
            "plan": None if plan is None else _plan(plan),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def named(cls, name: str, *, config: str | Path | None = None) -> TargetSpec:
        """The target called ``name`` in a configuration.

        Args:
            config: the ``sti.toml``; None: the one in the working directory, else the user's.

        Raises:
            ConfigError: there is no configuration, it cannot be used, or it lacks the target.
        """
        from sti.engine.config import load_config  # most targets have no name

        found = load_config(config)
        targets = {key: _from_table(found, key, table) for key, table in found.targets.items()}
        if name not in targets:
            raise ConfigError(f"{found.path}: no [targets.{name}]; {found.known()}")
        return targets[name]

    @property
    def latency(self) -> str | None:
        """The latency as text that reads back the same, e.g. ``"30ms"``."""
        return None if self.latency_s is None else exact_time(self.latency_s)

    @property
    def memory(self) -> str | None:
        """The memory as text that reads back the same, e.g. ``"64MB"``."""
        return None if self.memory_bytes is None else exact_size(self.memory_bytes)

    @property
    def preload(self) -> str | None:
        """The preload as text that reads back the same, e.g. ``"2MB"``."""
        return None if self.preload_bytes is None else exact_size(self.preload_bytes)

    @property
    def quantile(self) -> str | None:
        """The quantile as text that reads back the same, e.g. ``"99%"``."""
        return None if self.quantile_share is None else exact_share(self.quantile_share)

    @property
    def floor(self) -> str | None:
        """The quality floor as text that reads back the same, e.g. ``"90%"``."""
        return None if self.floor_share is None else exact_share(self.floor_share)

    def limits(self) -> Target:
        """What the planner has to keep; not for a target that brings its own plan."""
        return Target(
            self.latency_s,
            self.preload_bytes or 0,
            self.quantile_share or DEFAULT_QUANTILE,
            self.floor_share or DEFAULT_FLOOR,
            floor_is_limit=self.floor_share is not None,
            memory_bytes=self.memory_bytes,
        )

    def overridden(self, given: TargetSpec) -> TargetSpec:
        """The target with the values of another one, where that has any.

        A plan given replaces all of this target; any other value replaces the plan of this one.
        """
        if given == TargetSpec():
            return self
        if given.plan is not None:
            return given
        return TargetSpec(
            latency=given.latency or self.latency,
            memory=given.memory or self.memory,
            preload=given.preload or self.preload,
            quantile=given.quantile or self.quantile,
            floor=given.floor or self.floor,
            fidelity=given.fidelity or self.fidelity,
        )

    def __repr__(self) -> str:
        parts = {
            "latency": self.latency,
            "memory": self.memory,
            "preload": self.preload,
            "quantile": self.quantile,
            "floor": self.floor,
            "fidelity": self.fidelity,
        }
        shown = [f"{name}={value!r}" for name, value in parts.items() if value is not None]
        if isinstance(self.plan, Plan):
            shown.append(f"plan=<{self.plan.depth} x {self.plan.width} of pack {self.plan.pack}>")
        elif self.plan is not None:
            shown.append(f"plan={str(self.plan)!r}")
        return f"TargetSpec({', '.join(shown)})"


def seconds_of(time: object, *, name: str) -> float:
    """Seconds of a time with a unit or a timedelta.

    Raises:
        InputError: it is neither, or not above zero.
    """
    if isinstance(time, str):
        return parse_time(time, name=name)
    from datetime import timedelta  # most starts are given text, or nothing

    hint = f'{name} must be a time with a unit, such as "200ms", or a timedelta'
    if isinstance(time, timedelta):
        if time <= timedelta(0):
            raise InputError(f"{hint}, above zero; found {time!r:.60}")
        return time.total_seconds()
    if isinstance(time, int | float) and time is not True and 1e-6 <= time < 1e6:
        remedy = f'write "{exact_time(time)}" or timedelta(seconds={time!r})'
        raise InputError(f"{hint}; found {time!r}: {remedy}")
    raise InputError(f"{hint}; found {time!r:.60}")


def _quantile(value: str) -> float:
    share = parse_share(value, name="quantile")
    if not LEAST_QUANTILE <= share <= MOST_QUANTILE:
        raise InputError(
            f"quantile must lie from {exact_share(LEAST_QUANTILE)} to "
            f"{exact_share(MOST_QUANTILE)}; found {value!r:.60}"
        )
    return share


def _check_fidelity(fidelity: int | None) -> None:
    if fidelity is not None and (type(fidelity) is not int or fidelity < 1):
        raise InputError(f"fidelity must be a number of bits such as 4; found {fidelity!r:.60}")


def _plan(plan: Plan | str | Path) -> Plan | Path:
    if not isinstance(plan, Plan | str | Path):
        raise InputError(f"plan must be a plan or the name of its file; found {plan!r:.60}")
    return plan if isinstance(plan, Plan) else Path(plan)


def _from_table(config: Config, name: str, table: Mapping[str, Any]) -> TargetSpec:
    plan, latency = table.get("plan"), table.get("latency")
    if latency is not None and not isinstance(latency, str):
        latency = str(latency)  # a number in a file: told as text that lacks its unit
    try:
        return TargetSpec(
            latency=latency,
            memory=table.get("memory"),
            preload=table.get("preload"),
            quantile=table.get("quantile"),
            floor=table.get("floor"),
            fidelity=table.get("fidelity"),
            plan=None if plan is None else config.path.parent / plan,
        )
    except InputError as error:
        raise ConfigError(f"{config.path}: [targets.{name}]: {error}") from error


def resolve(
    target: TargetSpec | str | None = None,
    given: TargetSpec | None = None,
    *,
    config: str | Path | None = None,
) -> TargetSpec:
    """The values given, on top of a target if there is one (``TargetSpec.overridden``).

    Args:
        target: a target, or the name of one in ``config``.

    Raises:
        InputError: ``target`` is neither.
        ConfigError: a configuration without a name to look up in it, or one that cannot be used.
    """
    if isinstance(target, str):
        base = TargetSpec.named(target, config=config)
    elif config is not None:
        from sti.engine.config import load_config

        known = load_config(config).known()
        raise ConfigError(f"{config}: say which target to use, by its name; {known}")
    elif target is not None and not isinstance(target, TargetSpec):
        raise InputError(f"target must be a TargetSpec or a name; found {target!r:.60}")
    else:
        base = target or TargetSpec()
    return base if given is None else base.overridden(given)
