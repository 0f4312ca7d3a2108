"""Row ``equal``: answers of chains of devices against those of one, bit by bit.

In: a trained pack. Out: for each number of devices, with and without layers on the controller, how
many texts got the same bits: alone, together, and divided into parts that follow one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.common import Column, Table
from benchmarks.devices.home import Home, Joined
from benchmarks.devices.kinds import Kind
from benchmarks.devices.setting import Setting
from benchmarks.rows import Summary
from sti.planning.plan import LOCAL

DEVICES = (2, 3, 4)
_TEXTS, _QUICK_TEXTS = 60, 6
_JOINED = Joined(1000.0)
_ALONE = "each alone"


class Equal(NamedTuple):
    """Texts that were answered by one chain in one way."""

    devices: int
    stages: str
    how: str
    texts: int
    same: int
    """Of them, those with the same bits as on one device."""


def measure(setting: Setting) -> Iterator[Equal]:
    """Every chain."""
    pack = setting.trained
    count = setting.scaled(_TEXTS, _QUICK_TEXTS)
    lengths = [3 + round(place * (pack.most_tokens - 3) / (count - 1)) for place in range(count)]
    texts = [pack.texts(place + 1, tokens)[-1] for place, tokens in enumerate(lengths)]
    for devices in DEVICES[: setting.scaled(len(DEVICES), 1)]:
        with Home(pack, [Kind()] * devices, _JOINED) as home:
            home.open(LOCAL, LOCAL)
            alone = [home.digests(LOCAL, [text])[0] for text in texts]
            together = home.digests(LOCAL, texts)
            for names in ([LOCAL, *home.names], home.names):
                stages = cut(names, pack.layers)
                words = ", ".join(f"{name} {first}-{last}" for name, first, last in stages)
                found = [home.stages([text], stages)[0] for text in texts]
                yield Equal(devices, words, _ALONE, count, same(found, alone))
                for units in (1, 4, count):
                    found = home.stages(texts, stages, units=units)
                    how = f"together, in {units} parts"
                    yield Equal(devices, words, how, count, same(found, together))


def summarize(found: Sequence[Equal]) -> Summary:
    """The table, and whether all were equal."""
    table = Table(
        "Chains against one device, float32, ZeroMQ with CURVE",
        (
            *(Column("devices"), Column("layers"), Column("texts are run"), Column("texts")),
            Column("equal to the bit"),
        ),
        [tuple(item) for item in found],
    )
    worst = min((item.same / item.texts for item in found), default=0.0)
    verdict = "met" if worst == 1.0 else "SHORT"
    limit = ("texts equal to the bit, least share", worst, "all", verdict)
    return Summary([limit], [table])


def cut(names: Sequence[str], layers: int) -> list[tuple[str, int, int]]:
    """Layers in stretches of about the same length."""
    ends = [layers * (place + 1) // len(names) for place in range(len(names))]
    return [
        (name, first, end - 1) for name, first, end in zip(names, [0, *ends], ends, strict=False)
    ]


def same(found: Sequence[str], wanted: Sequence[str]) -> int:
    """How many are equal."""
    return sum(one == other for one, other in zip(found, wanted, strict=True))
