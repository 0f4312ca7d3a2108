"""The storage lane of a run alone, as a system: ``python -m benchmarks.systems.storage_alone``.

Reads what a run of the engine reads, by the run's own reads, past the page cache where that is
possible: the rows of the tokens, then step after step whatever the preload buffer does not hold.
Nothing is decoded or computed, so no run can take less. Options of the spec are those of
`sti.benchmark.systems.sti_pack`. The plan is made beforehand. The answer is a zero.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sti.arrays import Float32Array
from sti.benchmark.system_process import Opened, Opener, Spec, serve
from sti.engine.engine import Engine
from sti.pack.pack_reader import PackReader
from sti.pipeline.preload_buffer import Preload, load_step
from sti.planning.step_jobs import StepJob
from sti.planning.step_jobs import prepare as prepare_jobs
from sti.storage.byte_ranges import HUGE_PAGE
from sti.storage.file_reader import FileReader
from sti.storage.reader import aligned_buffer


class _Reads:
    """The reads of one run, again and again. Not thread-safe."""

    def __init__(self, pack: Path, jobs: Sequence[StepJob], rows: NDArray[np.int64]) -> None:
        self._jobs, self._rows = jobs, rows
        with PackReader.open(pack) as reader:
            self._base = reader.embeddings_offset
            row_bytes = reader.manifest.embeddings.row_bytes
        self._raw = np.empty((len(rows), row_bytes), dtype=np.uint8)
        self._slot = aligned_buffer(max(HUGE_PAGE, *(job.slot_bytes for job in jobs)))
        self._preload = Preload()
        self._reader = FileReader(pack)

    def run(self) -> Float32Array:
        """As ``Opened.run``; there is nothing to answer."""
        self._reader.read_rows(self._base, self._rows, self._raw)
        for job in self._jobs:
            if not self._preload.holds(job):
                load_step(job, self._preload, self._reader, self._slot)
        return np.zeros((1, 1), dtype=np.float32)

    def settle(self) -> None:
        """Fill the preload buffer."""
        for job in self._preload.retain(self._jobs):
            self._preload.fill(job, self._reader, self._slot)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def prepare(spec: Spec) -> Opener:
    """The plan and the rows are found out beforehand."""
    given = {name: spec.options.get(name) for name in ("latency", "preload", "fidelity")}
    with Engine.open(spec.file, threads=spec.threads, **given) as engine:
        tokens = -(-sum(map(len, spec.ids)) // len(spec.ids))
        plan = engine.plan_for(tokens=tokens, batch=len(spec.ids))
        jobs = prepare_jobs(plan, engine.manifest, engine.reader.group_offset)
    rows = np.unique(np.concatenate([np.array(row, dtype=np.int64) for row in spec.ids]))

    def opener() -> Opened:
        return _Reads(Path(spec.file), jobs, rows)

    return opener


if __name__ == "__main__":
    sys.exit(serve(prepare))
