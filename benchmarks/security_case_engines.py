"""Engines of the cases of the row ``processes``: opened, at work, refused.

In: a pack. Out: an engine, or a thread that runs on one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import sti
from sti.arrays import Float32Array

FIDELITY = 3
TEXTS = ["a text", "and another one that is somewhat longer"]
AMID_S = 0.15
"""Moments lie within so many seconds from the first run on."""
END_S = 20.0
"""By when a child or a thread has done its part."""


def opened(pack: Path, **more: object) -> sti.Engine:
    """An engine, some with weights held."""
    return sti.Engine.open(pack, fidelity=FIDELITY, **more)  # type: ignore[arg-type]


def numbers(result: sti.Result) -> Float32Array:
    """The answer of a pack of any task that has one array."""
    return result.embeddings if result.task == "embedding" else result.logits


def works(engine: sti.Engine, ran: threading.Event | None = None) -> None:
    """Run until the engine is closed."""
    try:
        while True:
            engine.run(TEXTS)
            if ran is not None:
                ran.set()
    except sti.ClosedError:
        pass


def busy(engine: sti.Engine, *, daemon: bool = True) -> threading.Thread:
    """A thread that runs."""
    ran = threading.Event()
    thread = threading.Thread(target=works, args=(engine, ran), daemon=daemon)
    thread.start()
    assert ran.wait(END_S)
    return thread


def refused(call: Callable[[], object]) -> None:
    """What is called raises ``RunError``."""
    try:
        call()
    except sti.RunError:
        return
    raise AssertionError("it was not refused")


def answer(pack: Path) -> None:
    """Open an engine, run, close it."""
    with opened(pack) as engine:
        engine.run(TEXTS)
