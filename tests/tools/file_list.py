"""Write ``docs/files.md``: every Python file of the project with the first line of its docstring.

    python -m tests.tools.file_list

A test fails where the page is not what this writes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "files.md"

FOLDERS = {
    "sti": "The run time: the public API, and what every package may use.",
    "sti/storage": "Reading byte ranges, and writing files whole.",
    "sti/codec": "The nested code: planes of a shard to int8 weights. Pure.",
    "sti/codec/native": "The same in C, loaded through ctypes; compiled by `kernel_build`.",
    "sti/text": "Text to token ids.",
    "sti/model": "What a model is: manifest, quality, fidelities. Pure.",
    "sti/device": "What a machine is: cores, memory, profiles, emulated storage.",
    "sti/graphs": "What graphs of packs may be, so that those of strangers do no harm.",
    "sti/pack": "What a pack file is, and whether it is sound.",
    "sti/planning": "What to read, decode and compute for a target. Pure.",
    "sti/backend": "Back ends: the interface, and the buffers that each of them fills.",
    "sti/backend/onnxruntime": "The back end on ONNX Runtime; no other package imports it.",
    "sti/pipeline": "Running a plan: threads, buffers, executors, trace.",
    "sti/exchange": "Messages between several devices, over one of several transports.",
    "sti/exchange/zeromq": "The transport over ZeroMQ: encrypted, between any devices.",
    "sti/calibration": "Measuring this machine, and remembering it.",
    "sti/devices": "Several devices that run one plan: workers, controller, chains of layers.",
    "sti/engine": "The public API: targets, plans, answers.",
    "sti/report": "Tables and words for people.",
    "sti/report/page": "The page of `sti report`, from values to HTML. Pure.",
    "sti/report/svg": "Pictures: timelines, charts, heat maps, bars. Pure.",
    "sti/testing": "For tests of readers, of engines and of apps: reads that go wrong.",
    "sti/benchmark": "Measuring whole runs, and comparing with other systems.",
    "sti/benchmark/systems": "Systems under test, each in a process of its own.",
    "sti/cli": "The `sti` command, one module per subcommand.",
    "shard_tools": "The offline tool, `sti-shard`: checkpoints in, packs out.",
    "shard_tools/checkpoint": "Checkpoints: Hugging Face model directories, in float.",
    "shard_tools/architectures": "Model families: checkpoint names to slices, float reference.",
    "shard_tools/architectures/encoder": "Post-norm encoders, by what their family states.",
    "shard_tools/architectures/bert": "BERT.",
    "shard_tools/architectures/distilbert": "DistilBERT.",
    "shard_tools/architectures/electra": "ELECTRA.",
    "shard_tools/architectures/mpnet": "MPNet.",
    "shard_tools/architectures/roberta": "RoBERTa, XLM-RoBERTa and CamemBERT.",
    "shard_tools/architectures/heads": "What follows the last layer, in all families.",
    "shard_tools/graphs": "The ONNX graphs that travel in a pack.",
    "shard_tools/quantization": "Float weights to grids, codebook, planes and outliers.",
    "shard_tools/packing": "Building and rewriting packs.",
    "shard_tools/inspection": "What a pack holds, as text.",
    "shard_tools/data": "Labelled texts.",
    "shard_tools/measuring": "Forward passes at any fidelity, and how good their answers are.",
    "shard_tools/ranking": "Importance of shards and quality of plans, by measurement.",
    "shard_tools/train": "Training for elasticity; the only part that needs torch.",
    "shard_tools/evaluation": "Plans compared with baselines, on labelled data.",
    "shard_tools/cli": "The `sti-shard` command.",
    "kernel_build": "Compiling the native kernel, and the wheel that holds it for every processor.",
    "examples": "Scripts to copy.",
    "benchmarks": "Speed and quality, compared with limits, ceilings and references.",
    "benchmarks/devices": "Several devices against one, emulated, over emulated networks.",
    "benchmarks/network": "Networks of emulated devices, in namespaces joined by a switch.",
    "benchmarks/paper": "The scheme of the STI paper, as a system to compare with.",
    "benchmarks/systems": "Other systems of the comparison.",
    "tests": "Tests; their folders mirror the packages.",
    "tests/fuzz": "Readers of bytes from outside, given inputs that reach ever more of them.",
    "tests/support": "What tests share.",
    "tests/tools": "Generators of tables and golden files.",
}
"""Folders in the order of the page; tests of a package are not listed one by one."""


def page() -> str:
    """The text of the page."""
    parts = [
        "# Files",
        "Python files, one line each, of their docstrings, by `python -m tests.tools.file_list`.",
    ]
    for folder, what in FOLDERS.items():
        lines = [f"- `{path.name}`: {summary(path)}" for path in files(folder)]
        parts.append("\n\n".join([f"## {folder}", what, *(["\n".join(lines)] if lines else [])]))
    return "\n\n".join(parts) + "\n"


def files(folder: str) -> Iterator[Path]:
    """The modules of a folder that have something to say."""
    for path in sorted((ROOT / folder).glob("*.py")):
        if path.name != "__init__.py" or path.read_text(encoding="utf-8"):
            yield path


def summary(path: Path) -> str:
    """The first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
