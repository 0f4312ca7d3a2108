"""The process of one system under test: opens its model and runs it when told to, and measures.

In, on standard input: a line with a ``Spec`` as JSON, then commands, one per line. Out: one line of
JSON for each. Imports and whatever a caller would have ready beforehand (token ids) are done before
the first command and stay off the clock.

    open    open the model and answer once: how long, bytes read, memory
    run     answer again: how long, bytes read
    end     memory in the steady state; the process ends

Knows nothing of packs or of ONNX Runtime: a system is an ``Opener``. Memory and bytes come from
Linux's ``/proc``; elsewhere they are missing from the answers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from sti.arrays import Float32Array, Int64Array
from sti.device import host


@dataclass(frozen=True, slots=True)
class Spec:
    """What a system is to do. JSON-able."""

    file: str
    """The model."""
    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    """The same texts as token ids, for systems without a tokenizer."""
    threads: int | None
    """Compute threads; None: the system's own choice."""
    options: dict[str, Any] = field(default_factory=dict)
    """What only this system knows."""

    def to_json(self) -> str:
        """The spec as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Spec:
        """What ``to_json`` wrote."""
        body = json.loads(text)
        body["texts"] = tuple(body["texts"])
        body["ids"] = tuple(map(tuple, body["ids"]))
        return cls(**body)

    def feeds(self) -> dict[str, Int64Array]:
        """The token ids, padded, with their mask and types of zero: each ``[n, tokens]``.

        Keys are the names that exports of Hugging Face's models have for them.
        """
        longest = max(map(len, self.ids))
        ids = np.zeros((len(self.ids), longest), dtype=np.int64)
        mask = np.zeros_like(ids)
        for line, row in enumerate(self.ids):
            ids[line, : len(row)] = row
            mask[line, : len(row)] = 1
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


class Opened(Protocol):
    """A model that is open."""

    def run(self) -> Float32Array:
        """Answer the spec's texts: ``[n, d]``."""
        ...

    def settle(self) -> None:
        """Wait for what goes on in the background, such as a buffer that fills for the next run."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


Opener = Callable[[], Opened]
"""Opens the model: the part of a start that is on the clock."""


class ResidentSystem:
    """An ``Opened`` with nothing in the background, around a function that answers."""

    def __init__(self, answer: Callable[[], Float32Array]) -> None:
        self._answer = answer

    def run(self) -> Float32Array:
        """As ``Opened.run``."""
        return self._answer()

    def settle(self) -> None:
        """Nothing to wait for."""

    def close(self) -> None:
        """Nothing to give back before the process ends."""


def serve(prepare: Callable[[Spec], Opener]) -> int:
    """Be the process of one system; ``prepare`` does what stays off the clock, before opening."""
    opener = prepare(Spec.from_json(sys.stdin.readline()))
    _say({"ready": True})
    opened: Opened | None = None
    before = None
    for line in sys.stdin:
        command = line.strip()
        if command == "open":
            _reset_peak()
            before, read = host.rss_bytes(), _bytes_read()
            start = perf_counter()
            opened = opener()
            ready = perf_counter()
            answer = opened.run()
            end = perf_counter()
            done = _bytes_read()
            opened.settle()
            _say(
                {
                    "open_s": ready - start,
                    "total_s": end - start,
                    "bytes_read": _less(done, read),
                    "peak_bytes": _less(host.peak_rss_bytes(), before),
                    "steady_bytes": _less(host.rss_bytes(), before),
                    "answer": np.asarray(answer, dtype=np.float64).tolist(),
                }
            )
        elif command == "run" and opened is not None:
            read = _bytes_read()
            start = perf_counter()
            opened.run()
            total_s = perf_counter() - start
            _say({"total_s": total_s, "bytes_read": _less(_bytes_read(), read)})
            opened.settle()
        else:
            break
    if opened is not None:
        steady, peak = host.rss_bytes(), host.peak_rss_bytes()
        opened.close()
        _say({"steady_bytes": _less(steady, before), "peak_bytes": _less(peak, before)})
    return 0


def _say(body: dict[str, Any]) -> None:
    print(json.dumps(body), flush=True)


def _less(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before


def _reset_peak() -> None:
    """Let the peak of resident memory start anew; where that is refused it is the process's own."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _bytes_read() -> int | None:
    """Bytes that storage delivered to this process so far."""
    try:
        text = Path("/proc/self/io").read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        name, _, value = line.partition(": ")
        if name == "read_bytes":
            return int(value)
    return None
