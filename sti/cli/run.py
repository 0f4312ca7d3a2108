"""``sti run``: texts in, answers out.

In: parsed arguments. Out: on standard output, the answers for people, with their cost and plan on
standard error; or all of it as one JSON document.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from sti.cli.opening import open_engine
from sti.cli.program import print_json, say
from sti.cli.texts import read_texts
from sti.device import host
from sti.engine.answers import (
    Answer,
    ClassAnswer,
    EmbeddingAnswer,
    Label,
    SpanAnswer,
    ValueAnswer,
)
from sti.engine.engine import Engine
from sti.engine.results import Result
from sti.report.wording import describe_plan, show_metric
from sti.storage.atomic_file import write_file
from sti.text.encoding import Text
from sti.units import format_size

SHOWN_NUMBERS = 6
SHOWN_LABELS = 5
SHOWN_CHARACTERS = 48
MOST_COMPARED = 16
"""More texts than this make no similarity table; `--json` has every number."""


def execute(args: argparse.Namespace) -> None:
    """Run the texts of the command line, a file or standard input."""
    if args.trace is not None:
        from sti.cli.reports import check_writable  # most runs write no trace

        check_writable(Path(args.trace))
    texts = read_texts(args.texts, source=args.input, pair=args.pair)
    before = host.rss_bytes()
    start = perf_counter()
    opening = {"verify": args.verify, "strict": args.strict, "comparable": args.comparable}
    with open_engine(args, **opening) as engine:
        opened = perf_counter()
        result = engine.run(texts)
        process = _process(engine, before, opened - start)
        manifest = engine.manifest
    if args.trace is not None:
        write_file(args.trace, json.dumps(result.trace.to_chrome(result.plan)) + "\n")
    if args.json:
        document = {"pack": str(args.pack), "name": manifest.name, "task": manifest.task}
        print_json({**document, "texts": texts, **result.to_json(), "process": process})
        return
    for index, text in enumerate(texts):
        print(_answer(index, text, result.answer))
    if isinstance(result.answer, EmbeddingAnswer) and 1 < len(texts) <= MOST_COMPARED:
        print("\n" + _similarities(result.answer.embeddings), end="")
    sys.stdout.flush()  # so that the cost follows the answers where both go to one terminal
    say("\n" + _cost(result, opened - start))
    if result.late_s:
        from sti.engine.lateness import describe_lateness  # most runs are in time

        say(str(describe_lateness(result)))


def _process(engine: Engine, before: int | None, open_s: float) -> dict[str, Any]:
    """What the process used; ``before`` is its memory before opening, libraries included."""
    return {
        "open_ms": round(open_s * 1e3, 3),
        "rss_before_bytes": before,
        "peak_rss_bytes": host.peak_rss_bytes(),
        "threads": engine.threads,
        "direct": engine.direct,
    }


def _answer(index: int, text: Text, answer: Answer) -> str:
    """One text and what was found."""
    match answer:
        case EmbeddingAnswer():
            row = answer.embeddings[index]
            numbers = " ".join(f"{value:.4f}" for value in row[:SHOWN_NUMBERS])
            lines = [f"[{numbers} ...] ({len(row)} numbers)"]
        case ClassAnswer():
            lines = _classes(answer, index)
        case ValueAnswer():
            lines = [f"{item.value:7.4f}  {item.name}" for item in answer.values[index]]
        case SpanAnswer():
            lines = [
                f"{item.score:7.4f}  {item.label}  {item.text}  ({item.start}-{item.end})"
                for item in answer.spans[index]
            ] or ["nothing found"]
    return "\n".join([f"{index + 1}  {_shorten(text)}", *(f"   {line}" for line in lines)])


def _classes(answer: ClassAnswer, index: int) -> list[str]:
    """The best classes; of a pack that can reject a text the best one alone, or the rejection."""
    best, *_ = row = answer.classes[index]
    if not answer.accepted[index]:
        return [f"{answer.rejection} ({_guess(best, answer.threshold)})"]
    shown = SHOWN_LABELS if answer.rejection is None else 1
    return [f"{item.score:7.4f}  {item.name}" for item in row[:shown]]


def _guess(best: Label, threshold: float) -> str:
    """Why a text is out of scope; with enough digits to show that the score is too low."""
    digits = next((n for n in (2, 4) if f"{best.score:.{n}f}" != f"{threshold:.{n}f}"), 6)
    return f"best guess {best.name} {best.score:.{digits}f}, below {threshold:.{digits}f}"


def _shorten(text: Text) -> str:
    joined = text if isinstance(text, str) else " | ".join(text)
    joined = " ".join(joined.split())
    if len(joined) <= SHOWN_CHARACTERS:
        return joined
    return joined[: SHOWN_CHARACTERS - 3] + "..."


def _similarities(embeddings: np.ndarray[Any, np.dtype[np.float32]]) -> str:
    """Cosines of every two texts, as a table."""
    size = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.maximum(size, 1e-12)
    cosines = unit @ unit.T
    names = [str(number + 1) for number in range(len(embeddings))]
    rows = [
        [name, *(f"{value:.3f}" for value in row)] for name, row in zip(names, cosines, strict=True)
    ]
    from sti.report.tables import aligned  # one text needs no table

    return aligned(["cosine", *names], rows)


def _cost(result: Result, open_s: float) -> str:
    timing, plan, expected = result.timing, describe_plan(result.plan), result.quality
    if result.plan.predicted is None and expected is not None:
        # A pinned plan may lack a timeline; how good it is the pack knows all the same.
        plan += f", expected {expected.metric} {show_metric(expected.metric, expected.value)}"
    parts = ", ".join(
        f"{name} {seconds * 1e3:.1f}"
        for name, seconds in (
            ("plan", timing.plan_s),
            *timing.busy_s.items(),
            ("stall", timing.stall_s),
        )
    )
    return (
        f"{timing.total_s * 1e3:.1f} ms ({parts}) "
        f"after opening in {open_s * 1e3:.0f} ms; read {format_size(result.bytes_read)}\n"
        f"plan: {plan}"
    )
