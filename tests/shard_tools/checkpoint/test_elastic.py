"""What a checkpoint was trained for: read by the builder, checked, noted in the pack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sti
from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from tests.support.checkpoints import write_checkpoint
from tests.support.packs import SHAPE

ELASTIC = {
    "elastic": 1,
    "slices": 4,
    "depths": {"1": [1], "2": [0, 2], "3": [0, 1, 2]},
    "widths": [1, 3, 4],
}


def test_the_builder_notes_what_a_checkpoint_was_trained_for(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", task="classification", shape=SHAPE)
    sizes = ELASTIC | {"slices": 2, "widths": [1, 2]}
    (checkpoint / "elastic.json").write_text(json.dumps(sizes))
    manifest = build(checkpoint, tmp_path / "pack", BuildOptions(), progress=False).manifest
    assert manifest.dimensions.slices == 2
    assert manifest.notes["depths"] == ELASTIC["depths"]
    assert manifest.notes["widths"] == [1, 2]
    assert len(manifest.submodels) == 1
    with pytest.raises(sti.InputError, match="was trained to be cut into 2 slices, not 4"):
        build(checkpoint, tmp_path / "pack", BuildOptions(slices=4), progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elastic": 2}, "version 2 is unknown"),
        ({"elastic": None}, "expected a JSON object"),
        ({"slices": 0}, "slices must be"),
        ({"depths": []}, "depths must map"),
        ({"depths": {"2": [0, 3]}}, r"depths\['2'\] must list ascending numbers from 0 to 2"),
        ({"depths": {"2": [1, 0]}}, r"depths\['2'\] must list ascending"),
        ({"depths": {"two": [0, 1]}}, r"depths\['two'\] lists 2 layers"),
        ({"widths": [1, 5]}, "widths must list ascending numbers from 1 to 4"),
        ({"widths": None}, "widths must list"),
    ],
)
def test_a_malformed_elastic_json_is_refused(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", task="classification", shape=SHAPE)
    (checkpoint / "elastic.json").write_text(json.dumps(ELASTIC | change))
    with pytest.raises(sti.CheckpointError, match=message):
        build(checkpoint, tmp_path / "pack", BuildOptions(), progress=False)
    assert not (tmp_path / "pack").exists()
