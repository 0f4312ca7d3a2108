"""The other systems of the side-by-side comparison; creates their models if missing.

In: a checkpoint, a place to write to, the question. Out: ``System``s; those whose packages are not
installed are left out, and that is said.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.common import ROOT
from benchmarks.paper.format import SHARDS, Index
from benchmarks.paper.model import write_model
from sti.benchmark.comparison import System
from sti.benchmark.system_process import Spec
from sti.units import parse_size

PAPER_BITS = (2, 6, 32)
"""Uniform fidelities of the paper's baselines; its planner chooses among all copies."""
PAPER_TARGET_S = 0.3
"""For its planner, which keeps all layers: the models here were not trained to lose any."""
GGUF = ("q8_0", "q4_0")

Tell = Callable[[str], None]


def other_systems(
    checkpoint: Path, place: Path, spec: Spec, python: Path | None, *, tell: Tell
) -> list[System]:
    """The paper's scheme, and what the interpreter ``python`` has.

    Args:
        checkpoint: what all models are made of.
        place: a directory of this model's own.
        spec: the question to our own engine; its preload goes for the paper's scheme, too.
    """
    found = _paper(checkpoint, place / "paper", spec, tell)
    if python is None:
        tell("llama.cpp and accelerate are left out: no --python")
        return found
    return found + _llama(checkpoint, place, spec, python, tell) + _torch(checkpoint, spec, python)


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


def _llama(checkpoint: Path, place: Path, spec: Spec, python: Path, tell: Tell) -> list[System]:
    found = []
    for kind in GGUF:
        model = place / f"{kind}.gguf"
        if not model.exists():
            tell(f"writing {model.name}")
            done = subprocess.run(
                [
                    *(python, "-m", "benchmarks.systems.gguf_model"),
                    *(checkpoint, model, "--type", kind),
                ],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                tell(f"llama.cpp is left out: {done.stderr.strip().rpartition(chr(10))[2]}")
                return []
        found += [
            System(
                f"llama.cpp {kind}{suffix}",
                "benchmarks.systems.llama_cpp",
                replace(spec, file=str(model), options={"repack": repack}),
                (model,),
                python=str(python),
                cwd=ROOT,
            )
            for suffix, repack in (("", True), (", as mapped", False))
        ]
    return found


def _torch(checkpoint: Path, spec: Spec, python: Path) -> list[System]:
    weights = checkpoint / "model.safetensors"
    return [
        System(
            "accelerate, offloaded to disk",
            "benchmarks.systems.torch_offload",
            replace(spec, file=str(checkpoint), options={}),
            (weights,),
            python=str(python),
            cwd=ROOT,
        )
    ]
