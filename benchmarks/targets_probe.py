"""What a fresh process offers and accepts: for rows that need a machine not measured before.

    XDG_CACHE_HOME=EMPTY python -m benchmarks.targets_probe PACK --tokens 32 --accept 20 30

Measures the machine if the cache is empty. Out, as JSON on standard output: the least latency that
is offered, and which of some latencies (in milliseconds) an engine opened with them accepts, each
in seconds. ``probe`` starts such a process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import ROOT
from benchmarks.targets_runs import least_offered, open_engine
from benchmarks.targets_setting import Case
from sti.errors import InfeasibleError

TOKENS = 32
_LONGEST_S = 120.0


class Probed(NamedTuple):
    """What a process found."""

    least_s: float
    accepted: tuple[bool, ...]
    """Of the latencies asked for, in their order."""


def probe(pack: Path, cache: Path, accept_s: Sequence[float] = ()) -> Probed:
    """Ask a fresh process, with its cache in a directory of its own.

    Raises:
        RuntimeError: it failed; says what it told.
    """
    asked = [f"{latency_s * 1e3:.4f}" for latency_s in accept_s]
    command = [sys.executable, "-m", "benchmarks.targets_probe", str(pack.resolve())]
    done = subprocess.run(
        [*command, "--accept", *asked] if asked else command,
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(cache.resolve())},
        capture_output=True,
        text=True,
        check=False,
        timeout=_LONGEST_S,
    )
    if done.returncode:
        raise RuntimeError(f"a probe of {pack.name} failed: {done.stderr.strip()[-500:]}")
    found = json.loads(done.stdout)
    return Probed(found["least_s"], tuple(found["accepted"]))


def ask(pack: Path, tokens: int, accept_s: Sequence[float]) -> Probed:
    """Open the pack with each latency, in the order given, then look for the least."""
    case, accepted = Case(pack), []
    for latency_s in accept_s:
        try:
            with open_engine(case, latency_s) as engine:
                engine.plan_for(tokens=tokens)
        except InfeasibleError:
            accepted.append(False)
        else:
            accepted.append(True)
    with open_engine(case, None) as engine:
        return Probed(least_offered(engine, tokens), tuple(accepted))


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.targets_probe")
    parser.add_argument("pack", type=Path)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--accept", type=float, nargs="*", default=[], metavar="MS")
    options = parser.parse_args(arguments)
    found = ask(options.pack, options.tokens, [latency / 1e3 for latency in options.accept])
    print(json.dumps(found._asdict()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
