"""Search a text file by meaning: index its lines once, then ask.

    python examples/semantic_search.py PACK FILE "how do I boil an egg"
    python examples/semantic_search.py PACK FILE            # reads queries from standard input

The lines are embedded in batches (every weight is read once a batch); each query is one short run
within the latency target. Timings show where the time goes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

import sti

BATCH = 128


def index(engine: sti.Engine, lines: list[str]) -> NDArray[np.float32]:
    """Embeddings of all lines, ``[n, d]``, longest and shortest kept apart to save padding."""
    order = sorted(range(len(lines)), key=lambda number: len(lines[number]))
    vectors: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(lines)
    for start in range(0, len(order), BATCH):
        members = order[start : start + BATCH]
        for number, vector in zip(members, engine.embed([lines[i] for i in members]), strict=True):
            vectors[number] = vector
    return np.stack(vectors)


def answer(
    engine: sti.Engine, vectors: NDArray[np.float32], lines: list[str], query: str, top: int
) -> None:
    """Print the ``top`` lines nearest to ``query`` and what the query cost."""
    result = engine.run([query])
    scores = vectors @ result.embeddings[0]
    for number in np.argsort(-scores)[:top]:
        print(f"{scores[number]:.3f}  {lines[number]}")
    timing = result.timing
    lanes = ", ".join(f"{lane} {busy * 1e3:.1f}" for lane, busy in timing.busy_s.items())
    print(
        f"       {timing.total_s * 1e3:.1f} ms ({lanes}), {result.bytes_read / 1e6:.1f} MB read",
        file=sys.stderr,
    )


def main() -> int:
    """Index, then answer one query or all those on standard input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pack", help="a sentence-embedding pack")
    parser.add_argument("file", type=Path, help="a UTF-8 text file; every line is an entry")
    parser.add_argument("query", nargs="?", help="what to look for (default: standard input)")
    parser.add_argument("--latency", help="what a query may take, e.g. 50ms")
    parser.add_argument("--preload", help="memory for preloaded weights, e.g. 2MB")
    parser.add_argument("--top", type=int, default=3, help="hits to show (default: 3)")
    options = parser.parse_args()
    try:
        lines = [line for line in options.file.read_text("utf-8").splitlines() if line.strip()]
        if not lines:
            print(f"error: {options.file} holds no text", file=sys.stderr)
            return 2
        with sti.Engine.open(options.pack, preload=options.preload) as engine:
            start = perf_counter()
            vectors = index(engine, lines)
            spent = perf_counter() - start
            print(f"{len(lines)} lines indexed in {spent:.2f} s", file=sys.stderr)
            engine.set_target(latency=options.latency, preload=options.preload)
            for query in [options.query] if options.query else sys.stdin:
                if query.strip():
                    answer(engine, vectors, lines, query.strip(), options.top)
    except (OSError, UnicodeDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except sti.StiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
