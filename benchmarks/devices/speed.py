"""Rows ``latency`` and ``throughput``: several devices against one, in turns.

In: a pack of BERT-base's shape. Out: seconds of one text over two devices whose storage is slow, by
the plan that is chosen, whatever it is; texts a second of batches over chains of two and four
devices that are slow at computing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from benchmarks import common
from benchmarks.common import Column, Table
from benchmarks.devices.home import Home, Joined
from benchmarks.devices.kinds import Kind
from benchmarks.devices.setting import Setting, in_turns
from benchmarks.rows import Summary
from sti.engine.device_options import AUTO
from sti.planning.plan import LOCAL
from sti.planning.strategies import CHAIN

LATENCY = 1.5
"""How many times as fast two devices are to answer one text."""
THROUGHPUT = {2: 1.8, 4: 3.4}
"""How many times as many texts a second so many devices answer."""
_TOKENS = 128
_SLOW_STORAGE, _WIFI = Kind(4.0, "microsd"), Joined(300.0, shared=True)
_SLOW_PROCESSOR, _CABLE = Kind(8.0), Joined(1000.0)
_BATCHES = {2: 128, 4: 256}
"""Texts of a batch."""
_WARM_UPS = 2


class Timed(NamedTuple):
    """One device against several."""

    what: str
    devices: int
    texts: int
    stages: str
    local_s: float
    chosen_s: float
    times: float
    """Median over the turns of the one over the other."""
    local_predicted_s: float
    chosen_predicted_s: float
    equal: bool
    turns: int


def latency(setting: Setting) -> Iterator[Timed]:
    """One text, two devices with slow storage, one medium."""
    repeats = setting.repeats
    yield _timed(setting, "one text", AUTO, 2, 1, _SLOW_STORAGE, _WIFI, _WARM_UPS, repeats)


def throughput(setting: Setting) -> Iterator[Timed]:
    """Batches, two and four devices that compute slowly."""
    for devices, texts in _BATCHES.items():
        count, repeats = setting.scaled(texts, 8), max(2, setting.repeats // 3)
        yield _timed(setting, "batch", CHAIN, devices, count, _SLOW_PROCESSOR, _CABLE, 0, repeats)


def _timed(
    setting: Setting,
    what: str,
    strategy: str,
    devices: int,
    count: int,
    kind: Kind,
    joined: Joined,
    warm_ups: int,
    repeats: int,
) -> Timed:
    pack = setting.speed
    texts = pack.texts(count, setting.scaled(_TOKENS, 16))
    with Home(pack, [kind] * devices, joined) as home:
        for name in (LOCAL, strategy):
            home.open(name, name)
        ways = {name: partial(home.run, name, texts) for name in (LOCAL, strategy)}
        turns = in_turns(ways, warm_ups=warm_ups, repeats=repeats)
    return Timed(
        f"{what}, {kind.words}, {joined.words}",
        devices,
        count,
        turns.runs[strategy][-1].stages or LOCAL,
        turns.seconds(LOCAL),
        turns.seconds(strategy),
        turns.ratio(LOCAL, strategy),
        turns.predicted_s(LOCAL),
        turns.predicted_s(strategy),
        turns.equal,
        repeats,
    )


def summarize_latency(found: Sequence[Timed]) -> Summary:
    """The table and its limit."""
    limits = [common.at_least("times as fast as one device", item.times, LATENCY) for item in found]
    return Summary(limits, [_table("Latency", found)])


def summarize_throughput(found: Sequence[Timed]) -> Summary:
    """The table and its limits."""
    limits = [
        common.at_least(
            f"times the texts a second of one device, {item.devices} devices",
            item.times,
            THROUGHPUT[item.devices],
        )
        for item in found
    ]
    return Summary(limits, [_table("Throughput", found)])


def _table(title: str, found: Sequence[Timed]) -> Table:
    columns = (
        *(Column("what"), Column("devices"), Column("texts"), Column("layers")),
        *(Column("one device, ms", ".1f"), Column("predicted", ".1f")),
        *(Column("chosen, ms", ".1f"), Column("predicted ", ".1f"), Column("times", ".2f")),
        *(Column("texts/s", ".2f"), Column("equal"), Column("turns")),
    )
    rows = [
        (
            *item[:4],
            *(item.local_s * 1e3, item.local_predicted_s * 1e3),
            *(item.chosen_s * 1e3, item.chosen_predicted_s * 1e3, item.times),
            *(item.texts / item.chosen_s, "yes" if item.equal else "NO", item.turns),
        )
        for item in found
    ]
    return Table(title, columns, rows)
