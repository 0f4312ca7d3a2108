"""The ``sti.toml`` of a project or of a user, in which targets have names.

    [targets.voice]
    latency = "150ms"
    preload = "2MB"

In: a path, or the default locations. Out: its tables, their keys checked. ``sti.engine.targets``
interprets the values.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sti.errors import ConfigError
from sti.storage.plain_files import read_plain

FILE_NAME = "sti.toml"
MOST_BYTES = 1 << 16
"""Of a configuration: some hundred targets."""
SYSTEM = 0
"""The user whose files are the system's."""
KEYS = ("latency", "memory", "preload", "quantile", "floor", "fidelity", "plan")


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration file, read; its tables hold no other keys than ``KEYS``."""

    path: Path
    targets: Mapping[str, Mapping[str, Any]]

    def known(self) -> str:
        """The names of all targets, for messages."""
        return f"targets in this file: {', '.join(sorted(self.targets)) or 'none'}"


def find_config(given: str | Path | None = None) -> Path:
    """The configuration to use: the one given, else ``./sti.toml``, else the user's.

    The user's lies in ``$XDG_CONFIG_HOME/sti`` or ``~/.config/sti``.

    Raises:
        ConfigError: none was given and none was found, and names the places; or the one found
            belongs to someone else, who may have left it where the user was going to be.
    """
    if given is not None:
        return Path(given)
    places = [Path(FILE_NAME)]
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    if os.path.isabs(base):
        places.append(Path(base) / "sti" / FILE_NAME)
    for place in places:
        if place.is_file():
            if place.stat().st_uid not in (os.geteuid(), SYSTEM):
                raise ConfigError(
                    f"{place}: belongs to someone else; to use it nevertheless, name it (`config`, "
                    "--config)"
                )
            return place
    raise ConfigError(
        "a target was named but there is no configuration; looked for "
        + " and ".join(str(place) for place in places)
        + "; write one, or say where it is (`config`, --config)"
    )


def load_config(path: Path) -> Config:
    """Read a configuration file and check its form.

    Raises:
        ConfigError: unreadable, not TOML, unknown tables or keys, or no file name for a plan; names
            the file, the table, the key and what is allowed.
    """
    import tomllib  # needed only where a target is named

    try:
        parsed = tomllib.loads(read_plain(path, MOST_BYTES).decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, of a number far too long
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    unknown = sorted(set(parsed) - {"targets"})
    if unknown:
        raise ConfigError(f"{path}: unknown table or key {unknown[0]!r}; allowed: [targets.NAME]")
    targets = parsed.get("targets", {})
    if not isinstance(targets, dict):
        raise ConfigError(f"{path}: targets must hold tables: [targets.NAME]")
    config = Config(path, targets)
    for name, table in targets.items():
        _check_table(config, name, table)
    return config


def _check_table(config: Config, name: str, table: object) -> None:
    if not isinstance(table, dict):
        raise ConfigError(f"{config.path}: targets.{name} must be a table: [targets.{name}]")
    where = f"{config.path}: [targets.{name}]"
    unknown = sorted(set(table) - set(KEYS))
    if unknown:
        allowed = ", ".join(KEYS)
        raise ConfigError(
            f"{where}: unknown key {unknown[0]!r}; allowed: {allowed} ({config.known()})"
        )
    if not isinstance(table.get("plan", ""), str):
        raise ConfigError(f"{where}: plan must be the name of a file")
