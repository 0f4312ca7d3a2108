"""The systems of the side-by-side comparison that need this engine or ONNX Runtime alone.

In: a model in every form, the question. Out: ``System``s. Knows nothing of the others, which are in
`benchmarks.systems`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import ort_models, prepacked_models
from benchmarks.base_model import SIZES, Planting, write_checkpoint
from benchmarks.common import ROOT
from benchmarks.systems.prepacked import EMBED, HEAD, WHOLE, weights_file
from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from sti.benchmark.system_child import System
from sti.benchmark.system_process import Spec
from sti.calibration.sample_texts import SampleTexts
from sti.device import host
from sti.pack.pack_reader import PackReader

BITS, PRELOAD = 4, "2MB"
STI, INT8, FP32 = "STI", "ORT int8", "ORT fp32"
PREPACKED, IN_TURN, PIPE = (
    "ORT int8, prepacked and mapped",
    "ORT layers in turn",
    "ORT layers in a pipe",
)
STORAGE_ALONE = "STI's storage lane alone"
ALL = ", all cores"
"""Behind the name of a system that is given all cores; others compute on one thread."""
_STI_PACK, _ONNX = "sti.benchmark.systems.sti_pack", "sti.benchmark.systems.onnx_model"
_PREPACKED = "benchmarks.systems.prepacked"
_STORAGE_ALONE = "benchmarks.systems.storage_alone"

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Model:
    """One model in every form that is measured."""

    name: str
    checkpoint: Path
    pack: Path
    onnx: Path
    """The directory of `ort_models`."""
    prepacked: Path
    """The directory of `prepacked_models`."""


def make_model(name: str, work: Path, checkpoint: Path | None, tell: Tell) -> Model:
    """Make what is not there yet.

    Raises:
        ValueError: minilm without its checkpoint.
    """
    place = work / name
    if checkpoint is None:
        if name not in SIZES:
            raise ValueError(f"{name} needs --checkpoint")
        checkpoint = place / "checkpoint"
        if not (checkpoint / "model.safetensors").exists():
            tell(f"writing a checkpoint of the shape {name}")
            write_checkpoint(checkpoint, SIZES[name], Planting())
    onnx = place / "onnx"
    made = Model(
        name,
        checkpoint,
        place / f"{name}.sti.safetensors",
        onnx,
        prepacked_models.directory(onnx),
    )
    if not made.pack.exists():
        tell(f"building the pack of {name}")
        place.mkdir(parents=True, exist_ok=True)
        build(checkpoint, made.pack, BuildOptions(), progress=False)
    if not all((made.onnx / file).exists() for file in ort_models.FILES):
        tell(f"making the ONNX models of {name}")
        ort_models.make_models(checkpoint, made.onnx)
    tell(f"prepacked ONNX models of {name}: making those that are missing")
    prepacked_models.make_prepacked(checkpoint, made.prepacked)
    return made


def spec_of(model: Model, batch: int, tokens: int) -> Spec:
    """The question: ``batch`` texts of ``tokens`` tokens, on one thread."""
    with PackReader.open(model.pack) as reader:
        samples = SampleTexts(reader)
        texts = samples.texts(batch, min(tokens, reader.manifest.dimensions.max_tokens))
        ids = tuple(tuple(map(int, samples.tokenizer.encode(text).ids)) for text in texts)
    return Spec(str(model.pack), tuple(texts), ids, 1, {"fidelity": BITS, "preload": PRELOAD})


def few_systems(model: Model, spec: Spec) -> list[System]:
    """The systems of every table: ours and ONNX Runtime's."""
    found = [
        System(STI + suffix, _STI_PACK, replace(spec, threads=threads), (model.pack,))
        for suffix, threads in (("", 1), (ALL, host.core_count()))
    ]
    found.append(System(STORAGE_ALONE, _STORAGE_ALONE, spec, (model.pack,), cwd=ROOT))
    for name, file in ((FP32, ort_models.FP32), (INT8, ort_models.INT8)):
        path = model.onnx / file
        for suffix, threads in (("", 1), (ALL, None)):
            given = replace(spec, file=str(path), threads=threads, options={})
            found.append(System(name + suffix, _ONNX, given, (path,)))
    return found


def own_systems(model: Model, spec: Spec) -> list[System]:
    """The systems of the main table, other packages' left out."""
    few = few_systems(model, spec)
    in_turn = replace(spec, options={**spec.options, "mode": "sequential"})
    mapped = model.onnx / ort_models.FP32_EXTERNAL
    given = replace(spec, file=str(mapped), options={})
    optimized = model.onnx / ort_models.INT8_OPTIMIZED
    return [
        *few[:2],
        System("STI, load then execute", _STI_PACK, in_turn, (model.pack,)),
        *few[2:],
        System("ORT fp32, mapped", _ONNX, given, (mapped, weights_file(mapped))),
        System(
            "ORT int8, optimized beforehand",
            _ONNX,
            replace(given, file=str(optimized)),
            (optimized,),
        ),
        *prepacked_systems(model, spec),
    ]


def prepacked_systems(model: Model, spec: Spec) -> list[System]:
    """ONNX Runtime's best: prepacked and mapped, whole and layer by layer."""
    whole = [model.prepacked / WHOLE]
    layers = [model.prepacked / EMBED, *sorted(model.prepacked.glob("layer_*.onnx"))]
    layers.append(model.prepacked / HEAD)
    kinds: list[tuple[str, dict[str, Any], list[Path]]] = [
        (PREPACKED, {}, whole),
        (IN_TURN, {"layers": "turn"}, layers),
        (PIPE, {"layers": "pipe"}, layers),
    ]
    return [
        System(
            name + suffix,
            _PREPACKED,
            replace(spec, file=str(model.prepacked), threads=threads, options=options),
            tuple(item for path in paths for item in (path, weights_file(path)) if item.exists()),
            cwd=ROOT,
        )
        for name, options, paths in kinds
        for suffix, threads in (("", 1), (ALL, None))
    ]
