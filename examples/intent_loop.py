"""Answer lines with an intent, each within a target, and compare the plan with what happened.

    python examples/intent_loop.py PACK --latency 30ms --preload 1MB          # a line, an answer
    python examples/intent_loop.py PACK --latency 30ms --input lines.txt --json

Every line is one run of a text-classification pack (one more, to warm up, comes before the first).
Below the intent stand the time it took, what was planned and what was asked for, the bytes read
and the accuracy to expect of the plan. Answers go to standard output; late ones are told on
standard error, and so is the summary, which comes at the end of the input or with Ctrl-C (exit code
130). With --json every answer is one line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sti
from sti.report.wording import counted

PLANNED_TOKENS = (8, 16, 24, 32, 48, 64)
"""Lengths to expect: the engine plans for the next larger one of some dozen."""


@dataclass
class Tally:
    """What the summary is made of."""

    times_ms: list[float] = field(default_factory=list)
    in_time: int = 0
    out_of_scope: int = 0
    unanswered: int = 0
    target_ms: float | None = None

    def summary(self) -> str:
        """Share of answers within the target, median and 95th percentile."""
        count = len(self.times_ms)
        parts = [f"{count} answered"]
        if self.out_of_scope:
            parts.append(f"{self.out_of_scope} of them out of scope")
        if self.unanswered:
            parts.append(f"{self.unanswered} not answered")
        if count and self.target_ms is not None:
            share = 100 * self.in_time / count
            parts.append(f"{self.in_time} within {self.target_ms:.1f} ms ({share:.0f} %)")
        if count:
            ordered = sorted(self.times_ms)
            p95 = ordered[-(-95 * count // 100) - 1]
            parts.append(f"median {statistics.median(ordered):.1f} ms, p95 {p95:.1f} ms")
        return "; ".join(parts)


def answer(engine: sti.Engine, text: str) -> dict[str, Any]:
    """Run one text; the answer, and the plan beside what happened."""
    result = engine.run([text])
    best, accepted = result.classes[0][0], result.accepted[0]
    plan, predicted = result.plan, result.plan.predicted
    assert predicted is not None  # an engine without a pinned plan or fidelity always predicts
    target_s = plan.target.latency_s
    return {
        "text": text,
        "intent": result.decisions[0][0].name,
        "accepted": accepted,
        "best_guess": best.name,
        "score": best.score,
        "threshold": result.threshold if engine.manifest.rejection else None,
        "total_ms": result.timing.total_s * 1e3,
        "expected_ms": predicted.total_s * 1e3,
        "target_ms": None if target_s is None else target_s * 1e3,
        "in_time": None if target_s is None else result.timing.total_s <= target_s,
        "bytes_read": result.bytes_read,
        "expected_bytes": predicted.bytes_read,
        "depth": plan.depth,
        "width": plan.width,
        "expected_quality": predicted.quality._asdict() if predicted.quality else None,
    }


def show(found: dict[str, Any]) -> None:
    """Print one answer for people."""
    if found["accepted"]:
        print(f"{found['intent']}  {found['score']:.3f}")
    else:
        guess = f"best guess {found['best_guess']} {found['score']:.3f}"
        print(f"{found['intent']}  ({guess}, below {found['threshold']:.3f})")
    target = "" if found["target_ms"] is None else f", target {found['target_ms']:.1f}"
    parts = [
        f"{found['total_ms']:.1f} ms (planned {found['expected_ms']:.1f}{target})",
        f"{found['bytes_read'] / 1e6:.2f} MB read (planned {found['expected_bytes'] / 1e6:.2f})",
        f"{counted(found['depth'], 'layer')}, {counted(found['width'], 'slice')}",
    ]
    if (quality := found["expected_quality"]) is not None:
        value, low, high = (100 * quality[name] for name in ("value", "low", "high"))
        parts.append(f"expected {quality['metric']} {value:.1f} % ({low:.1f} to {high:.1f})")
    print("    " + ", ".join(parts), flush=True)


def loop(engine: sti.Engine, lines: Iterator[str], tally: Tally, *, as_json: bool) -> None:
    """Answer line after line; what cannot be answered is told and passed over."""
    for line in lines:
        text = line.strip()
        if not text:
            continue
        try:
            found = answer(engine, text)
        except (sti.InfeasibleError, sti.InputError) as error:
            tally.unanswered += 1
            print(f"not answered: {error}", file=sys.stderr)
            continue
        tally.target_ms = found["target_ms"]
        tally.times_ms.append(found["total_ms"])
        tally.in_time += bool(found["in_time"])
        tally.out_of_scope += not found["accepted"]
        if as_json:
            print(json.dumps(found), flush=True)
        else:
            show(found)
        if found["in_time"] is False:
            over = found["total_ms"] - found["target_ms"]
            print(f"late: {over:.1f} ms beyond {found['target_ms']:.1f} ms", file=sys.stderr)


def prompted() -> Iterator[str]:
    """The lines of standard input, asked for where someone sits before it."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        yield line


def serve(options: argparse.Namespace) -> int:
    """Open the pack, answer the input, sum up."""
    tally, code = Tally(), 0
    given = Path(options.input).read_text("utf-8").splitlines() if options.input else None
    lines = prompted() if given is None else iter(given)
    with sti.Engine.open(options.pack, latency=options.latency, preload=options.preload) as engine:
        if engine.task != "classification":
            raise sti.InputError(f"{options.pack}: a pack for {engine.task} has no intents")
        try:
            for tokens in PLANNED_TOKENS:  # a plan made now is not made on a text's time
                with contextlib.suppress(sti.InfeasibleError):
                    engine.plan_for(tokens=tokens)
            engine.run(["ready"])  # only a first run makes threads and tables
            engine.preloaded()  # the plan counts on it
            loop(engine, lines, tally, as_json=options.json)
        except KeyboardInterrupt:
            code = 130
    print(tally.summary(), file=sys.stderr)
    return code


def main() -> int:
    """Parse the arguments; turn failures into messages and exit codes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pack", help="a text-classification pack")
    parser.add_argument("--latency", help="what an answer may take, e.g. 30ms")
    parser.add_argument("--preload", help="memory for preloaded weights, e.g. 1MB")
    parser.add_argument("--input", metavar="FILE", help="a text a line (default: standard input)")
    parser.add_argument("--json", action="store_true", help="print each answer as a line of JSON")
    options = parser.parse_args()
    try:
        return serve(options)
    except KeyboardInterrupt:
        return 130  # before there was anything to answer
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # whoever read the answers has seen enough
    except (OSError, UnicodeDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except sti.StiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
