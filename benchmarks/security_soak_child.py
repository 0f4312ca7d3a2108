"""A process that runs one engine for long, and tells now and then what it has taken so far.

``python -m benchmarks.security_soak_child PACK RUNS EVERY SEED``. In: a pack. Out: a JSON line for
each sample. Between samples targets, texts, batches and modes change at random; the engine is
opened anew before each sample but the first. A sample is taken twice: with the engine, its memory
released, and when it is closed. Knows nothing of limits.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import os
import sys
import threading
import time
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import sti
from sti.calibration.cache import HISTORY_VARIABLE
from sti.pack.pack_reader import PackReader
from sti.units import exact_size

FIXED = "what is the weather like in the town today"
"""A text whose answer must stay the same to the bit."""
FIXED_TARGET = {"fidelity": 4}
_MOST_TOKENS, _MOST_TEXTS = 24, 6
_WRITER = "sti-history"
"""A thread that writes what was run, now and then: it does not stay."""
_SETTLED_S = 30.0


class Soak:
    """Runs of one pack, with targets that change.

    Args:
        pack: its path.
        seed: of everything that is drawn.
    """

    def __init__(self, pack: Path, seed: int) -> None:
        self._pack, self._rng = pack, Random(seed)
        with PackReader.open(pack) as reader:
            words = reader.resident("tokenizer.vocab").tobytes().decode("utf-8").split("\n")
            self._ladder = tuple(reader.manifest.ladder)
            self._pack_bytes = reader.file_bytes
        self._words = [word for word in words if word.isalpha()] or ["a"]
        self.did: Counter[str] = Counter()
        """What was done, and how often; refusals by their type."""
        self.engine = self._opened()

    def close(self) -> None:
        """Close the engine and let go of it: a closed one keeps the prices of its plans."""
        self.engine.close()
        del self.engine

    def reopen(self) -> None:
        """Open the engine anew where it was closed."""
        self.engine = self._opened()
        self.did["opened"] += 1

    def fill(self) -> None:
        """Run the largest batches there will be, so that what keeps the most is full."""
        text = " ".join(["a"] * _MOST_TOKENS)
        for bits in self._ladder:
            self.engine.set_target(fidelity=bits)
            self.engine.run([text] * _MOST_TEXTS)

    def run(self) -> None:
        """One run, perhaps with another target before it."""
        rng = self._rng
        try:
            if rng.random() < 0.3:
                self.engine.set_target(**self._target())
                self.did["targets"] += 1
            chance = rng.random()
            if chance < 0.03:
                self.engine.release()
                self.did["released"] += 1
            if chance > 0.95:
                texts = [self._text() for _ in range(rng.randint(2, _MOST_TEXTS))]
                for _ in self.engine.stream(texts):
                    pass
                self.did["streamed"] += 1
            else:
                batch = rng.randint(2, 4) if rng.random() < 0.05 else 1
                mode = "sequential" if rng.random() < 0.03 else "planned"
                self.engine.run([self._text() for _ in range(batch)], mode=mode)
        except sti.StiError as error:
            self.did[type(error).__name__] += 1

    def answer(self) -> str:
        """A hash of the answer to the fixed text, to the bit."""
        self.engine.set_target(**FIXED_TARGET)
        result = self.engine.run([FIXED])
        bits = getattr(result, "embeddings" if result.task == "embedding" else "logits").tobytes()
        return hashlib.sha256(bits).hexdigest()[:16]

    def _opened(self) -> sti.Engine:
        return sti.Engine.open(self._pack, notify=lambda _: None)

    def _target(self) -> dict[str, Any]:
        """Any target: most of them can be met."""
        rng = self._rng
        target: dict[str, Any] = {}
        chance = rng.random()
        if chance < 0.25:
            target["fidelity"] = rng.choice(self._ladder)
        elif chance < 0.85:
            target["latency"] = f"{rng.uniform(2, 80):.3f}ms"
        if rng.random() < 0.25:
            target["preload"] = exact_size(rng.randrange(self._pack_bytes // 4))
        elif rng.random() < 0.15:
            target["memory"] = exact_size(rng.randrange(self._pack_bytes, 3 * self._pack_bytes))
        if rng.random() < 0.1:
            target["quantile"] = f"{rng.randrange(50, 99)}%"
        return target

    def _text(self) -> str:
        rng = self._rng
        if rng.random() < 0.01:
            return ""  # refused
        return " ".join(rng.choices(self._words, k=1 + int(rng.random() ** 3 * _MOST_TOKENS)))


def anonymous_bytes() -> int:
    """Resident bytes of this process that no file backs, when all that is free was given back."""
    gc.collect()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("the system does not tell anonymous memory")


class _Mallinfo(ctypes.Structure):
    """``struct mallinfo2`` of glibc."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks")),
        ("keepcost", ctypes.c_size_t),
    ]


def used_bytes() -> int | None:
    """Bytes that were asked of the C library and not given back; None where it does not tell.

    With ``PYTHONMALLOC=malloc`` those of Python's objects are among them.
    """
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return None
    mallinfo.restype = _Mallinfo
    found = mallinfo()
    return int(found.uordblks + found.hblkhd)


def lasting() -> tuple[int, int]:
    """Threads and descriptors of this process, those of libraries included, without what soon ends:
    the thread that writes what was run, and the process that builds a graph, with its timer.
    """
    end = time.monotonic() + _SETTLED_S
    while time.monotonic() < end and any(
        item.name == _WRITER or isinstance(item, threading.Timer) for item in threading.enumerate()
    ):
        time.sleep(0.01)
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def _taken(state: str) -> dict[str, int | None]:
    """What this process holds, under names of ``security_soak.Sample``."""
    threads, descriptors = lasting()
    return {
        f"{state}_bytes": anonymous_bytes(),
        f"{state}_used_bytes": used_bytes(),
        f"{state}_threads": threads,
        f"{state}_descriptors": descriptors,
    }


def main() -> int:
    """Run, and print a sample every so many runs."""
    pack, (runs, every, seed) = Path(sys.argv[1]), map(int, sys.argv[2:5])
    os.environ[HISTORY_VARIABLE] = "on"  # benchmarks keep none, users do: it is in a place of ours
    warnings.simplefilter("ignore", sti.StiWarning)
    soak = Soak(pack, seed)
    soak.fill()
    begun = time.monotonic()
    done = 0
    while done < runs:
        for _ in range(every):
            soak.run()
        done += every
        answer = soak.answer()
        soak.engine.release()
        taken = _taken("open")
        soak.close()
        closed = _taken("closed")
        sample = {"runs": done, "seconds": time.monotonic() - begun, "answer": answer}
        print(json.dumps({**sample, **taken, **closed, "did": dict(soak.did)}), flush=True)
        if done < runs:
            soak.reopen()
    return 0


if __name__ == "__main__":
    sys.exit(main())
