"""A cold start: fresh process, files not in the page cache; open the model and answer one text.

    python -m tests.benchmarks.cold --pack PACK --models DIR

PACK is a pack of a model of BERT-base's shape (`base_model`, then `sti-shard build`), DIR what
`ort_models` made of the same checkpoint. Every start is a process of its own, and the systems take
turns, so that a busy spell meets all of them. Not on the clock, for any of them: Python, imports
(numpy, onnxruntime, sti) and, for ONNX Runtime, tokenizing. On it: opening the pack or creating
the session from its file, and the first run, on the same 128 tokens.

"Cold" is what this machine's page cache holds: before every start the file is dropped from it, and
checked to be gone. What the storage itself (or a hypervisor) keeps is out of reach; the rates at
which it delivered are printed.

Growth of resident memory: peak (or the steady state afterwards) less what was resident when the
clock started.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from sti import machine
from sti.errors import StiError
from sti.pack import PackReader
from sti.storage import FileReader
from tests.benchmarks import common
from tests.benchmarks.common import Cell, Column, Report, Table, median, p95

FASTER_THAN_INT8, FASTER_THAN_FP32, MEMORY_OF_INT8 = 3.0, 8.0, 0.25
_STI, _INT8, _FP32 = "STI", "ORT int8", "ORT fp32"
_MODELS = {
    _INT8: "int8.onnx",
    "ORT int8, optimized beforehand": "int8_optimized.onnx",
    _FP32: "fp32.onnx",
}
_PRELOAD_WAIT_S = 10.0
_TIMES = (
    Column("system"),
    Column("threads"),
    Column("spinning"),
    Column("open ms", ".1f"),
    Column("first run ms", ".1f"),
    Column("together ms", ".1f"),
    Column("p95 ms", ".1f"),
    Column("peak growth MB", ".1f"),
    Column("steady growth MB", ".1f"),
    Column("cosine to ORT fp32", ".4f"),
)
_READING = (
    Column("system"),
    Column("reads MB", ".1f"),
    Column("how"),
    Column("GB/s", ".2f"),
    Column("reading alone ms", ".1f"),
    Column("whole start ms", ".1f"),
)


@dataclass(frozen=True, slots=True)
class System:
    """One way to answer: a file, and the settings it is opened with."""

    name: str
    file: Path
    threads: int
    spinning: bool | None
    """ONNX Runtime's default is to spin; None where there is nothing to choose."""


@dataclass(frozen=True, slots=True)
class Start:
    """One cold start. Bytes of memory are growth since the clock started."""

    open_s: float
    total_s: float
    peak_bytes: int
    steady_bytes: int
    bytes_read: int | None
    """Of blocks and word rows, where the system tells."""
    embedding: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """What every system is asked."""

    text: str
    ids: tuple[int, ...]
    bits: int
    preload: str


def systems(pack: Path, models: Path, threads: Sequence[int]) -> list[System]:
    """Every system with every thread setting."""
    found = [System(_STI, pack, count, None) for count in threads]
    for name, file in _MODELS.items():
        for count in threads:
            for spinning in (None,) if count == 1 else (True, False):
                found.append(System(name, models / file, count, spinning))
    return found


def start_cold(system: System, question: Question, cache: Path) -> Start:
    """One start in a process of its own, the file dropped from the page cache before."""
    common.evict(system.file)
    spec = {
        "system": system.name,
        "file": str(system.file),
        "threads": system.threads,
        "spinning": system.spinning,
        "text": question.text,
        "ids": question.ids,
        "bits": question.bits,
        "preload": question.preload,
    }
    found = common.run_child("cold", spec, cache=cache)
    return Start(**{**found, "embedding": tuple(found["embedding"])})


def child(spec: dict[str, Any]) -> dict[str, Any]:
    """What the fresh process does: one start, measured."""
    prepare = _prepare_sti if spec["system"] == _STI else _prepare_ort
    begin = prepare(spec)
    if not common.reset_peak_rss():
        raise RuntimeError("/proc/self/clear_refs cannot be written: no peak of memory to be had")
    before = machine.rss_bytes()
    start = perf_counter()
    answer = begin()
    opened = perf_counter()
    embedding, bytes_read, settle = answer()
    end = perf_counter()
    settle()
    peak, steady = machine.peak_rss_bytes(), machine.rss_bytes()
    if before is None or peak is None or steady is None:
        raise RuntimeError("this system does not tell a process's resident memory")
    return {
        "open_s": opened - start,
        "total_s": end - start,
        "peak_bytes": peak - before,
        "steady_bytes": steady - before,
        "bytes_read": bytes_read,
        "embedding": [float(value) for value in embedding],
    }


_Answer = tuple[NDArray[np.float32], int | None, Callable[[], object]]
_Begin = Callable[[], Callable[[], _Answer]]
"""Opens; returns what answers; which returns the embedding, bytes read, and what to wait for."""


def _prepare_sti(spec: dict[str, Any]) -> _Begin:
    from sti.engine import Engine

    def begin() -> Callable[[], _Answer]:
        engine = Engine.open(
            spec["file"], fidelity=spec["bits"], preload=spec["preload"], threads=spec["threads"]
        )

        def answer() -> _Answer:
            result = engine.run([spec["text"]])
            assert result.embeddings is not None
            # The preload buffer may still be filling; its memory counts as well.
            return (
                result.embeddings[0],
                result.bytes_read,
                lambda: engine.preloaded(_PRELOAD_WAIT_S),
            )

        return answer

    return begin


def _prepare_ort(spec: dict[str, Any]) -> _Begin:
    ids = np.array([spec["ids"]], dtype=np.int64)
    feeds = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }

    def begin() -> Callable[[], _Answer]:
        options = ort.SessionOptions()
        options.intra_op_num_threads = spec["threads"]
        options.log_severity_level = 3
        if spec["spinning"] is False:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if spec["file"].endswith("_optimized.onnx"):
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(spec["file"], options, providers=["CPUExecutionProvider"])
        return lambda: (np.asarray(session.run(None, feeds)[0])[0], None, lambda: None)

    return begin


def compare(
    chosen: Sequence[System], question: Question, *, repeats: int, cache: Path
) -> dict[System, list[Start]]:
    """``repeats`` rounds of one start of each system, each round beginning with another one."""
    found: dict[System, list[Start]] = defaultdict(list)
    for turn in range(repeats):
        first = turn % len(chosen)
        for system in (*chosen[first:], *chosen[:first]):
            found[system].append(start_cold(system, question, cache))
    return found


def best_of(found: dict[System, list[Start]], name: str) -> System:
    """The thread setting with which a system starts fastest."""
    return min(
        (system for system in found if system.name == name),
        key=lambda system: median([start.total_s for start in found[system]]),
    )


def times(found: dict[System, list[Start]]) -> Table:
    """Medians of every system and setting; the best setting of each is marked."""
    table = Table("Cold starts, medians (* best thread setting)", _TIMES)
    reference = np.array(found[best_of(found, _FP32)][0].embedding)
    for system, starts in found.items():
        mark = " *" if system == best_of(found, system.name) else ""
        spinning = {None: None, True: "on", False: "off"}[system.spinning]
        totals = [start.total_s * 1e3 for start in starts]
        table.rows.append(
            (
                system.name + mark,
                system.threads,
                spinning,
                median([start.open_s * 1e3 for start in starts]),
                median([(start.total_s - start.open_s) * 1e3 for start in starts]),
                median(totals),
                p95(totals),
                median([start.peak_bytes / 1e6 for start in starts]),
                median([start.steady_bytes / 1e6 for start in starts]),
                float(reference @ np.array(starts[0].embedding)),
            )
        )
    return table


def limits(found: dict[System, list[Start]]) -> Table:
    """The ratios that are asked for, between the best settings."""

    def total(name: str) -> float:
        return median([start.total_s for start in found[best_of(found, name)]])

    def peak(name: str) -> float:
        return median([start.peak_bytes for start in found[best_of(found, name)]])

    def steady(name: str) -> float:
        return median([start.steady_bytes for start in found[best_of(found, name)]])

    ours = total(_STI)
    rows: list[tuple[Cell, ...]] = [
        common.at_least("times faster than ORT int8", total(_INT8) / ours, FASTER_THAN_INT8),
        common.at_least("times faster than ORT fp32", total(_FP32) / ours, FASTER_THAN_FP32),
        common.at_most(
            "growth of memory (peak) over ORT int8's", peak(_STI) / peak(_INT8), MEMORY_OF_INT8
        ),
        (
            "growth of memory (steady) over ORT int8's",
            steady(_STI) / steady(_INT8),
            None,
            None,
        ),
    ]
    rows += [
        (f"times faster than {name}", total(name) / ours, None, None)
        for name in _MODELS
        if name not in (_INT8, _FP32)
    ]
    return Table("Best setting against best setting", common.LIMITS, rows)


def reading(found: dict[System, list[Start]], pack: Path) -> Table:
    """What reading the same bytes takes here when nothing else is done."""
    table = Table("Reading alone (the floor of a cold start)", _READING)
    for name in dict.fromkeys(system.name for system in found):
        system = best_of(found, name)
        starts = found[system]
        if name == _STI:
            with PackReader.open(pack) as reader:
                opening = reader.words_offset
            size = opening + int(median([float(start.bytes_read or 0) for start in starts]))
            how, rate = _direct_rate(pack)
        else:
            size, how = system.file.stat().st_size, "through the page cache"
            rate = common.cold_read_rate(system.file)
        whole = median([start.total_s for start in starts])
        table.rows.append((name, size / 1e6, how, rate / 1e9, size / rate * 1e3, whole * 1e3))
    return table


def _direct_rate(pack: Path) -> tuple[str, float]:
    with FileReader(pack) as reader:
        rate = common.read_rate(reader, pack.stat().st_size)
        return ("past the page cache" if reader.direct else "through the page cache"), rate


def measure(
    pack: Path,
    models: Path,
    *,
    bits: int,
    preload: str,
    tokens: int,
    threads: Sequence[int],
    repeats: int,
) -> Report:
    """The whole comparison."""
    about = common.about_machine()
    with PackReader.open(pack) as reader:
        text, ids = common.text_of(reader, tokens)
    question = Question(text, tuple(map(int, ids)), bits, preload)
    chosen = systems(pack, models, threads)
    with tempfile.TemporaryDirectory(prefix="sti-cold-") as place:
        cache = Path(place)
        found = compare(chosen, question, repeats=repeats, cache=cache)
        written = sorted(str(path.relative_to(cache)) for path in cache.rglob("*.json"))
    about.append(
        f"{pack.name} at {bits} bits, preload {preload}; {tokens} tokens; {repeats} starts of "
        "each, interleaved"
    )
    report = Report("Cold start", about, [times(found), limits(found), reading(found, pack)])
    report.notes.append(
        f"a device profile was measured and written: {', '.join(written)}"
        if written
        else "every start had an empty cache directory, and left it empty: a pinned fidelity "
        "needs no device profile"
    )
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, or be one of its children."""
    parser = common.parser(
        "cold", __doc__, "--pack bert-base.sti.safetensors --models bert-base-ort/ --repeats 10"
    )
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--pack", type=Path, metavar="PACK")
    parser.add_argument("--models", type=Path, metavar="DIR", help="as written by ort_models")
    parser.add_argument("--bits", type=int, default=4, help="uniform fidelity; default: 4")
    parser.add_argument("--preload", default="2MB", help="preload buffer; default: 2MB")
    parser.add_argument("--tokens", type=int, default=128, help="of the text; default: 128")
    parser.add_argument("--repeats", type=int, default=10, help="starts of each; default: 10")
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=[1, 2],
        help="compute threads to try, for every system; default: 1 2",
    )
    options = parser.parse_args(arguments)
    if options.child is not None:
        print(json.dumps(child(options.child)))
        return 0
    if options.pack is None or options.models is None:
        parser.error("--pack and --models are needed")
    try:
        report = measure(
            options.pack,
            options.models,
            bits=options.bits,
            preload=options.preload,
            tokens=options.tokens,
            threads=options.threads,
            repeats=options.repeats,
        )
    except (OSError, RuntimeError, ValueError, StiError) as error:
        parser.error(str(error))
    report.print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
