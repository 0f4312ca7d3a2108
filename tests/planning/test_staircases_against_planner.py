"""Picking one of a pack's staircases is about as good as searching for a plan."""

from __future__ import annotations

from random import Random

import pytest

from sti.model.manifest import Manifest
from sti.model.quality import Quality
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.staircase_making import make_staircases
from tests.support.brute_force import with_curves
from tests.support.paths import INTENTS
from tests.support.staircases import cells, machines
from tests.support.synthetic import BERT_BASE, LADDER, MINILM, make_manifest

MOST_LOST = 0.003
"""Of a metric from 0 to 1, in the worst of all cells."""
MEAN_LOST = 0.0005
RANGE = 0.04
"""What the metric of a made-up model loses from the highest to the lowest fidelity."""


def intents() -> tuple[Manifest, Quality]:
    with PackReader.open(INTENTS) as reader:
        manifest = reader.manifest
    assert manifest.quality is not None
    return manifest, manifest.quality


def made_up(manifest: Manifest) -> tuple[Manifest, Quality]:
    """With the codebook of a real pack, at whose values narrow products lose little."""
    manifest = manifest._replace(codebook=intents()[0].codebook)
    most = float(make_staircases(manifest).loss.max())
    return manifest, Quality("accuracy", 1000, 0.004, (0.0, most), (0.97, 0.97 - RANGE))


def elastic() -> Manifest:
    sizes = [(n, m, 0.03 * (4 - n) + 0.02 * (4 - m)) for n in (2, 3, 4) for m in (2, 3, 4)]
    manifest = make_manifest(
        Random(5), layers=4, slices=4, ladder=LADDER, submodels=sizes[:-1], orders="ranked"
    )
    return with_curves(Random(6), manifest, share=0.7)


@pytest.mark.parametrize("narrow", [None, 0.7])
@pytest.mark.parametrize(
    ("name", "rooms", "preloads"),
    [
        ("intents", (0.0, 0.1, 0.35, 0.95), (0, 4 << 20)),
        ("elastic", (0.02, 0.3, 0.7), (0, 1 << 18)),
        ("MiniLM", (0.02, 0.2, 0.6), (0, 4 << 20)),
        ("BERT-base", (0.05, 0.4), (0,)),
    ],
)
def test_hardly_any_metric_is_lost(
    name: str, rooms: tuple[float, ...], preloads: tuple[int, ...], narrow: float | None
) -> None:
    if name == "intents":
        manifest, quality = intents()
    elif name == "elastic":
        manifest, quality = made_up(elastic())
    else:
        shape = MINILM if name == "MiniLM" else BERT_BASE
        manifest, quality = made_up(
            make_manifest(Random(1), ladder=LADDER, orders="ranked", **shape)
        )
    few = (1e8, 4e8, 4e9) if name == "elastic" else (2e8, 1.2e9)
    found = list(
        cells(
            manifest,
            make_staircases(manifest),
            quality,
            machines(few, (0.5, 3.0), (0.3, 1.5), narrow=narrow),
            (Workload(1, 64),),
            preloads,
            rooms,
        )
    )
    assert len(found) >= 0.9 * 4 * len(few) * len(preloads) * len(rooms)
    worst = max(found, key=lambda cell: cell.lost)
    assert worst.lost <= MOST_LOST, worst
    assert sum(cell.lost for cell in found) / len(found) <= MEAN_LOST
