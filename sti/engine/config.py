"""The ``sti.toml`` of a project or of a user, in which targets have names.

    [targets.voice]
    latency = "150ms"
    preload = "2MB"

In: a path, or the default locations. Out: its tables, their keys checked. ``sti.engine.targets``
interprets the values.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sti.device.user_places import NOWHERE, user_directory
from sti.errors import ConfigError
from sti.json_fields import MOST_INTEGER
from sti.storage.own_files import others_may_write
from sti.storage.plain_files import open_plain, read_all, read_plain

FILE_NAME = "sti.toml"
MOST_BYTES = 1 << 16
"""Of a configuration: some hundred targets."""
MOST_LINE_BYTES, MOST_DOTS = 1 << 13, 64
"""Of a line: a path. Keys with dots in them take the parser the square of their parts."""
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


def load_config(given: str | Path | None = None) -> Config:
    """Read a configuration file and check its form: the one given, else ``./sti.toml``, else the
    user's, which lies in ``$XDG_CONFIG_HOME/sti`` or ``~/.config/sti``.

    Raises:
        ConfigError: none was given and none was found, and names the places; or the one found
            belongs to someone else or may be written by others, who may have left it where the user
            was going to be; or it is unreadable, not TOML, has unknown tables or keys, a value that
            none can have, or no file name for a plan; names the file, the table, the key and what
            is allowed.
    """
    import tomllib  # needed only where a target is named

    path, raw = _found() if given is None else (Path(given), _read(Path(given)))
    try:
        _check_lines(raw)
        parsed = tomllib.loads(raw.decode("utf-8"))
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


def _found() -> tuple[Path, bytes]:
    """The configuration in one of the usual places, and what it holds."""
    places = [Path(FILE_NAME)]
    base = user_directory("XDG_CONFIG_HOME", ".config")
    if base != NOWHERE:
        places.append(base / "sti" / FILE_NAME)
    for place in places:
        raw = _read_found(place)
        if raw is not None:
            return place, raw
    raise ConfigError(
        "a target was named but there is no configuration; looked for "
        + " and ".join(str(place) for place in places)
        + "; write one, or say where it is (`config`, --config)"
    )


def _read(path: Path) -> bytes:
    try:
        return read_plain(path, MOST_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from error


def _read_found(place: Path) -> bytes | None:
    """What lies at a usual place; None where no file does. It is looked at through what was opened:
    its name may stand for another file by then.
    """
    try:
        descriptor = open_plain(place)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(place, error) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return None
        why = ""
        if found.st_uid not in (os.geteuid(), SYSTEM):
            why = "belongs to someone else"
        elif others_may_write(found):
            why = "others may write to it (`chmod go-w` keeps them from it)"
        if why:
            raise ConfigError(
                f"{place}: {why}; to use it nevertheless, name it (`config`, --config)"
            )
        return read_all(descriptor, MOST_BYTES)
    except OSError as error:
        raise _unreadable(place, error) from error
    finally:
        os.close(descriptor)


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path}: cannot read the configuration: {error.strerror}")


def _check_lines(raw: bytes) -> None:
    """Refuse lines that would take the parser long.

    Raises:
        ValueError: there is one.
    """
    for number, line in enumerate(raw.split(b"\n"), 1):
        if len(line) > MOST_LINE_BYTES or line.count(b".") > MOST_DOTS:
            raise ValueError(
                f"line {number} has more than {MOST_LINE_BYTES} bytes or {MOST_DOTS} dots"
            )


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
    for key, value in table.items():
        if not isinstance(value, str | int | float):
            raise ConfigError(f"{where}: {key} must be a text or a number")
        if isinstance(value, int) and abs(value) > MOST_INTEGER:
            raise ConfigError(f"{where}: {key} must be a number of at most {MOST_INTEGER}")
    if not isinstance(table.get("plan", ""), str):
        raise ConfigError(f"{where}: plan must be the name of a file")
