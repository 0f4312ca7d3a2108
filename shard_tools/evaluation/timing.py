"""How long plans take on this machine, measured in turns, text by text.

In: a pack, plans and how to execute them, texts. Out: the median and the 95th percentile of each.
Every text is run under every plan before the next text, each time in a new random order, so that a
machine that is busy for a while slows all plans alike. The preload buffer is full before the clock
starts, as it is between the runs of an application.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shard_tools.evaluation.baselines import Contender
from sti.device.profile import DeviceProfile
from sti.engine.engine import Engine
from sti.errors import StiWarning
from sti.pack.pack_reader import PackReader
from sti.pack.tokenizer import pack_tokenizer
from sti.planning.cost_model import promised_s
from sti.text.encoding import Text


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from text to answer."""

    median_s: float
    p95_s: float
    measured: bool
    """Whether on this machine; else it is simulated from a device profile."""


def simulated(contender: Contender, profile: DeviceProfile) -> Latency:
    """The latency that the device profile predicts."""
    promised = promised_s(profile, contender.total_s, contender.plan.threads)
    return Latency(contender.total_s, promised, measured=False)


def measure(
    path: Path,
    contenders: Sequence[Contender],
    texts: Sequence[Text],
    *,
    profile: DeviceProfile,
    seed: int,
    step: Callable[[], None],
) -> list[Latency]:
    """Run every text under every contender, one text at a time.

    Args:
        contenders: at least one, none of them ``layerwise``; their plans must fit the pack.
        profile: says how many threads compute.
        step: called after each run.
    """
    rng = np.random.default_rng(seed)
    taken: list[list[float]] = [[] for _ in contenders]
    first = contenders[0].plan
    with (
        warnings.catch_warnings(),
        Engine.open(path, plan=first, threads=profile.threads, profile=profile) as engine,
    ):
        warnings.simplefilter("ignore", StiWarning)  # texts that are cut are counted elsewhere
        # The first round warms up graphs, buffers and threads.
        for number, text in enumerate([texts[0], *texts]):
            for index in rng.permutation(len(contenders)):
                contender = contenders[index]
                engine.set_target(plan=contender.plan)
                engine.preloaded()
                assert contender.mode != "layerwise", "the engine has no such mode"
                result = engine.run([text], mode=contender.mode)
                if number:
                    taken[index].append(result.timing.total_s)
                step()
    return [
        Latency(float(np.median(item)), float(np.percentile(item, 95)), measured=True)
        for item in taken
    ]


def token_counts(reader: PackReader, texts: Sequence[Text]) -> list[int]:
    """Tokens of each text, as the model sees it."""
    tokenizer = pack_tokenizer(reader)
    return [len(tokenizer.encode_text(text).ids) for text in texts]


def draw(texts: Sequence[Text], runs: int, *, seed: int) -> list[Text]:
    """``runs`` of the texts (at least one), all of them before any comes again."""
    rng = np.random.default_rng(seed)
    found: list[Text] = []
    while len(found) < runs:
        found += [texts[index] for index in rng.permutation(len(texts))]
    return found[:runs]
