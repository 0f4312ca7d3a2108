"""A process whose memory is measured: ``python -m benchmarks.memory_child``.

In, on standard input: a line with texts, then commands, one a line, all JSON. Out: one line for
each. What a caller has anyway, imports and texts, is there before the first command, and results,
which are the caller's, are let go: so all growth after it is the engine's. Measures times, no
memory: its parent does (`memory_process`).

    open      open an engine (``pack``, ``target``, ``threads``)
    run       answer texts (``texts``: which of those that were given; ``times``)
    wait      wait until what is to be held is (``seconds``)
    release   give memory back, and say when that began and ended
"""

from __future__ import annotations

import json
import sys
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort

import sti
from sti.pipeline.trace import BLOCKS

_ = np.zeros, ort.InferenceSession, sti.Engine  # what is imported when it is first used


class Child:
    """Answers commands.

    Args:
        texts: what may be asked to be answered, one batch each.
    """

    def __init__(self, texts: list[list[str]]) -> None:
        self._texts = texts
        self._engine: sti.Engine | None = None

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """The reply to a command: a refusal is one, too."""
        do = getattr(self, f"_{command.pop('do')}")
        try:
            reply: dict[str, Any] = do(**command)
        except sti.InfeasibleError as error:
            return {
                "refused": error.limit,
                "asked": error.asked,
                "needed": error.needed,
                "said": str(error),
            }
        except (sti.StiError, OSError, RuntimeError, ValueError) as error:
            return {"error": f"{type(error).__name__}: {error}"}
        return reply

    def close(self) -> None:
        """Close the engine."""
        if self._engine is not None:
            self._engine.close()

    @property
    def _opened(self) -> sti.Engine:
        if self._engine is None:
            raise RuntimeError("no engine was opened")
        return self._engine

    def _open(self, pack: str, target: dict[str, Any], threads: int | None) -> dict[str, Any]:
        start = perf_counter()
        self._engine = sti.Engine.open(pack, threads=threads, history=False, **target)
        return {"open_s": perf_counter() - start}

    def _run(self, texts: int, times: int) -> dict[str, Any]:
        engine, seconds = self._opened, []
        for _ in range(times):
            start = perf_counter()
            for result in engine.stream(self._texts[texts]):  # each let go for the next one
                last = result
            seconds.append(perf_counter() - start)
        names = {span.name for spans in last.timing.lanes.values() for span in spans}
        return {
            "seconds": seconds,
            "form": "graph" if BLOCKS in names else "compressed",
            "threads": last.plan.threads.name,
            "held_bytes": engine.held_bytes,
            "bytes_read": last.bytes_read,
            "tokens": last.tokens,
        }

    def _wait(self, seconds: float) -> dict[str, Any]:
        return {"held": self._opened.preloaded(seconds)}

    def _release(self) -> dict[str, Any]:
        begun = perf_counter()
        self._opened.release()
        return {"begun_s": begun, "ended_s": perf_counter()}


def main() -> int:
    """Serve until standard input ends."""
    child = Child(json.loads(sys.stdin.readline()))
    _say({"ready": True})
    for line in sys.stdin:
        _say(child.answer(json.loads(line)))
    child.close()
    return 0


def _say(reply: dict[str, Any]) -> None:
    print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    sys.exit(main())
