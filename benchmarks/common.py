"""What the benchmarks share: the machine's line, figures of repeats, tables, texts of a length.

In: samples and cells. Out: Markdown or JSON of the same content. Knows no model and no engine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.backend.onnxruntime.release import ort_version
from sti.device.identity import machine_line
from sti.errors import StiError
from sti.pack.header import VOCABULARY
from sti.pack.pack_reader import PackReader
from sti.pack.tokenizer import pack_tokenizer

Cell = float | int | str | None

ROOT = Path(__file__).resolve().parents[1]
_SPECIAL_TOKENS = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, and how its numbers are formatted in Markdown."""

    name: str
    form: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table; JSON keeps full precision."""

    title: str
    columns: tuple[Column, ...]
    rows: list[tuple[Cell, ...]] = field(default_factory=list)

    def markdown(self) -> str:
        """The table with aligned columns."""
        cells = [[column.name for column in self.columns]]
        cells += [
            [_text(cell, column.form) for cell, column in zip(row, self.columns, strict=True)]
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return f"### {self.title}\n\n" + "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Title and rows, each an object by column name."""
        names = [column.name for column in self.columns]
        rows = [dict(zip(names, row, strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows}


@dataclass(slots=True)
class Report:
    """What a benchmark prints."""

    title: str
    about: list[str]
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """The report for people."""
        parts = [f"## {self.title}\n", "\n".join(f"- {line}" for line in self.about) + "\n"]
        parts += [table.markdown() for table in self.tables]
        if self.notes:
            parts.append("\n".join(f"- {line}" for line in self.notes) + "\n")
        return "\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        """The report for programs."""
        return {
            "title": self.title,
            "about": self.about,
            "tables": [table.to_json() for table in self.tables],
            "notes": self.notes,
        }

    def print(self, form: str) -> None:
        """Print as ``md`` or ``json``."""
        print(json.dumps(self.to_json(), indent=1) if form == "json" else self.markdown())


LIMITS = (Column("limit on"), Column("found", ".3f"), Column("limit"), Column("verdict"))
"""Columns of a table of limits; rows are made by ``at_most`` and ``at_least``."""


def at_most(name: str, found: float, limit: float) -> tuple[Cell, ...]:
    """A row of a table of limits."""
    return name, found, f"<= {limit:g}", "met" if found <= limit else "SHORT"


def at_least(name: str, found: float, limit: float) -> tuple[Cell, ...]:
    """A row of a table of limits."""
    return name, found, f">= {limit:g}", "met" if found >= limit else "SHORT"


def _text(cell: Cell, form: str) -> str:
    if cell is None:
        return "-"
    return cell if isinstance(cell, str) else format(cell, form)


def parser(module: str, description: str | None, example: str) -> argparse.ArgumentParser:
    """An argument parser with ``--output``; ``description`` is the module's docstring."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=description,
        epilog=f"example: python -m benchmarks.{module} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--output", choices=("md", "json"), default="md", help="default: md")
    return made


def add_rows(
    parser: argparse.ArgumentParser,
    rows: Collection[str],
    *,
    option: str = "--rows",
    usual: tuple[str, ...] | None = None,
) -> None:
    """The option that chooses some of a benchmark's rows.

    Args:
        usual: those that are chosen where it is not given; None: all.
    """

    def chosen(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        unknown = [name for name in found if name not in rows]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(rows)}")
        return found

    parser.add_argument(
        option,
        type=chosen,
        default=usual or tuple(rows),
        help=f"some of {','.join(rows)}; default: {','.join(usual) if usual else 'all'}",
    )


def positive(text: str) -> int:
    """An argument that is a number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def print_report(
    parser: argparse.ArgumentParser, options: argparse.Namespace, measure: Callable[[], Report]
) -> int:
    """Measure and print the report; what stands in the way is an error of usage."""
    try:
        report = measure()
    except (OSError, RuntimeError, ValueError, StiError) as error:
        parser.error(str(error))
    report.print(options.output)
    return 0


def repeat_on_pack(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    measure: Callable[..., Report],
    *,
    repeated: str,
    default: int,
) -> int:
    """Run and print a benchmark of one pack, ``measure(pack, repeats=...)``.

    Args:
        repeated: what is done again and again, for the help.
        default: how often.
    """
    parser.add_argument("pack", type=Path, metavar="PACK")
    parser.add_argument(
        "--repeats", type=int, default=default, help=f"{repeated} of each; default: {default}"
    )
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    return print_report(parser, options, lambda: measure(options.pack, repeats=options.repeats))


def about_machine() -> list[str]:
    """The machine, the software, and how busy the machine is at this moment."""
    load = os.getloadavg()[0]
    return [
        machine_line(),
        f"Python {platform.python_version()}, numpy {np.__version__}, onnxruntime {ort_version()}",
        f"load of the machine when the benchmark started: {load:.2f}",
    ]


def median(samples: Sequence[float]) -> float:
    """The median."""
    return float(np.median(samples))


def p95(samples: Sequence[float]) -> float:
    """The 95th percentile, interpolated."""
    return float(np.percentile(samples, 95))


def text_of(reader: PackReader, tokens: int, *, seed: int = 0) -> tuple[str, NDArray[np.int64]]:
    """A text of exactly ``tokens`` tokens, special ones included, and its ids.

    Made of words of the vocabulary that are one token each, spread over the whole of it, so that
    the token embeddings to be read lie as scattered as a real text's.
    """
    tokenizer = pack_tokenizer(reader)
    words = reader.resident(VOCABULARY).tobytes().decode("utf-8").split("\n")
    plain = [word for word in words if word.isascii() and word.isalpha() and word.islower()]
    rng = np.random.default_rng(seed)
    chosen = rng.choice(plain, size=tokens - _SPECIAL_TOKENS, replace=False)
    text = " ".join(map(str, chosen))
    ids = tokenizer.encode(text).ids
    if len(ids) != tokens:
        raise RuntimeError(f"{reader.path}: a text meant to have {tokens} tokens has {len(ids)}")
    return text, ids
