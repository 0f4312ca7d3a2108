"""The ``devices.toml`` of a home or a lab: which devices there are, and where.

    [devices.board]
    address = "192.168.1.7:7311"

    [links]
    numbers = "float32"

In: a path. Out: names and addresses, checked; how hidden states travel. Knows nothing of keys, or
of which devices are there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sti.errors import ConfigError
from sti.exchange.names import is_device_name
from sti.planning.chain_search import MOST_DEVICES
from sti.planning.links import FLOAT32, LINK_TYPES
from sti.planning.plan import LOCAL
from sti.storage.plain_files import read_plain

_MOST_BYTES = 1 << 16
_ADDRESS = re.compile(
    r"(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.%]{2,60}\]):(?P<port>[0-9]{1,5})"
)
_MOST_PORT = 65535


class DevicesConfig(NamedTuple):
    """Devices and links, as a file names them."""

    addresses: Mapping[str, str]
    """Name to ``HOST:PORT``."""
    link_type: str = FLOAT32
    """How hidden states travel."""


def load_devices(path: str | Path) -> DevicesConfig:
    """Read a file of devices.

    Raises:
        ConfigError: it is unreadable, not TOML, has unknown tables or keys, names no device or too
            many, one of them twice (by name or by address), or an address that is none; names the
            file, the device and what is allowed.
    """
    import tomllib  # only where there are other devices

    try:
        raw = read_plain(Path(path), _MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        parsed = tomllib.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    _only(parsed, ("devices", "links"), where=f"{path}")
    devices = _table(parsed, "devices", where=f"{path}")
    links = _table(parsed, "links", where=f"{path}")
    _only(links, ("numbers",), where=f"{path}: [links]")
    link_type = links.get("numbers", FLOAT32)
    if link_type not in LINK_TYPES:
        raise ConfigError(
            f"{path}: [links]: numbers must be one of {', '.join(LINK_TYPES)}; "
            f"found {link_type!r:.40}"
        )
    addresses = {name: _address(name, table, where=f"{path}") for name, table in devices.items()}
    check_addresses(addresses, where=str(path))
    return DevicesConfig(addresses, link_type)


def check_addresses(addresses: Mapping[str, str], *, where: str) -> None:
    """Refuse devices that cannot be told apart, and numbers of them that no plan takes.

    Raises:
        ConfigError: names the devices.
    """
    if not addresses:
        raise ConfigError(
            f'{where}: names no device; write [devices.NAME] and address = "HOST:PORT"'
        )
    if len(addresses) >= MOST_DEVICES:
        raise ConfigError(
            f"{where}: {len(addresses)} devices; a chain has at most {MOST_DEVICES - 1} beside "
            "this machine"
        )
    homes: dict[str, str] = {}
    for name, address in addresses.items():
        other = homes.setdefault(address.lower(), name)
        if other != name:
            raise ConfigError(
                f"{where}: {other} and {name} have the same address, {address}; a device is "
                "listed once"
            )


def check_address(text: object, *, where: str) -> str:
    """An address, ``HOST:PORT``.

    Raises:
        ConfigError: it is none.
    """
    found = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    if found is None or not 0 < int(found["port"]) <= _MOST_PORT:
        raise ConfigError(
            f'{where}: address must be "HOST:PORT", such as "192.168.1.7:7311"; found {text!r:.60}'
        )
    return found.string


def _address(name: str, table: Any, *, where: str) -> str:
    where = f"{where}: [devices.{name:.60}]"
    if not is_device_name(name) or name == LOCAL:
        raise ConfigError(
            f"{where}: a device's name has up to 63 letters, digits, '-', '_' and '.', and is not "
            f"{LOCAL!r}, which is this machine"
        )
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: must be a table with an address")
    _only(table, ("address",), where=where)
    return check_address(table.get("address"), where=where)


def _table(parsed: Mapping[str, Any], name: str, *, where: str) -> dict[str, Any]:
    found = parsed.get(name, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{where}: {name} must be a table")
    return found


def _only(table: Mapping[str, Any], known: tuple[str, ...], *, where: str) -> None:
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r:.60}; allowed: {', '.join(known)}")
