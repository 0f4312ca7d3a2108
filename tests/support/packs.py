"""Small packs for tests of the run time, built once per test run."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from benchmarks import base_model
from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from sti.device.lane_profiles import (
    THREAD_NAMES,
    ComputeProfile,
    DecodeProfile,
    RunProfile,
    StorageProfile,
)
from sti.device.lanes import COMPUTE, DECODE, LANES, STORAGE
from sti.device.profile import DeviceProfile
from tests.support.checkpoints import Shape, Task, write_checkpoint
from tests.support.family_checkpoints import write_mpnet

SHAPE = Shape(layers=3, hidden=32, heads=4, inner=64, positions=48)

TINY_BERT = base_model.Shape(layers=2, hidden=64, heads=4, inner=128, vocabulary=400, positions=64)
"""What benchmarks are tried on."""

GROUP_BYTES = 512
"""So small that every block of a tiny pack is two slice groups."""

TEXTS = ("the dog runs", "a red house", "under the table a cat runs and runs", "dog cat")

PROFILE = DeviceProfile(
    device="a made-up machine",
    threads=1,
    lanes={
        STORAGE: StorageProfile(direct=True, request_s=1e-4, bytes_per_s=1e9, row_s=1e-6),
        DECODE: DecodeProfile(shard_s=1e-6, weight_s={2: 1e-9, 3: 2e-9, 4: 3e-9, 6: 8e-9, 8: 9e-9}),
        COMPUTE: ComputeProfile(
            dict.fromkeys(
                ("embed", "attention", "ffn", "connect", "head"), (1e-4, 0.0, 1e-7, 1e-8, 0.0)
            )
        ),
    },
    runs={
        name: RunProfile(dict.fromkeys(LANES, 1.0), step_s=0.0, fixed_s=1e-4, jitter=1.0)
        for name in THREAD_NAMES
    },
    tokenize_s=1e-6,
)
"""Times that make plans on every test machine the same."""


@cache
def _directory() -> Path:
    return Path(mkdtemp(prefix="sti-test-packs-"))


@cache
def distance_pack() -> Path:
    """A tiny pack whose attention depends on how far tokens are apart, of several slice groups."""
    checkpoint = write_mpnet(_directory() / "mpnet", SHAPE)
    target = _directory() / "mpnet.sti.safetensors"
    build(checkpoint, target, BuildOptions(group_bytes=GROUP_BYTES), progress=False)
    return target


@cache
def tiny_pack(task: Task = "embedding", *, slices: int | None = None, seed: int = 0) -> Path:
    """The path of a pack of a random checkpoint; shared, so do not change it."""
    name = f"{task}-{slices}-{seed}"
    checkpoint = write_checkpoint(_directory() / name, task=task, shape=SHAPE, seed=seed)
    path = _directory() / f"{name}.sti.safetensors"
    options = BuildOptions(slices=slices, group_bytes=GROUP_BYTES)
    build(checkpoint, path, options, progress=False)
    return path


@cache
def tiny_bert() -> Path:
    """A directory with a ``checkpoint`` of the shape ``TINY_BERT``, a ``pack`` and ONNX ``models``.

    Shared, so do not change it.
    """
    from benchmarks import ort_models  # brings in a quantizer that few tests need

    place = _directory() / "bert"
    base_model.write_checkpoint(place / "checkpoint", TINY_BERT, base_model.Planting(), seed=3)
    ort_models.make_models(place / "checkpoint", place / "models")
    build(place / "checkpoint", place / "pack", BuildOptions(), progress=False)
    return place
