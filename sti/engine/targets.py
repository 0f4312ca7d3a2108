"""Named targets: the ``sti.toml`` of a project or of a user.

    [targets.voice]
    latency = "150ms"
    preload = "2MB"

In: a path, or the places a configuration is looked for. Out: ``TargetSpec``, with units parsed and
keys checked; ``resolve`` lays the caller's own arguments over a named target. Knows nothing of
packs or devices: whether a fidelity exists or a target can be met is found out later.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sti.errors import ConfigError, InputError
from sti.planning.plan import Plan
from sti.units import parse_size, parse_time

FILE_NAME = "sti.toml"
KEYS = ("latency", "preload", "fidelity", "plan")


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """What to plan for. None: not asked for. A ``plan`` stands alone."""

    latency_s: float | None = None
    preload_bytes: int | None = None
    fidelity: int | None = None
    """Bits every shard is pinned to."""
    plan: Plan | Path | None = None
    """A plan to follow, or the file that holds it."""


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration file, read and checked."""

    path: Path
    targets: Mapping[str, TargetSpec]

    def target(self, name: str) -> TargetSpec:
        """The target called ``name``.

        Raises:
            ConfigError: there is none; names those that exist.
        """
        if name not in self.targets:
            known = ", ".join(sorted(self.targets)) or "none"
            raise ConfigError(f"{self.path}: no [targets.{name}]; targets in this file: {known}")
        return self.targets[name]


def resolve(
    *,
    latency: str | float | None = None,
    preload: str | int | None = None,
    fidelity: int | None = None,
    plan: Plan | str | Path | None = None,
    config: str | Path | None = None,
    target: str | None = None,
) -> TargetSpec:
    """The caller's arguments, laid over the named target where one is given.

    A plan brings its own fidelities and target. So an explicit ``plan`` replaces all that the named
    target asks for, and any other explicit argument replaces the plan of the named target.

    Raises:
        InputError: an argument that cannot be used, or ``plan`` together with another one.
        ConfigError: a configuration without a target name, or one that cannot be used.
    """
    others = {"latency": latency, "preload": preload, "fidelity": fidelity}
    given = [name for name, value in others.items() if value is not None]
    if plan is not None:
        pinned = _pinned(plan, given)
        _named(config, target)  # a target that does not exist is a mistake all the same
        return pinned
    settings = _named(config, target)
    if given:
        settings = replace(settings, plan=None)
    if latency is not None:
        settings = replace(settings, latency_s=parse_time(latency, name="latency"))
    if preload is not None:
        settings = replace(settings, preload_bytes=parse_size(preload, name="preload"))
    if fidelity is not None:
        if isinstance(fidelity, bool) or not isinstance(fidelity, int) or fidelity < 1:
            raise InputError(f"fidelity must be a number of bits such as 4; found {fidelity!r:.60}")
        settings = replace(settings, fidelity=fidelity)
    return settings


def _pinned(plan: Plan | str | Path, given: Sequence[str]) -> TargetSpec:
    """An explicit plan, where nothing else is given that it brings itself."""
    if given:
        raise InputError(
            f"{given[0]} and plan exclude each other: a plan brings its own target and "
            "fidelities; give one of them"
        )
    if not isinstance(plan, Plan | str | Path):
        raise InputError(f"plan must be a plan or the name of its file; found {plan!r:.60}")
    return TargetSpec(plan=plan if isinstance(plan, Plan) else Path(plan))


def _named(config: str | Path | None, target: str | None) -> TargetSpec:
    if target is not None:
        return load_config(find_config(config)).target(target)
    if config is None:
        return TargetSpec()
    known = ", ".join(sorted(load_config(Path(config)).targets)) or "none"
    raise ConfigError(f"{config}: say which target to use; targets in this file: {known}")


def find_config(given: str | Path | None = None) -> Path:
    """The configuration to use: the one given, else ``./sti.toml``, else the user's.

    The user's lies in ``$XDG_CONFIG_HOME/sti`` or ``~/.config/sti``.

    Raises:
        ConfigError: none was given and none was found; names the places.
    """
    if given is not None:
        return Path(given)
    places = [Path(FILE_NAME)]
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    if os.path.isabs(base):
        places.append(Path(base) / "sti" / FILE_NAME)
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(
        "a target was named but there is no configuration; looked for "
        + " and ".join(str(place) for place in places)
        + "; write one, or name it with --config"
    )


def load_config(path: Path) -> Config:
    """Read and check a configuration file.

    Relative plan files in it are relative to the file.

    Raises:
        ConfigError: unreadable, not TOML, unknown tables or keys, or values that cannot be used;
            names the file, the table, the key and what is allowed.
    """
    import tomllib  # only who names a target pays for the parser

    try:
        with path.open("rb") as file:
            parsed = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    unknown = sorted(set(parsed) - {"targets"})
    if unknown:
        raise ConfigError(f"{path}: unknown table or key {unknown[0]!r}; allowed: [targets.NAME]")
    targets = parsed.get("targets", {})
    if not isinstance(targets, dict):
        raise ConfigError(f"{path}: targets must hold tables: [targets.NAME]")
    return Config(
        path, {name: _settings(path, name, table, targets) for name, table in targets.items()}
    )


def _settings(path: Path, name: str, table: object, targets: Mapping[str, Any]) -> TargetSpec:
    where = f"{path}: [targets.{name}]"
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: targets.{name} must be a table: [targets.{name}]")
    unknown = sorted(set(table) - set(KEYS))
    if unknown:
        known = ", ".join(sorted(targets))
        raise ConfigError(
            f"{where}: unknown key {unknown[0]!r}; allowed: {', '.join(KEYS)} "
            f"(targets in this file: {known})"
        )
    # In Python a bare number is seconds; in a file it would be taken for milliseconds too easily.
    if "latency" in table and not isinstance(table["latency"], str):
        raise ConfigError(f'{where}: latency must be text with a unit, such as "200ms"')
    plan = table.get("plan")
    if plan is not None and not isinstance(plan, str):
        raise ConfigError(f"{where}: plan must be the name of a file")
    try:
        return resolve(
            latency=table.get("latency"),
            preload=table.get("preload"),
            fidelity=table.get("fidelity"),
            plan=None if plan is None else path.parent / plan,
        )
    except InputError as error:
        raise ConfigError(f"{where}: {error}") from error
