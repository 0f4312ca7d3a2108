"""What ``elastic.json`` says of a training run: its settings and results.

In: a trained network with its depths, the run's rows, scores. Out: a JSON-able document;
``shard_tools.checkpoint.elastic`` reads what ``build`` and ``rank`` need of it. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from shard_tools.checkpoint.elastic import VERSION
from shard_tools.progress import Progress
from shard_tools.train.dataset import Dataset, EncodedDataset
from shard_tools.train.fisher import ROWS, fisher_gains
from shard_tools.train.network import ElasticNetwork
from shard_tools.train.options import FinetuneOptions
from shard_tools.train.scoring import DevScore
from shard_tools.train.trainer import Trainer
from sti.version import __version__


def estimate_importance(
    network: ElasticNetwork, examples: EncodedDataset, options: FinetuneOptions, line: Progress
) -> dict[str, Any]:
    """The member ``importance``: the gains of all planes, estimated on rows kept out if any.

    Args:
        network: trained, with its code.
        line: is stepped by 1 a row, ``ROWS`` of them at most.
    """
    rows = examples.held if len(examples.held) else examples.training
    seed, regression = options.training.seed, options.task == "regression"
    blocks = []
    for name, gains in fisher_gains(network, rows, line, regression=regression, seed=seed).items():
        layer, kind = name.split(".")
        table = [[float(f"{gain:.4g}") for gain in row] for row in gains]
        blocks.append({"layer": int(layer), "kind": kind, "gains": table})
    return {"measure": "fisher", "examples": min(len(rows), ROWS), "blocks": blocks}


def elastic_report(
    options: FinetuneOptions, data: Dataset, scores: Sequence[DevScore], trainer: Trainer
) -> dict[str, Any]:
    """All members but ``importance``.

    Args:
        scores: of the milestones on dev rows.
        trainer: when training is done.
    """
    slices = trainer.network.sizes.slices
    return {
        "elastic": VERSION,
        "slices": slices,
        "depths": {str(depth): list(layers) for depth, layers in sorted(trainer.depths.items())},
        "widths": list(range(1, slices + 1)),
        "ladder": list(options.training.ladder),
        "task": options.task,
        "labels": list(data.labels),
        "rows": len(data.rows),
        "calibration_rows": len(data.held),
        "rows_left_out": data.left_out,
        "max_tokens": options.max_tokens,
        "precision": str(trainer.network.dtype).removeprefix("torch."),
        "training": asdict(options.training),
        "dev": [asdict(score) for score in scores],
        "generator": f"sti-shard {__version__}, torch {torch.__version__}",
    }
