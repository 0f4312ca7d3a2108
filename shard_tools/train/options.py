"""The options of ``finetune``; a run resumes only with the same ones, learning rates excepted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from shard_tools.data.rows import Task


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How steps are done."""

    epochs: float
    """Of the elastic stage."""
    plain_epochs: float
    batch: int
    rate: float
    """Learning rate of the encoder in the elastic stage; the head's is ``head_rate`` in both."""
    plain_rate: float
    """That of the encoder in the plain stage."""
    head_rate: float
    passes: int
    """Random submodels a step."""
    seed: int
    ladder: tuple[int, ...]
    """Fidelities in the loop; empty to train float weights only."""
    decay: float = 0.01
    dropout: float = 0.1
    """In the plain stage."""
    augmented_rows: float = 0.5
    """Share of rows in the elastic stage that get tokens of other rows."""
    replaced_tokens: float = 0.2
    """Share of the tokens of such a row."""
    smallest_weight: float = 0.3
    """Of the smallest submodel's loss, where that of all others is 1."""
    refit_steps: int = 50
    """Steps between two fits of grids and codebook."""
    save_s: float = 120.0
    log_steps: int = 20

    def steps(self, epochs: float, rows: int) -> int:
        """Steps in so many passes over so many rows."""
        return round(epochs * math.ceil(rows / self.batch))

    @property
    def elastic_work(self) -> float:
        """What a row costs in the elastic stage, relative to the plain one; for progress."""
        return 1.9 + 0.7 * self.passes


@dataclass(frozen=True, slots=True)
class FinetuneOptions:
    """All choices."""

    training: TrainingOptions
    task: Task
    slices: int | None = None
    max_tokens: int = 128
    calibration_rows: int = 1000
    calibration_whole: bool = False
    """Hold out only rows that are no part of another."""
    calibration_share: float = 1.0
    """Hold out among this share of each label's rows, those most unlike all others."""
    threads: int | None = None
    precision: str = "auto"
