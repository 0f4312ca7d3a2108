"""What the rows of the benchmark of memory share: packs, texts, how large budgets may be.

In: paths of packs. Out: their texts of a length, the least budget offered and what holds the whole,
both found by trying it in processes of their own. Knows nothing of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.memory_process import MeasuredProcess
from sti.calibration.sample_texts import SampleTexts
from sti.device import host
from sti.pack.pack_reader import PackReader
from sti.units import exact_size

MB = 1e6
FIRST_BYTES = 10**6
"""A budget that is refused, and says the least."""
HELD_S = 600.0
"""For a graph that has to be built first."""
BUDGET_TOKENS = 128
"""Tokens that a budget is divided for."""
_TRIES = 20
"""What opening takes differs a little from process to process, and so does what is needed."""
_WARM, _RUNS = 4, 3
"""Runs before what is to be held is waited for, and after it."""
_PLENTY = 4
"""Times a pack's size: more than the whole takes."""
_SPARE = 1.2
"""Over what holding the whole was measured to take: predictions are a little high."""


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack, and what is known of it without an engine."""

    path: Path
    name: str
    samples: SampleTexts
    ladder: tuple[int, ...]
    max_tokens: int
    file_bytes: int

    def texts(self, batch: int, tokens: int) -> list[str]:
        """Texts of a length, or of the longest that the model takes."""
        return self.samples.texts(batch, min(tokens, self.max_tokens))

    def lengths(self, tokens: Sequence[int]) -> list[int]:
        """Those of these lengths that the model takes, each once, ascending."""
        return sorted({min(count, self.max_tokens) for count in tokens})

    def nearest(self, bits: int) -> int:
        """The fidelity of the pack that is nearest to one."""
        return min(self.ladder, key=lambda own: abs(own - bits))


@cache
def pack_of(path: Path) -> Pack:
    """A pack's facts.

    Raises:
        PackError: it is none.
    """
    with PackReader.open(path) as reader:
        name = path.name.partition(".")[0]
        manifest, size = reader.manifest, reader.file_bytes
        limit = manifest.dimensions.max_tokens
        return Pack(path, name, SampleTexts(reader), tuple(manifest.ladder), limit, size)


class Spans(NamedTuple):
    """Sizes of budgets that matter for a pack."""

    least_bytes: int
    whole_bytes: int
    """Has room for the whole as a graph."""


@dataclass(slots=True)
class Setting:
    """What is measured, and how much of it."""

    packs: tuple[Pack, ...]
    against: Mapping[Path, Path] = field(default_factory=dict)
    """A pack's model for ONNX Runtime, with int8 weights."""
    runs: int = 1000
    """Processes of the row `budget`."""
    turns: int = 20
    """In which systems, or budgets, are run."""
    tokens: tuple[int, ...] | None = None
    """Lengths of the other rows; None: their own."""
    jobs: int = 1
    seed: int = 0

    def lengths(self, pack: Pack, usual: Sequence[int]) -> list[int]:
        """Lengths of texts for a row."""
        return pack.lengths(self.tokens or usual)


class Offered(NamedTuple):
    """The least budget of memory that was offered, and what was measured with it."""

    needed_bytes: int | None
    """None: none was, for another reason than memory."""
    peak_bytes: int
    tries: int
    said: str

    @property
    def ratio(self) -> float:
        """What was asked for over what was taken."""
        return (self.needed_bytes or 0) / max(1, self.peak_bytes)


def target_words(target: Mapping[str, Any]) -> str:
    """A target in a few words."""
    if "fidelity" in target:
        return f"{target['fidelity']} bits"
    return f"latency {target['latency']}" if "latency" in target else "none"


def threads_of_machine() -> tuple[int, ...]:
    """One thread, and all cores."""
    return tuple(sorted({1, host.core_count()}))


def logarithmic(least: int, most: int, count: int) -> list[int]:
    """Sizes from the least to the most, each the same factor above the one before."""
    return [round(size) for size in np.geomspace(least, max(least, most), count)]


def open_and_run(
    process: MeasuredProcess,
    pack: Pack,
    target: Mapping[str, Any],
    memory_bytes: int,
    *,
    threads: int | None,
) -> dict[str, Any]:
    """Open an engine with a budget, run the first texts, and again with all held that is to be.

    Returns:
        The reply to the last run, or to what was refused or failed.
    """
    given = {**target, "memory": exact_size(memory_bytes)}
    reply = process.ask("open", pack=str(pack.path), target=given, threads=threads)
    for command in ({"do": "run", "times": _WARM}, {"do": "wait"}, {"do": "run", "times": _RUNS}):
        if "refused" in reply or "error" in reply:
            return reply
        do = str(command["do"])
        if do == "wait":
            reply = process.ask(do, seconds=HELD_S)
        else:
            reply = process.ask(do, texts=0, times=command["times"])
    return reply


def least_offered(
    pack: Pack, target: Mapping[str, Any], tokens: int, *, threads: int | None
) -> Offered:
    """Ask for what each refusal says is needed until it is accepted; one process a try."""
    asked, peak, said = FIRST_BYTES, 0, ""
    for tries in range(1, _TRIES + 1):
        with MeasuredProcess([pack.texts(1, tokens)]) as process:
            reply = open_and_run(process, pack, target, asked, threads=threads)
            peak = process.peak_bytes
        if "error" in reply or reply.get("refused", "memory") != "memory":
            return Offered(None, peak, tries, str(reply.get("error") or reply["said"]))
        if "refused" not in reply:
            return Offered(asked, peak, tries, "")
        asked, said = ceil(reply["needed"]), reply["said"]
    return Offered(None, peak, _TRIES, f"not accepted after {_TRIES} refusals: {said}")


def whole_bytes(pack: Pack, target: Mapping[str, Any], *, threads: int | None) -> int:
    """A budget with room for all that is to be held, as a graph where there can be one.

    Raises:
        RuntimeError: it was not accepted.
    """
    plenty = _PLENTY * pack.file_bytes + 64 * round(MB)
    with MeasuredProcess([pack.texts(1, BUDGET_TOKENS)]) as process:
        reply = open_and_run(process, pack, target, plenty, threads=threads)
        if "form" not in reply:
            raise RuntimeError(f"{pack.name}: {reply.get('error') or reply.get('said')}")
        return round(_SPARE * (process.growth_bytes + process.mapped_bytes()))


def spans_of(pack: Pack) -> Spans:
    """From the least of any target to the whole at the highest fidelity.

    Raises:
        RuntimeError: no budget was accepted.
    """
    threads = host.core_count()
    least = least_offered(pack, {"fidelity": pack.ladder[0]}, 8, threads=threads)
    if least.needed_bytes is None:
        raise RuntimeError(f"{pack.name}: {least.said}")
    whole = whole_bytes(pack, {"fidelity": pack.ladder[-1]}, threads=threads)
    return Spans(least.needed_bytes, whole)
