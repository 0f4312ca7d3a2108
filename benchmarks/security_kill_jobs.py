"""Commands and writers that are killed, for ``security_kills``: inputs, and a process that forks.

    python -m benchmarks.security_kill_jobs

In: lines of JSON on standard input, each a job and the directory to do it in. Out: for each a line
with the number of the process that does it, and one with its status when it has ended. That process
is forked from this one, in which everything is imported already, so that kills hit the work and not
the imports.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from shard_tools.cli.main import main as sti_shard
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.plan import EXACT, PlanRequest
from sti.planning.uniform import uniform_plan
from tests.support.checkpoints import write_checkpoint
from tests.support.packs import SHAPE, tiny_pack
from tests.support.paths import ROOT
from tests.support.ranked_packs import ranked_pack, texts, write_data

OUTPUT = "out"
"""What a command writes, in the directory of its case."""
COMMANDS = ("build", "rank", "upgrade", "evaluate", "finetune")
WRITERS = ("cache", "graph")
GRAPH = "graph"
_IMPORTED = (
    "shard_tools.packing.build",
    "shard_tools.packing.upgrade",
    "shard_tools.ranking.rank",
    "shard_tools.evaluation.evaluate",
    "shard_tools.train.finetune",
    "sti.engine.graph_child",
    "sti.calibration.history_file",
    "onnx",
    "onnxruntime",
    "torch._dynamo",
)
_ROWS = 120
_ENTRIES, _ENTRY_BYTES = 12, 200_000
_FAST = ["--epochs", "1", "--plain-epochs", "1", "--passes", "1", "--calibration-rows", "12"]
_FAST += ["--threads", "1", "--precision", "float32", "--ladder", "2,8", "--quiet"]


class Inputs(NamedTuple):
    """Files that all cases read."""

    checkpoint: str
    pack: str
    """Ranked."""
    old_format: str
    data: str
    dev: str


def make_inputs(place: Path) -> Inputs:
    """Write all of them below a directory."""
    pack = ranked_pack()
    shutil.copyfile(pack, place / "ranked")
    data = write_data(place / "data.tsv", tiny_pack("classification"), texts(_ROWS))
    dev = write_data(place / "dev.tsv", tiny_pack("classification"), texts(40, seed=1))
    golden = ROOT / "tests" / "golden" / "format1.sti.safetensors.gz"
    (place / "old").write_bytes(gzip.decompress(golden.read_bytes()))
    write_checkpoint(place / "checkpoint", task="classification", shape=SHAPE)
    names = ("checkpoint", "ranked", "old")
    return Inputs(*(str(place / name) for name in names), str(data), str(dev))


def arguments(kind: str, inputs: Inputs, place: Path) -> list[str]:
    """Of ``sti-shard``, for a command."""
    output = ["-o", str(place / OUTPUT)]
    data = ["--data", inputs.data]
    if kind == "build":
        return ["build", inputs.checkpoint, *output, "--quiet"]
    if kind == "upgrade":
        return ["upgrade", inputs.old_format, *output, "--quiet"]
    if kind == "rank":
        more = ["--measure", "proxy", "--threads", "1", "--quiet"]
        return ["rank", inputs.pack, *data, *output, *more]
    if kind == "finetune":
        dev = ["--dev", inputs.dev]
        return ["finetune", inputs.checkpoint, *data, *dev, *output, *_FAST]
    more = ["--targets", "20ms", "--device", "paper-board", "--format", "json", "--quiet"]
    return ["evaluate", inputs.pack, *data, *output, *more]


def entry(number: int) -> bytes:
    """What the cache holds under a number: one of two contents, told by its first byte."""
    return bytes([number]) * _ENTRY_BYTES


def fill_cache(place: Path) -> None:
    """Write all entries, and some of a history."""
    from sti.calibration.cache import Cache
    from sti.calibration.history_file import HistoryFile
    from sti.planning.history import History

    cache = Cache(place / OUTPUT)
    for number in range(_ENTRIES):
        cache.store_staircases({"number": number}, entry(number))
        cache.store_corrections({"number": number}, [number] * 5000)
        HistoryFile("0" * 64, cache).add(History())


def cache_faults(place: Path) -> list[str]:
    """What is not whole, through the cache's own readers."""
    from sti.calibration.cache import Cache
    from sti.calibration.history_file import HistoryFile
    from sti.errors import ProfileError

    cache, found = Cache(place / OUTPUT), []
    for number in range(_ENTRIES):
        key = {"number": number}
        if cache.load_staircases(key) not in (None, entry(number)):
            found.append(f"staircases {number}")
        path = cache.path("corrections", key)
        if path.exists() and cache.load_corrections(key) != [number] * 5000:
            found.append(f"corrections {number}")
    with suppress(FileNotFoundError):
        try:
            HistoryFile("0" * 64, cache).read()
        except ProfileError as error:
            found.append(str(error))
    return found


def build_graph(inputs: Inputs, place: Path) -> None:
    """Build the graph of the full model anew."""
    from sti.engine.graph_cache import GraphCache
    from sti.engine.graph_child import build

    GraphCache(place / OUTPUT).remove(GRAPH)
    with PackReader.open(inputs.pack) as reader:
        full = reader.manifest.submodels[0]
        request = PlanRequest(reader.manifest, reader.pack_id, Workload(1, 8))
    plan = uniform_plan(request, bits=4, depth=full.depth, width=full.width)
    steps = tuple(step._replace(variant=EXACT) for step in plan.steps)
    task = {"pack": inputs.pack, "plan": replace(plan, steps=steps).to_json(), "saturates": False}
    task |= {"cache": str(place / OUTPUT), "most_bytes": 1 << 30, "name": GRAPH}
    build(task)


def graph_faults(place: Path) -> list[str]:
    """What is not whole, through the cache's own reader."""
    from sti.engine.graph_cache import GraphCache
    from sti.errors import GraphError

    try:
        found = GraphCache(place / OUTPUT).find(GRAPH)
    except GraphError as error:
        return [str(error)]
    if found is not None:
        found.close()
    return []


def _do(task: Mapping[str, Any]) -> int:
    place, inputs = Path(task["place"]), Inputs(*task["inputs"])
    if task["kind"] == "cache":
        fill_cache(place)
        return 0
    if task["kind"] == "graph":
        build_graph(inputs, place)
        return 0
    return sti_shard(arguments(task["kind"], inputs, place))


def main() -> None:
    """Fork a process for each task, until there are no more."""
    for name in _IMPORTED:
        with suppress(ImportError):
            import_module(name)
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os._exit(_do(json.loads(line)))
        print(process, flush=True)
        sys.stdin.readline()  # the number is not another process's before it is asked for
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
