"""What one step trains, in each of the two stages.

Stage ``plain`` fine-tunes the float model; stage ``elastic`` trains submodels and fidelities with
the plain model as the teacher. In: a batch, the number of the step. Out: gradients in the network,
and the losses they are of. All chance comes from the seed and the number of the step. Knows nothing
of rates, of the optimizer, or of what is kept on storage.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch

from shard_tools.train.augment import augmented
from shard_tools.train.data import Batch
from shard_tools.train.network import ElasticNetwork
from shard_tools.train.objective import hidden_loss, label_loss, pass_loss
from shard_tools.train.options import TrainingOptions
from shard_tools.train.sampling import Sampler
from shard_tools.train.state import Stage

Tensor = torch.Tensor


class StageSteps(Protocol):
    """The steps of one stage."""

    @property
    def stage(self) -> Stage:
        """Which one."""
        ...

    def begin(self) -> None:
        """Make the network ready for the first step, or for the one that a run continues with."""
        ...

    def step(self, batch: Batch, number: int) -> Iterator[tuple[str, Tensor]]:
        """Add the gradients of a batch, pass by pass; the name and the loss of each."""
        ...

    def end(self) -> None:
        """Leave the network as the next stage, or the user, is to find it."""
        ...


class PlainSteps:
    """Fine-tuning of the float model by the labels, with dropout."""

    stage: Stage = "plain"

    def __init__(
        self, network: ElasticNetwork, options: TrainingOptions, *, regression: bool
    ) -> None:
        self._network, self._options, self._regression = network, options, regression

    def begin(self) -> None:
        """Switch dropout on."""
        self._network.train()
        self._network.dropout = self._options.dropout

    def step(self, batch: Batch, number: int) -> Iterator[tuple[str, Tensor]]:
        """One pass of the whole model."""
        torch.manual_seed(self._options.seed + number)
        logits, _ = self._network(batch.tokens, self._network.whole())
        loss = label_loss(logits, batch.targets, regression=self._regression)
        loss.backward()
        yield "full", loss

    def end(self) -> None:
        """Switch dropout off."""
        self._network.dropout = 0.0
        self._network.eval()


class ElasticSteps:
    """Training of the full model and of submodels at all fidelities, all towards a teacher.

    Args:
        teacher: the plain model; not trained.
        sampler: chooses the passes of each step.
    """

    stage: Stage = "elastic"

    def __init__(
        self,
        network: ElasticNetwork,
        teacher: ElasticNetwork,
        sampler: Sampler,
        options: TrainingOptions,
        *,
        regression: bool,
    ) -> None:
        self._network, self._teacher, self._sampler = network, teacher, sampler
        self._options, self._regression = options, regression

    def begin(self) -> None:
        """Fit grids and codebook."""
        if self._options.ladder:
            self._network.use_code(self._options.ladder)

    def step(self, batch: Batch, number: int) -> Iterator[tuple[str, Tensor]]:
        """The full model, then the submodels, which also follow its hidden states."""
        network, options = self._network, self._options
        self._encode(number)
        tokens, counted = augmented(
            batch.tokens,
            options.seed + number,
            rows=options.augmented_rows,
            replaced=options.replaced_tokens,
        )
        with torch.no_grad():
            answers, _ = self._teacher(tokens, network.whole())

        def loss_of(logits: Tensor, hidden: Tensor | None) -> Tensor:
            regression = self._regression
            return pass_loss(
                logits, batch.targets, answers, hidden, regression=regression, counted=counted
            )

        logits, states = network(tokens, self._sampler.full())
        loss = loss_of(logits, None)
        loss.backward()
        yield "full", loss
        targets = [state.detach() for state in states]
        for what, run in self._sampler.others(number):
            logits, states = network(tokens, run)
            loss = loss_of(logits, hidden_loss(states, run.layers, targets, tokens.present))
            (loss * options.smallest_weight if what == "smallest" else loss).backward()
            yield what, loss

    def _encode(self, number: int) -> None:
        """Put the weights, which have moved, on their grids; from time to time on new ones."""
        code = self._network.code
        if code is None:
            return
        if number % self._options.refit_steps == 0:
            code.refit()
        else:
            code.encode()

    def end(self) -> None:
        """Fit grids and codebook to the final weights."""
        self.begin()
