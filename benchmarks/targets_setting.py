"""What every row of the benchmark of targets is given, and what it gives back; and its texts.

In: a file of sentences. Out: texts of a number of words; plain values. Knows nothing of engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.common import Cell, Table
from benchmarks.targets_counting import Session
from shard_tools.data.rows import read_rows
from sti.errors import InputError

COMPARABLE = ", comparable"
"""Ends the names of such cases."""


@dataclass(frozen=True, slots=True)
class Case:
    """A pack, and how it is opened."""

    path: Path
    comparable: bool = False
    """Embeddings of one set of fidelities for all lengths, planned for 128 tokens."""

    @property
    def name(self) -> str:
        """For tables."""
        name = self.path.name.partition(".")[0]
        return name + COMPARABLE if self.comparable else name


@dataclass(slots=True)
class Budget:
    """Seconds for a row; what is left undone is told."""

    seconds: float
    started: float = field(default_factory=perf_counter)

    def over(self, share: float = 1.0) -> bool:
        """Whether that share of the time has passed."""
        return perf_counter() - self.started > self.seconds * share


@dataclass(slots=True)
class Setting:
    """What all rows share."""

    packs: tuple[Path, ...]
    """The first one is a classifier."""
    sentences: Sequence[str]
    data: Path
    """Where the sentences are from."""
    runs: int
    """Of the grid; other rows follow."""
    usual_runs: int
    seed: int
    budget: Budget
    sessions: list[Session] = field(default_factory=list)
    """Of the rows so far."""

    def scaled(self, runs: int, *, least: int = 2) -> int:
        """So many runs where the grid has as many as usual."""
        return max(least, round(runs * self.runs / self.usual_runs))

    def generator(self, *what: int) -> np.random.Generator:
        """Random numbers for a row."""
        return np.random.default_rng([self.seed, *what])


@dataclass(slots=True)
class Found:
    """What a row found."""

    limits: list[tuple[Cell, ...]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)


def sentences_of(path: Path) -> list[str]:
    """The single texts of a file (``shard_tools.data.rows``)."""
    found = [row.text for row in read_rows(path, labelled=False)]
    texts = [text for text in found if isinstance(text, str)]
    if not texts:
        raise InputError(f"{path}: has pairs of texts; single ones are needed")
    return texts


def text_of_words(sentences: Sequence[str], words: int, rng: np.random.Generator) -> str:
    """Sentences one after the other, cut to so many words."""
    found: list[str] = []
    while len(found) < words:
        found += sentences[int(rng.integers(len(sentences)))].split()
    return " ".join(found[:words])
