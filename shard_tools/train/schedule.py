"""The order of the training steps: which rows each uses, and at which learning rate. Pure.

In: the options of a run, its number of rows. Out: the steps of each stage, the order of the rows in
each epoch, rates, and how much work is left from a step on. All chance comes from the seed, the
stage and the epoch, so a run that continues from any step sees the rows it would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from shard_tools.train.options import TrainingOptions
from shard_tools.train.state import Stage


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps of both stages. Safe to share."""

    options: TrainingOptions
    rows: int

    @property
    def steps_per_epoch(self) -> int:
        """Batches of all rows."""
        return self.options.steps(1, self.rows)

    def steps(self, stage: Stage) -> int:
        """Steps of a whole stage."""
        options = self.options
        return options.steps(
            options.plain_epochs if stage == "plain" else options.epochs, self.rows
        )

    def order(self, stage: Stage, epoch: int) -> Random:
        """What shuffles the rows of an epoch."""
        return Random(f"{stage} {self.options.seed} {epoch}")

    def rate(self, stage: Stage) -> float:
        """The learning rate of the encoder."""
        return self.options.plain_rate if stage == "plain" else self.options.rate

    def cost(self, stage: Stage) -> float:
        """What a row costs, relative to the plain stage; for the progress line."""
        return 1.0 if stage == "plain" else self.options.elastic_work

    def work_left(self, stage: Stage, step: int) -> float:
        """What is left to do after ``step`` steps of a stage, in rows of the plain stage."""
        plain, elastic = self.steps("plain"), self.steps("elastic")
        done = plain + step if stage == "elastic" else step
        left = max(plain - done, 0) + (plain + elastic - max(done, plain)) * self.cost("elastic")
        return left * self.rows / self.steps_per_epoch
