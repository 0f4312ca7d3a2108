"""With memory for the whole: this engine beside ONNX Runtime's int8 model, warm, in turns.

In: packs, models. Out: ratios of medians, and how much they differ from turn to turn. Beside the
graph: the same plan streamed with all of it held compressed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.common import Column, Table, at_most, median
from benchmarks.memory_process import MeasuredProcess
from benchmarks.memory_setting import Pack, Setting, open_and_run, threads_of_machine, whole_bytes
from benchmarks.rows import Summary, reported, tell
from sti.benchmark.comparison import IN_A_ROW, Figures, compare
from sti.benchmark.system_child import System
from sti.benchmark.system_process import Spec
from sti.device import host
from sti.units import exact_size

FIDELITIES = (4, 8)
TOKENS = (128, 16)
WANTED = {128: 1.1, 16: 1.5}
"""Tokens to the most that a run may take, in times of ONNX Runtime's."""
_MODULES = "sti.benchmark.systems"
ORT = "ORT int8"
GRAPH, COMPRESSED = "graph", "compressed"


class Times(NamedTuple):
    """What a system took for texts of a length."""

    pack: str
    tokens: int
    system: str
    """``ORT`` or the fidelity."""
    form: str
    threads: int
    turns_s: tuple[tuple[float, ...], ...]
    """Of each turn the answers in a row."""
    failed: str

    @property
    def name(self) -> str:
        """For tables."""
        form = f", {self.form}" if self.form else ""
        return f"{self.system}{form}, {self.threads} thread{'s' * (self.threads > 1)}"


def measure(setting: Setting) -> Iterator[Times]:
    """Length after length, all systems of one in turns."""
    for pack in setting.packs:
        fidelities = sorted({pack.nearest(bits) for bits in FIDELITIES})
        memory = {}
        for bits in fidelities:
            tell(f"whole: {pack.name}, {bits} bits: building what is to be held")
            memory[bits] = max(
                whole_bytes(pack, {"fidelity": bits}, threads=count)
                for count in threads_of_machine()
            )
        for tokens in setting.lengths(pack, TOKENS)[::-1]:
            systems = _systems(setting, pack, tokens, memory)
            given = [system for _, system in systems]
            found = compare(given, cold=0, warm=setting.turns, progress=tell)
            for (times, _), figures in zip(systems, found, strict=True):
                yield _filled(times, figures)


def _filled(times: Times, figures: Figures) -> Times:
    answers = figures.warm_s
    turns = tuple(
        tuple(answers[start : start + IN_A_ROW]) for start in range(0, len(answers), IN_A_ROW)
    )
    return times._replace(turns_s=turns, failed=figures.failed)


def _systems(
    setting: Setting, pack: Pack, tokens: int, memory: dict[int, int]
) -> list[tuple[Times, System]]:
    """Each with its times, which are to be filled."""
    texts = pack.texts(1, tokens)
    ids = tuple(tuple(map(int, pack.samples.tokenizer.encode(text).ids)) for text in texts)
    found = []
    for threads in threads_of_machine()[::-1]:
        for bits, size in memory.items():
            held = {GRAPH: {"memory": exact_size(size)}, COMPRESSED: {"preload": f"{size}B"}}
            for form, options in held.items():
                given = {"fidelity": bits, **options}
                if form == GRAPH:
                    form = _form(pack, texts, bits, size, threads)
                spec = Spec(str(pack.path), tuple(texts), ids, threads, given)
                times = Times(pack.name, tokens, f"{bits} bits", form, threads, (), "")
                found.append((times, System(times.name, f"{_MODULES}.sti_pack", spec, ())))
        model = setting.against.get(pack.path)
        if model is not None:
            # All cores are what it takes unless told.
            asked = None if threads == host.core_count() else threads
            spec = Spec(str(model), tuple(texts), ids, asked)
            times = Times(pack.name, tokens, ORT, "", threads, (), "")
            found.append((times, System(times.name, f"{_MODULES}.onnx_model", spec, ())))
    return found


def _form(pack: Pack, texts: Sequence[str], bits: int, size: int, threads: int) -> str:
    """In which form the whole is held within a budget: known before anything is timed."""
    with MeasuredProcess([texts]) as process:
        reply = open_and_run(process, pack, {"fidelity": bits}, size, threads=threads)
    form = str(reply.get("form") or reply.get("said") or reply.get("error"))
    return form if form == GRAPH else f"within memory: {form}"


def ratios(ours: Times, theirs: Times) -> tuple[float, float, float]:
    """Of all medians; and the quartiles of the ratios turn by turn."""
    turns = [median(mine) / median(other) for mine, other in _pairs(ours, theirs)]
    low, high = np.percentile(turns, [25, 75])
    return median(_flat(ours)) / median(_flat(theirs)), float(low), float(high)


def _pairs(ours: Times, theirs: Times) -> list[tuple[Sequence[float], Sequence[float]]]:
    return list(zip(ours.turns_s, theirs.turns_s, strict=False))


def _flat(times: Times) -> list[float]:
    return [seconds for turn in times.turns_s for seconds in turn]


def summarize(items: Sequence[Times]) -> Summary:
    """A table for all, and the ratios of graphs on all cores against the limits."""
    found = Summary()
    columns = (Column("pack"), Column("tokens", ",d"), Column("system"), Column("median ms", ".2f"))
    columns += (Column("p90 ms", ".2f"), Column("over ORT", ".3f"), Column("quartiles"))
    table = Table("Memory for the whole", columns)
    for item in items:
        if item.failed or not item.turns_s:
            found.notes.append(f"{item.pack}, {item.tokens} tokens, {item.name}: {item.failed}")
            continue
        times = [seconds * 1e3 for seconds in _flat(item)]
        figures = (median(times), float(np.percentile(times, 90)))
        peer = _peer(item, items)
        against: tuple[float | None, str | None] = (None, None)
        if peer is not None and item is not peer:
            ratio, low, high = ratios(item, peer)
            against = (ratio, f"{low:.3f} to {high:.3f}")
            name = f"{item.pack}, {item.tokens} tokens, {item.name}, over {ORT}"
            wanted = WANTED.get(item.tokens)
            if item.threads == host.core_count() and item.form == GRAPH and wanted is not None:
                found.limits.append(at_most(name, ratio, wanted))
            else:
                found.limits.append(reported(name, ratio))
        table.rows.append((item.pack, item.tokens, item.name, *figures, *against))
    found.tables.append(table)
    found.notes.append(
        f"turns of {IN_A_ROW} answers in a row, after one that does not count; quartiles: of the "
        "ratios turn by turn"
    )
    return found


def _peer(item: Times, items: Sequence[Times]) -> Times | None:
    """ONNX Runtime's times for the same, on as many threads."""
    for other in items:
        same = (other.pack, other.tokens, other.threads) == (item.pack, item.tokens, item.threads)
        if same and other.system == ORT and other.turns_s:
            return other
    return None
