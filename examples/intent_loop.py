"""Answer lines with an intent, each within a target, and compare the plan with what happened.

    python examples/intent_loop.py PACK --latency 30ms --preload 1MB          # a line, an answer
    python examples/intent_loop.py PACK --latency 30ms --input lines.txt --json
    python examples/intent_loop.py PACK --latency 50ms --lines 500 --beside "make --always-make"

Every line is one run of a text-classification pack (one more, to warm up, comes before the first).
Below the intent stand the time it took, what was planned and what was asked for, the bytes read
and the accuracy to expect of the plan. Answers go to standard output; late ones are told on
standard error, with what made them late, and so is the summary, which comes at the end of the input
or with Ctrl-C (exit code 130): how the target was kept, how often the plan changed, and why answers
were late. With --json every answer is one line of JSON.

--lines answers so many lines, those of the file again and again, or of a sample. --beside runs a
command meanwhile, again and again, to see what a busy machine does to the answers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import sti
from sti.engine.lateness import describe_lateness
from sti.report.wording import counted

SAMPLE = (
    "how do i make changes to my insurance policy",
    "can you teach me to change my oil",
    "is pepper a replacement for salt",
    "can you arrange a meeting for 3:00 on wednesday",
    "increase the speaker volume please",
    "please play me the song that starts out with doo doo doo",
    "do you know why my card was declined at target i can't figure out why",
)
"""Validation sentences of CLINC150 (Larson et al., EMNLP 2019; github.com/clinc/oos-eval), licensed
under CC BY 3.0."""


@dataclass
class Tally:
    """What the summary is made of."""

    times_ms: list[float] = field(default_factory=list)
    in_time: int = 0
    out_of_scope: int = 0
    unanswered: int = 0
    target_ms: float | None = None
    replans: int = 0
    adapted: int = 0
    causes: Counter[str] = field(default_factory=Counter)

    def take(self, before: Any, after: Any) -> None:
        """Take note of what the engine says of its health, before the first line and after all."""
        self.replans = after.replans - before.replans
        self.adapted = after.adapted - before.adapted
        self.causes = Counter(after.causes) - Counter(before.causes)

    def summary(self) -> str:
        """Share of answers within the target, percentiles, changes of the plan, causes."""
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
            p95, p99 = (ordered[-(-share * count // 100) - 1] for share in (95, 99))
            middle = statistics.median(ordered)
            parts.append(f"median {middle:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms")
        if self.replans:
            parts.append(f"plan changed {counted(self.replans, 'time')}")
        if self.adapted:
            parts.append(f"planes left out in {counted(self.adapted, 'run')}")
        if self.causes:
            causes = ", ".join(f"{cause} ({runs})" for cause, runs in self.causes.most_common())
            parts.append(f"late because of {causes}")
        return "; ".join(parts)


class Neighbour:
    """A command that runs beside the answers, again and again; ended with the context."""

    def __init__(self, command: str) -> None:
        try:
            self._command, self._words = command, shlex.split(command)
        except ValueError as error:
            raise sti.InputError(f"--beside {command}: {error}") from error
        self._process: subprocess.Popen[bytes] | None = None
        self._failed = False
        self.ended = 0
        """How often it came to its end."""

    def __enter__(self) -> Neighbour:
        if self._words:
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def keep(self) -> None:
        """Start the command again where it has ended; not after a failure, which is told."""
        if self._process is None or self._failed or self._process.poll() is None:
            return
        self.ended += 1
        if self._process.returncode:
            self._failed, code = True, self._process.returncode
            print(f"beside: `{self._command}` failed with code {code}", file=sys.stderr)
        else:
            self._start()

    def _start(self) -> None:
        none = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        self._process = subprocess.Popen(self._words, start_new_session=True, **none)


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
        "in_time": result.met,
        "late": describe_lateness(result),
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


def loop(
    engine: sti.Engine,
    lines: Iterator[str],
    tally: Tally,
    *,
    as_json: bool,
    beside: Neighbour | None = None,
) -> None:
    """Answer line after line; what cannot be answered is told and passed over."""
    for line in lines:
        if beside is not None:
            beside.keep()
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
        if found["late"]:
            print(found["late"], file=sys.stderr)


def prompted() -> Iterator[str]:
    """The lines of standard input, asked for where someone sits before it."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        yield line


def lines_of(options: argparse.Namespace) -> Iterator[str]:
    """The lines to be answered."""
    if not options.input and options.lines is None:
        return prompted()
    given = Path(options.input).read_text("utf-8").splitlines() if options.input else SAMPLE
    if options.lines is None:
        return iter(given)
    return islice(cycle(line for line in given if line.strip()), options.lines)


def serve(options: argparse.Namespace) -> int:
    """Open the pack, answer the input, sum up."""
    tally, code = Tally(), 0
    lines = lines_of(options)
    with sti.Engine.open(options.pack, latency=options.latency, preload=options.preload) as engine:
        if engine.task != "classification":
            raise sti.InputError(f"{options.pack}: a pack for {engine.task} has no intents")
        try:
            engine.run(["ready"])  # only a first run makes threads and tables
            engine.preloaded()  # the plan counts on it
            before = engine.health()
            with Neighbour(options.beside) as beside:
                try:
                    loop(engine, lines, tally, as_json=options.json, beside=beside)
                finally:
                    tally.take(before, engine.health())
        except KeyboardInterrupt:
            code = 130
    print(tally.summary(), file=sys.stderr)
    return code


def positive(text: str) -> int:
    """A number of lines."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def main() -> int:
    """Parse the arguments; turn failures into messages and exit codes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pack", help="a text-classification pack")
    parser.add_argument("--latency", help="what an answer may take, e.g. 30ms")
    parser.add_argument("--preload", help="memory for preloaded weights, e.g. 1MB")
    parser.add_argument("--input", metavar="FILE", help="a text a line (default: standard input)")
    parser.add_argument(
        "--lines", type=positive, metavar="N", help="answer N lines, again and again those given"
    )
    parser.add_argument(
        "--beside", default="", metavar="COMMAND", help="run this meanwhile, again and again"
    )
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
