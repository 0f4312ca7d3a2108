"""Narrower and shallower submodels run through the engine as what they are: a part of the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import sti
from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from sti.model.manifest import Submodel
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.plan import PlanRequest
from sti.planning.uniform import uniform_plan
from tests.support.checkpoints import write_checkpoint
from tests.support.packs import PROFILE, SHAPE, TEXTS

WIDTH = 2


@pytest.fixture
def half_empty(tmp_path: Path) -> Path:
    """A pack whose upper slices give nothing: values and neurons of theirs are zero.

    The full model then is its narrow submodel, to the bit: zeros add nothing to a sum, and do not
    change the largest activation either.
    """
    checkpoint = write_checkpoint(tmp_path / "checkpoint", shape=SHAPE, far=0)
    tensors = load_file(checkpoint / "model.safetensors")
    heads, neurons = SHAPE.hidden * WIDTH // SHAPE.heads, SHAPE.inner * WIDTH // SHAPE.heads
    for layer in range(SHAPE.layers):
        base = f"encoder.layer.{layer}"
        for part in ("weight", "bias"):
            tensors[f"{base}.attention.self.value.{part}"][heads:] = 0
            tensors[f"{base}.intermediate.dense.{part}"][neurons:] = 0
    save_file(tensors, checkpoint / "model.safetensors")
    build(checkpoint, tmp_path / "pack", BuildOptions(), progress=False)
    return tmp_path / "pack"


def vouching(path: Path, submodel: Submodel) -> PackReader:
    """The pack, opened, as if it vouched for one more submodel."""
    reader = PackReader.open(path)
    submodels = (*reader.manifest.submodels, submodel)
    reader.manifest = reader.manifest._replace(submodels=submodels)
    return reader


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_narrow_submodel_answers_as_the_model_without_its_upper_slices(
    half_empty: Path, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    submodel = Submodel(SHAPE.layers, WIDTH, tuple(range(SHAPE.layers)), 0.5)
    reader = vouching(half_empty, submodel)
    monkeypatch.setattr(PackReader, "open", lambda path, **_: reader)
    with sti.Engine.open(half_empty, fidelity=bits, threads=1, profile=PROFILE) as engine:
        full = engine.run(TEXTS)
        narrow_plan = uniform_plan(
            PlanRequest(engine.manifest, engine.pack_id, Workload(1, 8)),
            bits=bits,
            depth=3,
            width=WIDTH,
        )
        engine.set_target(plan=narrow_plan)
        narrow, straight = engine.run(TEXTS), engine.run(TEXTS, mode="sequential")
        engine.set_target(fidelity=bits)
        again = engine.run(TEXTS)
    assert (narrow.embeddings == straight.embeddings).all()
    assert (again.embeddings == full.embeddings).all()
    assert (narrow.embeddings == full.embeddings).all()


def test_a_shallow_submodel_runs_the_layers_the_pack_lists(
    half_empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = vouching(half_empty, Submodel(2, 4, (0, 2), 0.5))
    monkeypatch.setattr(PackReader, "open", lambda path, **_: reader)
    with sti.Engine.open(half_empty, fidelity=4, threads=1, profile=PROFILE) as engine:
        full = engine.run(TEXTS)
        plan = uniform_plan(
            PlanRequest(engine.manifest, engine.pack_id, Workload(1, 8)), bits=4, depth=2, width=4
        )
        engine.set_target(plan=plan)
        shallow = engine.run(TEXTS)
    computed = {span.name for span in shallow.trace.lanes["compute"]}
    assert {"0 attention 0", "2 ffn 0"} <= computed and "1 attention 0" not in computed
    assert shallow.bytes_read < full.bytes_read
    assert not np.allclose(shallow.embeddings, full.embeddings)
