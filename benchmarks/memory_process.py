"""A process of `memory_child`, and its memory as seen from outside.

In: texts, commands. Out: replies; the anonymous memory (resident and backed by no file) of the
process beyond what it had before the first command, sampled all the time. Knows nothing of targets.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from benchmarks.common import ROOT
from sti.engine.graph_cache import GRAPHS

SAMPLED_S = 5e-4
"""From one sample to the next."""
_END_S = 20.0


class MeasuredProcess:
    """A running process; use as a context manager.

    Args:
        texts: what it may be asked to answer, one batch each.
    """

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        # A file, not a pipe: warnings may be more than a pipe holds.
        self._said = tempfile.TemporaryFile(  # noqa: SIM115  closed with the process
            mode="w+", encoding="utf-8", errors="replace"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.memory_child"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        self._samples: list[tuple[float, int]] = []
        """Times, and bytes wherever those are others than before."""
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="memory-sampler")
        self._peak = self._base = 0
        try:
            self._tell([list(batch) for batch in texts])
            self._hear()
            self._statm = os.open(f"/proc/{self._process.pid}/statm", os.O_RDONLY)
        except BaseException:
            self._end()
            raise
        self._base = self._peak = self._anonymous()
        self._sampler.start()

    def __enter__(self) -> MeasuredProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Send a command and wait for its reply; a process that ends instead gives an ``error``."""
        try:
            self._tell({"do": do, **more})
            return self._hear()
        except (OSError, RuntimeError) as error:
            return {"error": str(error)}

    @property
    def peak_bytes(self) -> int:
        """The most that it grew so far."""
        self._note()
        return self._peak - self._base

    @property
    def growth_bytes(self) -> int:
        """What it grew by until now."""
        return self._note() - self._base

    def mapped_bytes(self) -> int:
        """Resident bytes of graphs' weights that it maps from the cache, backed by their files."""
        size, ours = 0, False
        text = Path(f"/proc/{self._process.pid}/smaps").read_text("utf-8", errors="replace")
        for line in text.splitlines():
            name, *words = line.split()
            if not name.endswith(":"):
                ours = f"/{GRAPHS}/" in line
            elif ours and name in ("Rss:", "Anonymous:"):
                sign = 1 if name == "Rss:" else -1
                size += sign * 1024 * int(words[0])
        return size

    def growth_since(self, start_s: float) -> list[tuple[float, int]]:
        """When the growth changed since a time of ``perf_counter``, and to what."""
        found = [(at, size - self._base) for at, size in list(self._samples) if at >= start_s]
        return found or [(perf_counter(), self.growth_bytes)]

    def close(self) -> None:
        """End the process. Idempotent."""
        if self._said.closed:
            return
        self._ended.set()
        self._sampler.join()
        os.close(self._statm)
        self._end()

    def _end(self) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
            process.wait(_END_S)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
        except KeyboardInterrupt:
            process.kill()
            process.wait()
            raise
        finally:
            process.stdout.close()
            self._said.close()

    def _tell(self, body: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(body) + "\n")
        self._process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._said.seek(0)
            said = self._said.read().strip().splitlines()
            raise RuntimeError(f"the process ended ({code}): {said[-1] if said else 'no word'}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _anonymous(self) -> int:
        words = os.pread(self._statm, 256, 0).split()
        return (int(words[1]) - int(words[2])) * mmap.PAGESIZE

    def _note(self) -> int:
        """Take a sample."""
        try:
            size = self._anonymous()
        except (OSError, IndexError):  # it has ended
            return self._samples[-1][1] if self._samples else self._base
        self._peak = max(self._peak, size)
        return size

    def _sample(self) -> None:
        last = None
        while not self._ended.is_set():
            at, size = perf_counter(), self._note()
            if size != last:
                self._samples.append((at, size))
                last = size
            sleep(SAMPLED_S)
