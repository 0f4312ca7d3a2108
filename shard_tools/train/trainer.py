"""The training loop: two stages, each a number of steps that can stop and continue anywhere.

In: a network, examples, options. Out: the trained network, a log line a logging interval, and a
state from which a killed run continues to the same result, to the bit. What a step trains is in
``stages``, when it comes in ``schedule``, how weights move in ``optimizing``, and what is kept on
storage in ``record``. Knows nothing of files' layout and nothing of labels' names.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from random import Random

import torch

from shard_tools.progress import Progress
from shard_tools.train.data import Batch, Examples, batches
from shard_tools.train.network import ElasticNetwork
from shard_tools.train.objective import label_loss
from shard_tools.train.optimizing import NotFiniteError, Optimizer
from shard_tools.train.options import TrainingOptions
from shard_tools.train.record import RunRecord
from shard_tools.train.reorder import sort_slices, spread_layers
from shard_tools.train.sampling import Sampler
from shard_tools.train.schedule import Schedule
from shard_tools.train.scoring import DevScore, metric, milestone_scores
from shard_tools.train.stages import ElasticSteps, PlainSteps, StageSteps
from shard_tools.train.state import Stage, State
from sti.errors import InputError, RunError

_MEASURING_ROWS = 1024
"""Training rows that the importance of heads and neurons is measured on."""


class Trainer:
    """One run of training, resumable from ``directory``. Not thread-safe.

    Attributes:
        network: as given; trained in place.
        depths: the layers that each depth keeps; empty until the plain stage is done.
    """

    def __init__(
        self,
        network: ElasticNetwork,
        training: Examples,
        dev: Examples,
        options: TrainingOptions,
        directory: Path,
        *,
        regression: bool,
        key: str,
    ) -> None:
        """Take over a network, and the state in ``directory`` where there is one.

        Args:
            directory: an existing one, for the state and the log.
            key: names data and options; a state with another key is refused.

        Raises:
            InputError: the directory holds the state of another run.
            StorageError: state or log cannot be read.
        """
        self.network = network
        self.depths: dict[int, tuple[int, ...]] = {}
        self._training, self._dev, self._regression = training, dev, regression
        self._options, self._schedule = options, Schedule(options, len(training))
        self._record = RunRecord(directory, key, save_s=options.save_s)
        self._teacher: ElasticNetwork | None = None
        self._enter("plain", 0)
        self._restore()

    @property
    def work_left(self) -> float:
        """What is left to do, in rows of the plain stage."""
        return self._schedule.work_left(self._stage, self._step)

    def train(self, line: Progress) -> list[DevScore]:
        """Train to the end, from wherever the state stands; the scores of the milestones.

        Args:
            line: shows the progress; its whole is ``work_left``.

        Raises:
            RunError: a loss or a weight is not a finite number; the last good state is kept.
            StorageError: state or log cannot be written.
        """
        options, regression = self._options, self._regression
        self._record.start_clock()
        if self._stage == "plain":
            self._run(PlainSteps(self.network, options, regression=regression), line)
            self._begin_elastic()
        teacher, sampler = self._teacher, self._sampler()
        assert teacher is not None, "the elastic stage begins with one"
        steps = ElasticSteps(self.network, teacher, sampler, options, regression=regression)
        self._run(steps, line)
        return self._scores()

    def _run(self, steps: StageSteps, line: Progress) -> None:
        """The steps of a stage from the current one on."""
        stage, schedule = steps.stage, self._schedule
        total, each = schedule.steps(stage), schedule.steps_per_epoch
        steps.begin()
        while self._step < total:
            epoch, done = divmod(self._step, each)
            what = f"{stage} training, epoch {epoch + 1} of {math.ceil(total / each)}"
            order = schedule.order(stage, epoch)
            rows = batches(self._training, self._options.batch, shuffle=order)
            for batch in islice(rows, done, done + total - self._step):
                self._optimizer.start(self._step / total)
                for name, loss in steps.step(batch, self._step):
                    self._record.note(name, loss)
                self._update()
                line.step(len(batch.rows) * schedule.cost(stage), what)
                if self._step % self._options.log_steps == 0:
                    self._record.log_losses(stage, self._step)
            if stage == "elastic" and self._step < total:
                scores = [asdict(score) for score in self._scores()]
                self._record.log({"stage": stage, "step": self._step, "dev": scores})
        steps.end()

    def _update(self) -> None:
        """One step of the optimizer; nothing that is not finite goes in or stays unnoticed."""
        if not self._record.losses_are_finite:
            raise self._not_finite("the loss")
        # Only now: the weights of the step before have proved good.
        if self._may_save() and self._record.is_due:
            self._save()
        try:
            self._optimizer.step()
        except NotFiniteError as error:
            raise self._not_finite(str(error)) from error
        self._step += 1

    def _not_finite(self, what: str) -> RunError:
        option = "--plain-rate" if self._stage == "plain" else "--rate"
        hint = f"try a lower {option}"
        if self._record.state_path.exists():
            path = self._record.state_path
            hint = f"the same command with a lower {option} continues from {path}"
        return RunError(
            f"{what} is not a finite number in step {self._step} of the {self._stage} stage; {hint}"
        )

    def _begin_elastic(self) -> None:
        """Sort slices, choose the layers of each depth, and keep the model as the teacher."""
        sort_slices(self.network, self._some_batches(), self._label_loss)
        self.depths = spread_layers(self.network.sizes.layers)
        self._teacher = self.network.copy()
        self._enter("elastic", 0)
        self._record.forget_losses()
        whole = self.network.whole()
        score = metric(self.network, self._dev, whole, regression=self._regression)
        self._record.log({"event": "plain stage done", "dev": score, "depths": self.depths})
        self._save()

    def _label_loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        return label_loss(logits, batch.targets, regression=self._regression)

    def _some_batches(self) -> list[Batch]:
        """Batches to measure the importance of heads and neurons on."""
        shuffle, found = Random(f"some {self._options.seed}"), []
        for batch in batches(self._training, self._options.batch, shuffle=shuffle):
            found.append(batch)
            if sum(len(item.rows) for item in found) >= _MEASURING_ROWS:
                break
        return found

    def _sampler(self) -> Sampler:
        options, slices = self._options, self.network.sizes.slices
        return Sampler(self.depths, slices, options.ladder, options.seed, options.passes)

    def _scores(self) -> list[DevScore]:
        """The metric of the milestones on dev rows, with the weights as they are."""
        return milestone_scores(
            self.network, self._sampler(), self._dev, regression=self._regression
        )

    def _enter(self, stage: Stage, step: int) -> None:
        """Be at a step of a stage. Words move in the plain one only: the teacher shares them."""
        options = self._options
        self._stage, self._step = stage, step
        self._optimizer = Optimizer(
            self.network,
            rate=self._schedule.rate(stage),
            head_rate=options.head_rate,
            decay=options.decay,
            words=stage == "plain",
        )

    def _may_save(self) -> bool:
        """Whether a run that continues from here comes to the same result.

        It begins by fitting grids and codebook, as an uninterrupted run does every ``refit_steps``.
        """
        return self.network.code is None or self._step % self._options.refit_steps == 0

    def _save(self) -> None:
        network, optimizer = self.network.state_dict(), self._optimizer.state()
        teacher = {} if self._teacher is None else self._teacher.state_dict()
        self._record.save(State(self._stage, self._step, self.depths, teacher, network, optimizer))

    def _restore(self) -> None:
        """Continue from the saved state, if there is one."""
        state = self._record.load()
        same_rates = state is None or self._take_over(state)
        self._record.wind_back(self._stage, self._step)
        if not same_rates:
            rates = {
                "rate": self._schedule.rate(self._stage),
                "head_rate": self._options.head_rate,
            }
            place = {"stage": self._stage, "step": self._step}
            self._record.log(place | {"event": "other rates from here on"} | rates)

    def _take_over(self, state: State) -> bool:
        """Be where a state stands; whether it was reached with the rates of this run."""
        try:
            self.network.load_state_dict(state.network)
            self._enter(state.stage, state.step)
            same_rates = self._optimizer.restore(state.optimizer)
            if state.teacher:
                self._teacher = self.network.copy()
                self._teacher.load_state_dict(state.teacher)
        except (RuntimeError, ValueError, LookupError) as error:
            raise InputError(
                f"{self._record.state_path}: does not fit the checkpoint; remove it to start again"
            ) from error
        self.depths = dict(state.depths)
        return same_rates
