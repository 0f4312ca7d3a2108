"""``sti run``: texts in, answers out.

In: parsed arguments. Out: on standard output, the answers for people or as lines of JSON, batch by
batch, with their cost and plan on standard error; or all of it as one JSON document. Only that, a
trace and a table of similarities hold more than one batch.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sti.arrays import Float32Array
from sti.cli.answer_words import answer_words, similarities
from sti.cli.opening import open_engine
from sti.cli.program import print_json, say
from sti.cli.tally import Tally
from sti.cli.texts import Texts
from sti.device import host
from sti.engine.answers import EmbeddingAnswer
from sti.engine.engine import Engine
from sti.engine.merging import merge_results
from sti.engine.results import Result
from sti.errors import InputError, StiError
from sti.report.wording import counted
from sti.storage.atomic_file import write_file

if TYPE_CHECKING:
    from sti.engine.replay import Recording

MOST_COMPARED = 16
"""More texts than this make no similarity table; `--json` has every number."""


class _Output(Protocol):
    """Where results go."""

    def add(self, result: Result) -> None:
        """Another batch was answered."""

    def end(self) -> None:
        """There are no more."""


def execute(args: argparse.Namespace) -> None:
    """Run the texts of the command line, a file or standard input."""
    _check_options(args)
    if args.trace is not None:
        from sti.cli.reports import check_writable  # most runs write no trace

        check_writable(Path(args.trace), apart=args.pack)
    with closing(Texts(args.texts, source=args.input, pair=args.pair)) as texts:
        before = host.rss_bytes()
        start = perf_counter()
        replay, target, strict = None, None, args.strict
        if args.replay is not None:
            from sti.cli.replay import recording_of  # few runs repeat others

            (replay, target), strict = recording_of(args), True
        opening = {"verify": args.verify, "strict": strict, "comparable": args.comparable}
        opening |= {"adapt": args.adapt, "history": replay is None}
        opening |= {"yield_memory": args.yield_memory}
        with open_engine(args, target, **opening, tokens=args.tokens) as engine:
            tally = Tally(perf_counter() - start)
            output: _Output = _Lines() if args.jsonl else _People()
            if args.json:
                output = _Document(args.pack, engine, before, tally.open_s)
            # Answers that are seen are progress enough.
            shown = None if args.json or not sys.stdout.isatty() else False
            kept: list[Result] = []
            try:
                with closing(_answered(engine, texts, tally, replay, args, shown=shown)) as results:
                    for result in results:
                        output.add(result)
                        sys.stdout.flush()
                        if args.trace is not None:
                            kept.append(result)
                    tally.health = engine.health()
            except (StiError, KeyboardInterrupt):
                if tally.batches:
                    _tell(tally, args)
                raise
            if args.trace is not None:
                _write_trace(args.trace, engine.pack_id, kept)
            output.end()
    sys.stdout.flush()  # so that the cost follows the answers where both go to one terminal
    _tell(tally, args)


def _check_options(args: argparse.Namespace) -> None:
    """Refuse options that exclude one another."""
    if args.json and args.jsonl:
        raise InputError("--json and --jsonl exclude each other; leave one out")
    if args.replay is not None and (args.prompt is not None or args.prompt_name is not None):
        raise InputError("a replay has the prompt that was recorded; leave --prompt out")
    if args.replay is not None and args.threshold is not None:
        raise InputError("--threshold does not go with --replay; leave it out")


def _answered(
    engine: Engine,
    texts: Texts,
    tally: Tally,
    replay: Recording | None,
    args: argparse.Namespace,
    *,
    shown: bool | None,
) -> Generator[Result, None, None]:
    """The results of all batches, counted. Of many, Ctrl-C ends them after the next one."""

    def streamed() -> Iterator[Result]:
        return engine.stream(
            texts, prompt=args.prompt, prompt_name=args.prompt_name, threshold=args.threshold
        )

    if replay is not None or not texts.from_file:
        found = streamed() if replay is None else replay.replay(engine, list(texts))
        for result in found:
            tally.add(result)
            yield result
        return
    from sti.cli.interrupts import between_batches
    from sti.cli.progress import Progress

    with between_batches(lambda: texts.waiting) as pressed, Progress(shown=shown) as progress:
        for result in streamed():
            tally.add(result)
            yield result
            progress.step(tally.texts, texts.share)
            if pressed():
                raise KeyboardInterrupt(f"{counted(tally.texts, 'text')} answered")


def _tell(tally: Tally, args: argparse.Namespace) -> None:
    """What it cost; a document has that in it. How the target was kept belongs here."""
    if not args.json:
        say(("" if args.jsonl else "\n") + tally.words())


def _write_trace(path: str, pack_id: str, results: Sequence[Result]) -> None:
    """All batches one after another, and what it takes to replay them."""
    from sti.engine.replay import trace_document  # most runs write no trace

    write_file(path, json.dumps(trace_document(pack_id, results)) + "\n")


class _People:
    """Answers in words, and a table of similarities where there are few embeddings."""

    def __init__(self) -> None:
        self._count = 0
        self._compared: list[Float32Array] = []

    def add(self, result: Result) -> None:
        for index, text in enumerate(result.texts):
            self._count += 1
            print(answer_words(self._count, index, text, result.answer))
        if isinstance(result.answer, EmbeddingAnswer) and self._count <= MOST_COMPARED:
            self._compared.append(result.answer.embeddings)

    def end(self) -> None:
        if self._compared and 1 < self._count <= MOST_COMPARED:
            print("\n" + similarities(np.concatenate(self._compared)), end="")


class _Lines:
    """A line of JSON for each text, with the members that the document has for it."""

    def __init__(self) -> None:
        self._count = self._batches = 0

    def add(self, result: Result) -> None:
        self._batches += 1
        answers = result.answer.to_json()
        of_batch = {"batch": self._batches, "met": result.met, "late_s": round(result.late_s, 6)}
        for index, text in enumerate(result.texts):
            self._count += 1
            row = {
                name: value[index] if isinstance(value, list) else value
                for name, value in answers.items()
            }
            print_json({"number": self._count, "text": text, **row, **of_batch})

    def end(self) -> None:
        """Every line was printed."""


class _Document:
    """Everything as one document, which is held until the end."""

    def __init__(self, pack: str, engine: Engine, before: int | None, open_s: float) -> None:
        self._pack, self._engine, self._open_s = pack, engine, open_s
        self._before = before
        """Memory before opening, libraries included."""
        self._results: list[Result] = []

    def add(self, result: Result) -> None:
        self._results.append(result)

    def end(self) -> None:
        whole, engine = merge_results(self._results), self._engine
        print_json(
            {
                "pack": str(self._pack),
                "name": engine.manifest.name,
                "task": engine.task,
                "texts": whole.texts,
                **whole.to_json(),
                "process": {
                    "open_ms": round(self._open_s * 1e3, 3),
                    "rss_before_bytes": self._before,
                    "peak_rss_bytes": host.peak_rss_bytes(),
                    "threads": engine.threads,
                    "direct": engine.direct,
                },
            }
        )
