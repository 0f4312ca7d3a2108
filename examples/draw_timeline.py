"""Draw what the lanes did in one run, as SVG: storage, decode and compute against time.

    python examples/draw_timeline.py PACK "some text" --fidelity 4 --preload 2MB -o timeline.svg

Where several threads compute, each has a lane for what it decodes and one for what it computes.
Each bar is one slice group on one lane, its colour that of attention or of the FFN; a gap on the
compute lane is a stall.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import sti
from sti.report.drawings import lane_timeline


def main() -> int:
    """Run the text a few times, draw the median run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pack")
    parser.add_argument("text")
    parser.add_argument("-o", "--output", type=Path, default=Path("timeline.svg"))
    parser.add_argument("--latency", help="e.g. 100ms")
    parser.add_argument("--preload", help="e.g. 2MB")
    parser.add_argument("--fidelity", type=int, help="bits of every shard")
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    try:
        with sti.Engine.open(
            options.pack,
            latency=options.latency,
            preload=options.preload,
            fidelity=options.fidelity,
        ) as engine:
            engine.preloaded()
            runs = [engine.run([options.text]) for _ in range(options.runs)]
            result = sorted(runs, key=lambda run: run.timing.total_s)[options.runs // 2]
            title = (
                f"{engine.manifest.name}: {result.timing.total_s * 1e3:.1f} ms in all, "
                f"{result.bytes_read / 1e6:.1f} MB read"
            )
        options.output.write_text(lane_timeline(result.trace.lanes, title=title), encoding="utf-8")
    except (OSError, sti.StiError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
