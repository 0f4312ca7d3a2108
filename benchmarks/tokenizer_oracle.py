"""Compare the run-time tokenizer with the reference library on public data, and time both.

    python -m benchmarks.tokenizer_oracle --checkpoint DIR --data DIR

CHECKPOINT is a BERT-family directory with ``tokenizer.json``. DATA holds the sets below, each as
gzip, UTF-8, one header line, tab-separated, unquoted (WNUT-17: ``token<TAB>tag``, a blank line
between sentences, no header):

    sst2/train.tsv.gz              sentence ...              GLUE SST-2
    clinc150/*.tsv.gz              sentence ...              github.com/clinc/oos-eval
    stsb/train.tsv.gz, dev.tsv.gz  sentence1, sentence2 ...  GLUE STS-B
    wnut17/*.conll.gz              token, tag                github.com/leondz/emerging_entities_17

``benchmarks.tokenizer_lines`` compares tokenizers of other kinds, on text files. Here every
sentence is compared for ids, type ids, offsets and word ids with padding and truncation
off; STS-B also as pairs and WNUT-17 also as words split before, and every tenth case once more
with a limit of 17 tokens. Exit code 1 on any mismatch.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tokenizers

from shard_tools.checkpoint.tokenizer_files import load_tokenizer
from sti.errors import StiError
from sti.text.tokenizer import Tokenizer

Case = tuple[str, str | None] | list[str]  # a text and perhaps its pair, or words

_NO_LIMIT = 1_000_000
_SHORT = 17
_SHOWN = 5


@dataclass(slots=True)
class Row:
    """One line of the table: a set of sentences and what came of them."""

    name: str
    cases: list[Case]
    mismatches: int = 0
    ids_s: float = 0.0
    offsets_s: float = 0.0  # worked out at first use, on top of the ids
    theirs_s: float = 0.0
    shown: list[Case] = field(default_factory=list)


def lines(path: Path) -> list[str]:
    """The lines of a gzip file."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return [line.rstrip("\n") for line in file]


def column(path: Path, *indexes: int) -> Iterator[tuple[str, ...]]:
    """Columns of a tab-separated file without its header."""
    for line in lines(path)[1:]:
        cells = line.split("\t")
        yield tuple(cells[index] for index in indexes)


def sentences_of_words(path: Path) -> Iterator[list[str]]:
    """The sentences of a CoNLL file."""
    words: list[str] = []
    for line in [*lines(path), ""]:
        if line.strip():
            words.append(line.split("\t")[0])
        elif words:
            yield words
            words = []


def load(data: Path) -> list[Row]:
    """All sets, in the shapes they are tokenized in."""
    sst2 = [text for (text,) in column(data / "sst2" / "train.tsv.gz", 0)]
    clinc = [
        text for path in sorted((data / "clinc150").glob("*.tsv.gz")) for (text,) in column(path, 0)
    ]
    pairs = [
        (first, second)
        for name in ("train", "dev")
        for first, second in column(data / "stsb" / f"{name}.tsv.gz", 0, 1)
    ]
    wnut = [
        words
        for path in sorted((data / "wnut17").glob("*.conll.gz"))
        for words in sentences_of_words(path)
    ]
    return [
        Row("SST-2 train", [(text, None) for text in sst2]),
        Row("CLINC150", [(text, None) for text in clinc]),
        Row("STS-B train, dev", [(text, None) for pair in pairs for text in pair]),
        Row("STS-B pairs", list(pairs)),
        Row("WNUT-17", [(" ".join(words), None) for words in wnut]),
        Row("WNUT-17 as words", list(wnut)),
    ]


def compare(row: Row, ours: Tokenizer, theirs: tokenizers.Tokenizer, *, step: int = 1) -> None:
    """Count the cases on which the two differ, and the time each takes."""
    clock = time.perf_counter
    for case in row.cases[::step]:
        words = isinstance(case, list)
        begin = clock()
        got = ours.encode_words(case) if isinstance(case, list) else ours.encode(*case)
        ids_done = clock()
        offsets = got.offsets
        offsets_done = clock()
        wanted = theirs.encode(case, is_pretokenized=True) if words else theirs.encode(*case)
        end = clock()
        if step == 1:
            row.ids_s += ids_done - begin
            row.offsets_s += offsets_done - ids_done
            row.theirs_s += end - offsets_done
        same = (
            got.ids.tolist() == wanted.ids
            and got.type_ids.tolist() == wanted.type_ids
            and [tuple(pair) for pair in offsets.tolist()] == wanted.offsets
            and got.word_ids.tolist() == [-1 if w is None else w for w in wanted.word_ids]
        )
        if not same:
            row.mismatches += 1
            row.shown += [case] if len(row.shown) < _SHOWN else []


def report(rows: Sequence[Row]) -> int:
    """Print the table; the exit code."""
    print(f"reference: tokenizers {tokenizers.__version__}; python {sys.version.split()[0]}")
    print("microseconds a case; the reference always works out the offsets")
    print(f"{'set':18}{'cases':>8}{'mismatches':>12}{'ids':>8}{'+offsets':>10}{'reference':>11}")
    for row in rows:
        count = max(1, len(row.cases))
        ids, offsets, theirs = (
            f"{1e6 * seconds / count:.1f}" for seconds in (row.ids_s, row.offsets_s, row.theirs_s)
        )
        print(
            f"{row.name:18}{len(row.cases):8}{row.mismatches:12}{ids:>8}{offsets:>10}{theirs:>11}"
        )
        for case in row.shown:
            print(f"    {case!r}")
    total = sum(row.mismatches for row in rows)
    print(f"{'all':18}{sum(len(row.cases) for row in rows):8}{total:12}")
    return 1 if total else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tokenizer_oracle",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        spec, vocab, tables = load_tokenizer(options.checkpoint)
        rows = load(options.data)
    except (OSError, StiError) as error:
        parser.error(str(error))
    theirs = tokenizers.Tokenizer.from_file(str(options.checkpoint / "tokenizer.json"))
    theirs.no_padding()
    theirs.no_truncation()
    ours = Tokenizer(spec._replace(max_tokens=_NO_LIMIT), vocab, tables)
    ours_short = Tokenizer(spec._replace(max_tokens=_SHORT), vocab, tables)
    for row in rows:
        compare(row, ours, theirs)
    theirs.enable_truncation(_SHORT)
    for row in rows:
        compare(row, ours_short, theirs, step=10)
    return report(rows)


if __name__ == "__main__":
    sys.exit(main())
