"""Compare a model of a ``tokenizer.json`` with the reference library, line by line, and time both.

    python -m benchmarks.tokenizer_lines --tokenizer tokenizer.json TEXT...

In: a tokenizer file of any kind that is read here, and text files, UTF-8 (``.gz`` too), a case a
line. Compared are ids, offsets and word ids without special tokens, and the ids again with a limit.
Both are timed in turns on one thread, a few hundred lines at a time; no line comes twice, nor do
lines that name an added token. Exit code 1 on any mismatch.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tokenizers

from shard_tools.checkpoint.tokenizer_json import READERS
from shard_tools.checkpoint.tokenizer_pipeline import read_object
from sti.errors import StiError
from sti.text.kinds import KINDS
from sti.text.text_model import TextModel

_TURN = 400
_SHOWN = 5
_SHORT = 17


@dataclass(slots=True)
class Row:
    """One line of the table: a file and what came of it."""

    name: str
    lines: list[str]
    mismatches: int = 0
    ids_s: float = 0.0
    spans_s: float = 0.0  # worked out at first use, on top of the ids
    theirs_s: float = 0.0
    shown: list[str] = field(default_factory=list)


def open_model(path: Path) -> tuple[TextModel, tokenizers.Tokenizer, list[str]]:
    """The model of a tokenizer file, here and in the reference library; the added tokens.

    Raises:
        StiError: the file cannot be read, or is of a kind that is not.
    """
    fields = read_object(path)
    kind = fields.object("model").text("type")
    if kind not in READERS:
        raise StiError(f"{path}: {kind!r} is none of {', '.join(READERS)}")
    own = READERS[kind](fields)
    kind, words = KINDS[own.kind], "\n".join(own.words).encode()
    model = kind.model(own.settings, kind.indexing.vocabulary(words, None), own.tables)
    theirs = tokenizers.Tokenizer.from_file(str(path))
    theirs.no_padding()
    theirs.no_truncation()
    added = [item.text("content") for item in fields.objects("added_tokens")]
    return model, theirs, added


def load(path: Path, added: Sequence[str], most: int) -> Row:
    """The distinct lines of a text file."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="\n") as file:
        lines = dict.fromkeys(line.rstrip("\n") for line in file)
    kept = [line for line in lines if not any(token in line for token in added)]
    return Row(path.name, kept[:most])


def compare(row: Row, ours: TextModel, theirs: tokenizers.Tokenizer) -> None:
    """Count the lines on which the two differ, and the time each takes, in turns."""
    clock = time.process_time  # one thread works, and what else runs here does not count
    for at in range(0, len(row.lines), _TURN):
        lines = row.lines[at : at + _TURN]
        begin = clock()
        ids = [ours.ids(line, None, first=True) for line in lines]
        ids_done = clock()
        spans = [
            ours.spans(line, len(found), first=True) for line, found in zip(lines, ids, strict=True)
        ]
        spans_done = clock()
        wanted = [theirs.encode(line, add_special_tokens=False) for line in lines]
        end = clock()
        row.ids_s += ids_done - begin
        row.spans_s += spans_done - ids_done
        row.theirs_s += end - spans_done
        for line, found, places, right in zip(lines, ids, spans, wanted, strict=True):
            words = zip(right.offsets, right.word_ids, strict=True)
            same = found == right.ids and places == [(*span, word) for span, word in words]
            short = ours.ids(line, _SHORT, first=True)[:_SHORT] == right.ids[:_SHORT]
            if not (same and short):
                row.mismatches += 1
                row.shown += [line] if len(row.shown) < _SHOWN else []


def report(rows: Sequence[Row]) -> int:
    """Print the table; the exit code."""
    print(f"reference: tokenizers {tokenizers.__version__}; python {sys.version.split()[0]}")
    print("microseconds of processor time a line; the reference always works out the offsets")
    head = ("lines", "mismatches", "ids", "+offsets", "reference", "ids / it", "both / it")
    print(f"{'file':24}" + "".join(f"{name:>12}" for name in head))
    for row in rows:
        count = max(1, len(row.lines))
        times = (1e6 * s / count for s in (row.ids_s, row.spans_s, row.theirs_s))
        theirs_s = max(row.theirs_s, 1e-9)
        ratios = (row.ids_s / theirs_s, (row.ids_s + row.spans_s) / theirs_s)
        print(
            f"{row.name:24}{len(row.lines):12}{row.mismatches:12}"
            + "".join(f"{number:12.1f}" for number in times)
            + "".join(f"{number:12.2f}" for number in ratios)
        )
        for line in row.shown:
            print(f"    {line!r:.200}")
    return 1 if any(row.mismatches for row in rows) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tokenizer_lines",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="FILE")
    parser.add_argument("--most", type=int, default=1 << 62, metavar="N", help="lines of each file")
    parser.add_argument("texts", type=Path, nargs="+", metavar="TEXT")
    options = parser.parse_args(arguments)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        ours, theirs, added = open_model(options.tokenizer)
        rows = [load(path, added, options.most) for path in options.texts]
    except (OSError, StiError) as error:
        parser.error(str(error))
    for row in rows:
        compare(row, ours, theirs)
    return report(rows)


if __name__ == "__main__":
    sys.exit(main())
