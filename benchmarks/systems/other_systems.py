"""The other systems of the side-by-side comparison; creates their models if missing.

In: a model, a place to write to, the question, an interpreter. Out: ``System``s, and why others are
left out: their packages are not installed there, or they cannot convert the model. Every system of
that interpreter answers once before it is measured, which also fills OpenVINO's cache.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks import ort_models
from benchmarks.common import ROOT
from benchmarks.paper.format import SHARDS, Index
from benchmarks.paper.model import write_model
from benchmarks.side_by_side_systems import ALL, Model
from sti.benchmark.comparison import try_system
from sti.benchmark.system_child import System
from sti.benchmark.system_process import Spec
from sti.errors import RunError
from sti.units import parse_size

PAPER_BITS = (2, 6, 32)
"""Uniform fidelities of the paper's baselines; its planner chooses among all copies."""
PAPER_TARGET_S = 0.3
"""For its planner, which keeps all layers: the models here were not trained to lose any."""
GGUF = ("q8_0", "q4_0")
_THREADS = (("", 1), (ALL, None))

Tell = Callable[[str], None]
_Make = Callable[["_Place"], Iterator[System]]


class _Place:
    """What the systems of another interpreter are made of."""

    def __init__(self, model: Model, place: Path, spec: Spec, python: Path, tell: Tell) -> None:
        self.model, self.place, self.spec = model, place, spec
        self._python, self._tell = str(python), tell

    def system(self, name: str, module: str, spec: Spec, *files: Path) -> System:
        """A system of that interpreter."""
        module = f"benchmarks.systems.{module}"
        return System(name, module, spec, files, python=self._python, cwd=ROOT)

    def require(self, package: str) -> None:
        """See that the interpreter has a package.

        Raises:
            RunError: it has not; holds what it said last.
        """
        self._run("-c", f"import {package}")

    def convert(self, target: Path, module: str, *arguments: str | Path) -> None:
        """Let a module of that interpreter write ``target``, unless it is there.

        Raises:
            RunError: it cannot; holds what it said last.
        """
        if target.exists():
            return
        self._tell(f"writing {target.name}")
        self._run("-m", module, *map(str, arguments))

    def _run(self, *arguments: str) -> None:
        command = [self._python, *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RunError(done.stderr.strip().rpartition("\n")[2] or f"exit {done.returncode}")


def other_systems(
    model: Model, place: Path, spec: Spec, python: Path | None, *, tell: Tell
) -> tuple[list[System], list[str]]:
    """The paper's scheme, and what the interpreter ``python`` has.

    Args:
        model: what all models are made of.
        place: a directory of this model's own.
        spec: the question to our own engine; its preload goes for the paper's scheme, too.

    Returns:
        The systems, and a line for each that is left out.
    """
    found, left_out = _paper(model.checkpoint, place / "paper", spec, tell), []
    makers: dict[str, _Make] = {
        "CTranslate2": _ctranslate2,
        "OpenVINO": _openvino,
        "LiteRT": _litert,
        "llama.cpp": _llama,
        "accelerate": _accelerate,
    }
    if python is None:
        return found, [f"{', '.join(makers)}: no --python"]
    for name, make in makers.items():
        try:
            for system in make(_Place(model, place, spec, python, tell)):
                tell(f"trying {system.name}")
                try_system(system)
                found.append(system)
        except RunError as error:
            left_out.append(f"{name}: {error}")
    return found, left_out


def _paper(checkpoint: Path, place: Path, spec: Spec, tell: Tell) -> list[System]:
    if not (place / SHARDS).exists():
        tell("writing the paper's copies of every shard")
        write_model(checkpoint, place)
    preload = parse_size(str(spec.options["preload"]), name="preload")
    # Only the rows of the words at hand are read, as our own engine does: kinder than the paper.
    options = {"preload": preload, "words": "read"}
    module, file = "benchmarks.paper.system", str(place)
    files = tuple(path for path in sorted(place.iterdir()) if path.is_file())
    uniform = [
        System(
            f"paper's pipeline, {bits} bits",
            module,
            replace(spec, file=file, options={**options, "bits": bits}),
            files,
            cwd=ROOT,
        )
        for bits in PAPER_BITS
    ]
    name = f"paper's planner, {PAPER_TARGET_S * 1e3:.0f} ms"
    layers = Index.load(place).sizes.layers
    planned = replace(
        spec, file=file, options={**options, "latency": PAPER_TARGET_S, "layers": layers}
    )
    return [*uniform, System(name, module, planned, files, cwd=ROOT)]


def _ctranslate2(at: _Place) -> Iterator[System]:
    at.require("ctranslate2")
    model = at.place / "ctranslate2"
    at.convert(
        model,
        "ctranslate2.converters.transformers",
        *("--model", at.model.checkpoint, "--output_dir", model, "--quantization", "int8"),
    )
    for suffix, threads in _THREADS:
        spec = replace(at.spec, file=str(model), threads=threads, options={})
        name = f"CTranslate2 int8{suffix}"
        yield at.system(name, "ctranslate2_encoder", spec, model / "model.bin")


def _openvino(at: _Place) -> Iterator[System]:
    at.require("openvino")
    for kind, file in (("fp32", ort_models.FP32), ("int8", ort_models.INT8)):
        for suffix, threads in _THREADS:
            # A cache each: it is the files in it that are dropped before a cold start.
            cache = at.place / "openvino" / f"{kind}-{threads or 'all'}"
            path = at.model.onnx / file
            spec = replace(at.spec, file=str(path), threads=threads, options={"cache": str(cache)})
            first = at.system(f"OpenVINO {kind}{suffix}", "openvino_model", spec, path)
            if not cache.is_dir():
                try_system(first)
            yield replace(first, files=(path, *sorted(cache.iterdir())))


def _litert(at: _Place) -> Iterator[System]:
    at.require("ai_edge_litert")
    tokens = len(at.spec.ids[0])
    model = at.place / f"int8-{tokens}.tflite"
    at.convert(
        model,
        "benchmarks.systems.litert_model",
        at.model.checkpoint,
        model,
        "--tokens",
        f"{tokens}",
    )
    for suffix, threads in _THREADS:
        spec = replace(at.spec, file=str(model), threads=threads, options={})
        yield at.system(f"LiteRT int8{suffix}", "litert_encoder", spec, model)


def _llama(at: _Place) -> Iterator[System]:
    at.require("llama_cpp")
    for kind in GGUF:
        model = at.place / f"{kind}.gguf"
        at.convert(
            model, "benchmarks.systems.gguf_model", at.model.checkpoint, model, "--type", kind
        )
        for suffix, repack in (("", True), (", as mapped", False)):
            spec = replace(at.spec, file=str(model), options={"repack": repack})
            yield at.system(f"llama.cpp {kind}{suffix}", "llama_cpp", spec, model)


def _accelerate(at: _Place) -> Iterator[System]:
    at.require("accelerate")
    spec = replace(at.spec, file=str(at.model.checkpoint), options={})
    weights = at.model.checkpoint / "model.safetensors"
    yield at.system("accelerate, offloaded to disk", "torch_offload", spec, weights)
