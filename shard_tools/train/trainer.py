"""The training loop: two stages, each a number of steps that can stop and go on anywhere.

Stage ``plain`` fine-tunes the float model; stage ``elastic`` trains submodels and fidelities with
the plain model as the teacher. In: a network, examples, options. Out: the trained network, a log
line a logging interval, and a state from which a killed run goes on to the same result, to the
bit. All randomness comes from the seed and the number of the step. Knows nothing of files' layout
and nothing of labels' names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from random import Random
from time import monotonic

import torch

from shard_tools.progress import Progress
from shard_tools.train.augment import augmented
from shard_tools.train.data import Batch, Examples, batches
from shard_tools.train.network import ElasticNetwork, Pass
from shard_tools.train.objective import hidden_loss, label_loss, pass_loss
from shard_tools.train.optimizing import NotFiniteError, Optimizer
from shard_tools.train.options import TrainingOptions
from shard_tools.train.reorder import sort_slices, spread_layers
from shard_tools.train.sampling import Sampler, milestones
from shard_tools.train.scoring import DevScore, metric
from shard_tools.train.state import Log, Stage, State, load_state, save_state
from sti.errors import InputError, RunError

Tensor = torch.Tensor
STATE = "state.pt"
LOG = "training.jsonl"
_MEASURING_ROWS = 1024
"""Training rows that the importance of heads and neurons is measured on."""


class Trainer:
    """One run of training, resumable from ``directory``. Not thread-safe."""

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
        self.network, self.options = network, options
        self.depths: dict[int, tuple[int, ...]] = {}
        self._training, self._dev = training, dev
        self._state, self._log = directory / STATE, Log(directory / LOG)
        self._regression, self._key = regression, key
        self._line = Progress(1.0, shown=False)
        self._teacher: ElasticNetwork | None = None
        self._enter("plain", 0)
        self._losses: dict[str, list[float]] = {}
        self._saved = monotonic()
        self._restore()

    @property
    def work_left(self) -> float:
        """What is left to do, in rows of the plain stage."""
        plain, elastic = self._steps_of("plain"), self._steps_of("elastic")
        done = plain + self._step if self._stage == "elastic" else self._step
        left = max(plain - done, 0) + (plain + elastic - max(done, plain)) * self._cost("elastic")
        return left * len(self._training) / self._steps_an_epoch

    def train(self, line: Progress) -> list[DevScore]:
        """Train to the end, from wherever the state stands; the scores of the milestones.

        Args:
            line: shows the progress; its whole is ``work_left``.

        Raises:
            RunError: a loss or a weight is not a finite number; the last good state is kept.
            StorageError: state or log cannot be written.
        """
        self._line, self._saved = line, monotonic()
        if self._stage == "plain":
            self._run_plain()
            self._prepare_elastic()
        self._run_elastic()
        return self._scores()

    # Stages

    def _run_plain(self) -> None:
        options, network = self.options, self.network
        network.train()
        network.dropout = options.dropout
        for batch in self._steps():
            torch.manual_seed(options.seed + self._step)
            logits, _ = network(batch.tokens, self._whole())
            loss = label_loss(logits, batch.targets, regression=self._regression)
            loss.backward()
            self._note("full", loss)
        network.dropout = 0.0
        network.eval()

    def _prepare_elastic(self) -> None:
        """Sort slices, and keep the model as it is as the teacher."""

        def loss(logits: Tensor, batch: Batch) -> Tensor:
            return label_loss(logits, batch.targets, regression=self._regression)

        network, seed = self.network, self.options.seed
        some = []
        for batch in batches(self._training, self.options.batch, shuffle=Random(f"some {seed}")):
            some.append(batch)
            if sum(len(item.rows) for item in some) >= _MEASURING_ROWS:
                break
        sort_slices(network, some, loss)
        self.depths = spread_layers(network.sizes.layers)
        self._teacher = network.copy()
        self._enter("elastic", 0)
        self._losses.clear()
        score = metric(network, self._dev, self._whole(), regression=self._regression)
        self._log.write({"event": "plain stage done", "dev": score, "depths": self.depths})
        self._save()

    def _run_elastic(self) -> None:
        options, network = self.options, self.network
        sampler = self._sampler()
        if options.ladder:
            network.use_code(options.ladder)
        for batch in self._steps():
            if network.code is not None:
                if self._step % options.refit_steps == 0:
                    network.code.refit()
                else:
                    network.code.encode()
            self._elastic_step(batch, sampler)
        if options.ladder:
            network.use_code(options.ladder)

    def _elastic_step(self, batch: Batch, sampler: Sampler) -> None:
        network, options, teacher = self.network, self.options, self._teacher
        assert teacher is not None
        tokens, counted = augmented(
            batch.tokens,
            options.seed + self._step,
            rows=options.augmented_rows,
            replaced=options.replaced_tokens,
        )
        with torch.no_grad():
            answers, _ = teacher(tokens, self._whole())

        def loss_of(logits: Tensor, hidden: Tensor | None) -> Tensor:
            regression = self._regression
            return pass_loss(
                logits, batch.targets, answers, hidden, regression=regression, counted=counted
            )

        logits, states = network(tokens, sampler.full())
        loss = loss_of(logits, None)
        loss.backward()
        self._note("full", loss)
        targets = [state.detach() for state in states]
        for what, run in sampler.others(self._step):
            logits, states = network(tokens, run)
            loss = loss_of(logits, hidden_loss(states, run.layers, targets, tokens.present))
            (loss * options.smallest_weight if what == "smallest" else loss).backward()
            self._note(what, loss)

    def _whole(self) -> Pass:
        """The float model."""
        sizes = self.network.sizes
        return Pass(tuple(range(sizes.layers)), sizes.slices, None)

    def _sampler(self) -> Sampler:
        options = self.options
        slices = self.network.sizes.slices
        return Sampler(self.depths, slices, options.ladder, options.seed, options.passes)

    def _scores(self) -> list[DevScore]:
        """The metric of the milestones on dev rows, with the weights as they are."""
        sizes, ladder = self.network.sizes, self.options.ladder
        if self.network.code is not None:
            self.network.code.refit()
        sampler = self._sampler()
        found: dict[tuple[int, int, int], DevScore] = {}
        for depth, width, bits in milestones(sizes.layers, sizes.slices, ladder or (0,)):
            run = sampler.uniform(depth, width, bits)
            value = metric(self.network, self._dev, run, regression=self._regression)
            found[depth, width, bits] = DevScore(depth, width, bits, round(value, 5))
        return list(found.values())

    # Steps

    def _steps(self) -> Iterator[Batch]:
        """The stage's batches from the current step on; after each the optimizer steps."""
        options, each, total = self.options, self._steps_an_epoch, self._steps_of(self._stage)
        while self._step < total:
            epoch, skip = divmod(self._step, each)
            order = Random(f"{self._stage} {options.seed} {epoch}")
            what = f"{self._stage} training, epoch {epoch + 1} of {math.ceil(total / each)}"
            for place, batch in enumerate(batches(self._training, options.batch, shuffle=order)):
                if place < skip or self._step >= total:
                    continue
                self._optimizer.start(self._step / total)
                yield batch
                self._update()
                self._line.step(len(batch.rows) * self._cost(self._stage), what)
                if self._step % options.log_steps == 0:
                    self._log_losses()
            if self._stage == "elastic" and self._step < total:
                scores = [asdict(score) for score in self._scores()]
                self._log.write({"stage": self._stage, "step": self._step, "dev": scores})

    def _update(self) -> None:
        """One step of the optimizer; nothing that is not finite goes in or stays unnoticed."""
        if not all(math.isfinite(value) for values in self._losses.values() for value in values):
            raise self._astray("the loss")
        # Only now: the weights of the step before have proved good.
        if self._may_save() and monotonic() - self._saved >= self.options.save_s:
            self._save()
        try:
            self._optimizer.step()
        except NotFiniteError as error:
            raise self._astray(str(error)) from error
        self._step += 1

    def _steps_of(self, stage: Stage) -> int:
        options = self.options
        epochs = options.plain_epochs if stage == "plain" else options.epochs
        return options.steps(epochs, len(self._training))

    @property
    def _steps_an_epoch(self) -> int:
        return self.options.steps(1, len(self._training))

    @property
    def _rate(self) -> float:
        """Of the encoder in the current stage."""
        return self.options.plain_rate if self._stage == "plain" else self.options.rate

    def _cost(self, stage: Stage) -> float:
        """Of a row, relative to the plain stage."""
        return 1.0 if stage == "plain" else self.options.elastic_work

    def _enter(self, stage: Stage, step: int) -> None:
        """Be at a step of a stage. Words move in the plain one only: the teacher shares them."""
        options = self.options
        self._stage, self._step = stage, step
        self._optimizer = Optimizer(
            self.network,
            rate=self._rate,
            head_rate=options.head_rate,
            decay=options.decay,
            words=stage == "plain",
        )

    def _astray(self, what: str) -> RunError:
        option = "--plain-rate" if self._stage == "plain" else "--rate"
        hint = f"try a lower {option}"
        if self._state.exists():
            hint = f"the same command with a lower {option} goes on from {self._state}"
        return RunError(
            f"{what} is not a finite number in step {self._step} of the {self._stage} stage; {hint}"
        )

    # Log and state

    def _note(self, what: str, loss: Tensor) -> None:
        self._losses.setdefault(what, []).append(float(loss.detach()))

    def _log_losses(self) -> None:
        """The mean losses since the last time."""
        losses = {
            what: round(sum(values) / len(values), 5) for what, values in self._losses.items()
        }
        self._losses.clear()
        self._log.write({"stage": self._stage, "step": self._step, "losses": losses})

    def _may_save(self) -> bool:
        """A run that goes on fits grids and book anew; so does one that never stopped, but rarely.

        Only where both do will they come to the same result.
        """
        return self.network.code is None or self._step % self.options.refit_steps == 0

    def _save(self) -> None:
        network, optimizer = self.network.state_dict(), self._optimizer.state()
        teacher = {} if self._teacher is None else self._teacher.state_dict()
        state = State(self._stage, self._step, self.depths, teacher, network, optimizer)
        save_state(self._state, self._key, state)
        self._saved = monotonic()

    def _restore(self) -> None:
        state = load_state(self._state, self._key)
        if state is not None:
            try:
                self.network.load_state_dict(state.network)
                self._enter(state.stage, state.step)
                same = self._optimizer.restore(state.optimizer)
                if state.teacher:
                    self._teacher = self.network.copy()
                    self._teacher.load_state_dict(state.teacher)
            except (RuntimeError, ValueError, LookupError) as error:
                raise InputError(
                    f"{self._state}: does not fit the checkpoint; remove it to start anew"
                ) from error
            self.depths = dict(state.depths)
        self._log.wind_back(self._stage, self._step)
        if state is not None and not same:
            place = {"stage": self._stage, "step": self._step, "event": "other rates from here on"}
            self._log.write(place | {"rate": self._rate, "head_rate": self.options.head_rate})
