"""Row ``start``: from starting two workers to the first answer over them, warm.

In: a pack. Out: seconds from when two `sti worker` processes and, at once, one `sti run` are
started to the answer, on this machine; plans and profiles are known, and byte code is compiled, as
on any device that has run the pack before. Beside it, what `sti run` takes alone.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from benchmarks.common import ROOT, Column, Table, at_most
from benchmarks.devices.setting import Setting, middle
from benchmarks.rows import Summary
from sti.exchange.zeromq.keys import make_keys

LIMIT_S = 1.0
_NAMES = ("w1", "w2")
_TOKENS = 16
_PATIENCE_S = 60.0


class Started(NamedTuple):
    """One start."""

    alone_s: float
    """`sti run` without others, from when it is started to its end."""
    listening_s: float
    """From when the workers are started to when both listen."""
    answered_s: float
    """From when they are started to the end of `sti run`, which is started with them."""
    stages: str


def measure(setting: Setting) -> Iterator[Started]:
    """Start everything, again and again; the first start does not count."""
    pack = setting.trained
    text = pack.texts(1, _TOKENS)[0]
    with tempfile.TemporaryDirectory(prefix="sti-start-") as place:
        folder = Path(place)
        make_keys(folder / "keys", _NAMES)
        for turn in range(-1, setting.repeats):
            found = _start(pack.path, text, folder)
            if turn >= 0:
                yield found


def _start(pack: Path, text: str, folder: Path) -> Started:
    run = ["run", str(pack.resolve()), text, "--fidelity", "4", "--json"]
    start = perf_counter()
    _ended(_sti(run))
    alone_s = perf_counter() - start
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(len(_NAMES))]
    config = folder / "devices.toml"
    config.write_text(
        "".join(
            f'[devices.{name}]\naddress = "{address}"\n'
            for name, address in zip(_NAMES, addresses, strict=True)
        ),
        encoding="utf-8",
    )
    keys = str(folder / "keys")
    with ExitStack() as stack:
        start = perf_counter()
        workers = []
        for name, address in zip(_NAMES, addresses, strict=True):
            own = ["--keys", f"{keys}/{name}", "--listen", address, "--json"]
            worker = _sti(["worker", str(pack.resolve()), *own])
            stack.callback(worker.wait, _PATIENCE_S)
            stack.callback(worker.terminate)
            workers.append(worker)
        devices = ["--devices", str(config), "--keys", keys, "--strategy", "chain"]
        asked = _sti([*run, *devices])
        for worker in workers:
            assert worker.stdout is not None, "it was asked for"
            worker.stdout.readline()
        listening_s = perf_counter() - start
        answer = json.loads(_ended(asked))
        answered_s = perf_counter() - start
        for worker in workers:
            assert worker.stdout is not None, "it was asked for"
            stack.callback(worker.stdout.close)
    stages = ", ".join(item["device"] for item in answer.get("stages", []))
    return Started(alone_s, listening_s, answered_s, stages)


def _sti(arguments: Sequence[str]) -> subprocess.Popen[str]:
    # Byte code is kept, as wherever nobody forbids it.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.Popen(
        [sys.executable, "-m", "sti", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env=environment,
    )


def _ended(process: subprocess.Popen[str]) -> str:
    written, _ = process.communicate(timeout=_PATIENCE_S)
    if process.returncode:
        raise RuntimeError(f"{process.args!r:.200}: exit {process.returncode}")
    return written


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens at just now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [int(item.getsockname()[1]) for item in sockets]


def summarize(found: Sequence[Started]) -> Summary:
    """The table and its limit."""
    if not found:
        return Summary()
    table = Table(
        "Start of two workers and of `sti run`, to the answer",
        (
            *(Column("what"), Column("median, s", ".3f"), Column("least", ".3f")),
            Column("most", ".3f"),
        ),
    )
    for name, seconds in (
        ("`sti run` alone", [item.alone_s for item in found]),
        ("both workers listen", [item.listening_s for item in found]),
        ("the answer is there", [item.answered_s for item in found]),
    ):
        table.rows.append((name, middle(seconds), min(seconds), max(seconds)))
    limit = at_most(
        "seconds from start to first answer", middle([item.answered_s for item in found]), LIMIT_S
    )
    notes = [f"computed by {', then '.join(sorted({item.stages for item in found}))}"]
    return Summary([limit], [table], notes)
