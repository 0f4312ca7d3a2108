"""Keeping a training run's state and log: how often, and what is logged.

In: losses, events, states. Out: ``state.bin``, from which a run that was stopped continues,
and ``training.jsonl``, which has every step once, however often the run was stopped. Knows nothing
of how a step is done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from shard_tools.train.state import Log, Stage, State, load_state, save_state

STATE = "state.bin"
LOG = "training.jsonl"


class RunRecord:
    """The files of one run. Not thread-safe.

    Args:
        directory: an existing one.
        key: names data and options; a state with another key is refused.
        save_s: seconds from one saved state to the next, at least.

    Attributes:
        state_path: where the state lies, if there is one.
    """

    def __init__(self, directory: Path, key: str, *, save_s: float) -> None:
        self.state_path = directory / STATE
        self._log = Log(directory / LOG)
        self._key, self._save_s = key, save_s
        self._losses: dict[str, list[float]] = {}
        self._saved = monotonic()

    def load(self) -> State | None:
        """The state to continue from; None for a new run.

        Raises:
            InputError: the file is no state, or that of another run.
            StorageError: it cannot be read.
        """
        return load_state(self.state_path, self._key)

    def wind_back(self, stage: Stage, step: int) -> None:
        """Drop what the log has of later steps: they come again."""
        self._log.wind_back(stage, step)

    def start_clock(self) -> None:
        """Count the time to the next saved state from now on."""
        self._saved = monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it is time to save the state again."""
        return monotonic() - self._saved >= self._save_s

    def save(self, state: State) -> None:
        """Replace the saved state.

        Raises:
            StorageError: it cannot be written.
        """
        save_state(self.state_path, self._key, state)
        self._saved = monotonic()

    def note(self, what: str, loss: torch.Tensor) -> None:
        """Remember a loss until the next ``log_losses``."""
        self._losses.setdefault(what, []).append(float(loss.detach()))

    @property
    def losses_are_finite(self) -> bool:
        """Whether all losses since the last ``log_losses`` are."""
        return all(math.isfinite(value) for values in self._losses.values() for value in values)

    def log_losses(self, stage: Stage, step: int) -> None:
        """Log the means of the losses since the last time.

        Raises:
            StorageError: the log cannot be written.
        """
        means = {what: round(sum(values) / len(values), 5) for what, values in self._losses.items()}
        self.forget_losses()
        self.log({"stage": stage, "step": step, "losses": means})

    def forget_losses(self) -> None:
        """Begin a new interval without logging the old one."""
        self._losses.clear()

    def log(self, record: Mapping[str, Any]) -> None:
        """Log a record.

        Raises:
            StorageError: the log cannot be written.
        """
        self._log.write(record)
