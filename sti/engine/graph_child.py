"""The process that builds the graph of a plan: run by ``graph_building``, not by people.

In: one line of JSON on standard input, which stays open for as long as the graph is wanted. Out:
whether the graph was built, or why not, as ``sti.device.process_answers`` writes it. It has a low
priority and ends with whoever started it.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from sti.device.process_answers import answer, own_answers
from sti.engine.graph_cache import GraphCache
from sti.engine.graph_writing import write_plan_graph
from sti.errors import GraphError, PackError, StiError
from sti.pack.pack_reader import PackReader
from sti.planning.plan import PLAN_LIMITS, Plan
from sti.storage.json_input import parse_json

_NICENESS = 10
_UNWANTED = 3


def build(task: dict[str, Any]) -> bool:
    """Build what a task asks for; whether it was not there yet.

    Args:
        task: path of the ``pack``; ``plan``; whether products saturate, ``saturates``; directory
            of the ``cache``, the most bytes in it, ``most_bytes``, and the graph's ``name``.

    Raises:
        StiError: as ``GraphCache.build`` and ``write_plan_graph``; or the pack is another one.
    """
    plan = Plan.from_json(task["plan"], where="the plan to be built")
    cache = GraphCache(Path(task["cache"]), most_bytes=task["most_bytes"])
    with PackReader.open(task["pack"]) as reader:
        if reader.pack_id != plan.pack:
            raise PackError(f"{reader.path}: was replaced by another pack; open it again")
        return cache.build(
            task["name"],
            lambda place: write_plan_graph(reader, plan, place, saturates=task["saturates"]),
        )


def _build(line: bytes) -> bool:
    try:
        return build(parse_json(line, PLAN_LIMITS))
    except StiError:
        raise
    except Exception as error:
        raise GraphError(f"building a graph failed: {error!r}") from error


def _end_with_input() -> None:
    """End as soon as nobody waits for the graph any more."""
    while os.read(0, 1):
        pass
    os._exit(_UNWANTED)


def main() -> None:
    """Build one graph."""
    answers = own_answers()
    with suppress(OSError, AttributeError):
        os.nice(_NICENESS)
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(0, 1 << 16)
        if not piece:
            os._exit(_UNWANTED)
        line += piece
    threading.Thread(target=_end_with_input, daemon=True).start()
    answer(lambda _: _build(bytes(line)), answers)
    sys.stderr.flush()
    os._exit(0)  # without waiting for the thread


if __name__ == "__main__":
    main()
