"""Row ``bytes``: what each device reads and holds of weights, against what was planned.

In: a pack. Out: bytes of weights that each device of a chain reads for a text, and bytes of the
memory that it reads them into, counted where they are read, besides what the plan says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.common import Column, Table, at_most
from benchmarks.devices.home import Home, Joined
from benchmarks.devices.kinds import Kind
from benchmarks.devices.setting import Setting
from benchmarks.rows import Summary
from sti.planning.strategies import CHAIN

SHARE = 1.05
_KIND, _JOINED = Kind(4.0, "microsd"), Joined(300.0)
_TOKENS, _TRIES = 64, 8


class Share(NamedTuple):
    """A device's share of a chain."""

    devices: int
    device: str
    planned_read: int
    read: int
    planned_held: int
    held: int


def measure(setting: Setting) -> Iterator[Share]:
    """Chains over two to four devices."""
    pack = setting.speed
    tokens = setting.scaled(_TOKENS, 8)
    texts = pack.texts(1, tokens)
    for devices in (2, 3, 4)[: setting.scaled(3, 1)]:
        with Home(pack, [_KIND] * devices, _JOINED) as home:
            home.open(CHAIN, CHAIN)
            yield from _shares(home, texts, tokens, devices)


def _shares(home: Home, texts: Sequence[str], tokens: int, devices: int) -> Iterator[Share]:
    """Of a run that went as it was planned just before: runs move what is best."""
    for _ in range(_TRIES):
        planned = next(item for item in home.price(CHAIN, texts=1, tokens=tokens) if item.taken)
        home.counted()
        run = home.run(CHAIN, texts)
        counted = home.counted()
        if planned.words == f"{CHAIN}: {run.stages}":
            break
    else:
        raise RuntimeError("no run went as it was planned")
    for name, found in counted.items():
        read, held = planned.read_bytes.get(name, 0), planned.memory_bytes.get(name, 0)
        yield Share(devices, name, read, found.read_bytes, held, found.held_bytes)


def summarize(found: Sequence[Share]) -> Summary:
    """The table, and the device that is most beyond its share."""
    columns = (
        *(Column("devices"), Column("device"), Column("MB read, planned", ".3f")),
        *(Column("MB read", ".3f"), Column("MB held, planned", ".3f"), Column("MB held", ".3f")),
    )
    rows = [(item.devices, item.device, *(size / 1e6 for size in item[2:])) for item in found]
    limits = [
        at_most(
            f"bytes {what} over planned, worst device",
            max((over(*pair) for pair in pairs), default=0.0),
            SHARE,
        )
        for what, pairs in (
            ("read", [(item.read, item.planned_read) for item in found]),
            ("held", [(item.held, item.planned_held) for item in found]),
        )
    ]
    return Summary(limits, [Table("Shares of weights", columns, rows)])


def over(found: int, planned: int) -> float:
    """What was found over what was planned; nothing is no more than nothing."""
    if planned == 0:
        return 1.0 if found == 0 else float("inf")
    return found / planned
