"""Draw what the lanes did in one run, as SVG: storage, decode and compute against time.

    python examples/draw_timeline.py PACK "some text" --fidelity 4 --preload 2MB -o timeline.svg

Where several threads compute, each has a lane for what it decodes and one for what it computes.
Each bar is one slice group on one lane. Those of attention are drawn dark, those of the FFN light;
a gap on the compute lane is a stall.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import sti
from sti.device.lanes import LANES, same_work
from sti.pipeline.trace import Trace

WIDTH, LEFT, TOP, LANE, GAP = 860, 92, 34, 34, 12
COLOURS = {
    "storage": ("#9a5b13", "#e0a458"),
    "decode": ("#1f5f8b", "#7fb3d5"),
    "compute": ("#2d6a4f", "#8fc9a8"),
}
OTHER = "#8a8a8a"


def colour(lane: str, name: str) -> str:
    """Dark for attention, light for FFN, grey for what is neither."""
    dark, light = next(pair for work, pair in COLOURS.items() if same_work(lane, work))
    return dark if "attention" in name else light if "ffn" in name else OTHER


def draw(trace: Trace, title: str) -> str:
    """The SVG document."""
    end_ms = trace.end_s * 1e3
    scale = (WIDTH - LEFT - 20) / end_ms
    lanes = list(dict.fromkeys((*LANES, *trace.lanes)))
    height = TOP + len(lanes) * (LANE + GAP) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" fill="#222222">{title}</text>',
    ]
    busy_s = trace.busy_s
    for row, lane in enumerate(lanes):
        y = TOP + row * (LANE + GAP)
        busy = busy_s.get(lane, 0.0) * 1e3
        parts.append(f'<text x="8" y="{y + 15}" fill="#222222">{lane}</text>')
        parts.append(f'<text x="8" y="{y + 31}" fill="#666666" font-size="11">{busy:.1f} ms</text>')
        parts.append(
            f'<rect x="{LEFT}" y="{y}" width="{end_ms * scale:.1f}" height="{LANE}" '
            'fill="#f2f2f2"/>'
        )
        for span in trace.lanes.get(lane, ()):
            x = LEFT + span.start_s * 1e3 * scale
            wide = max(0.6, span.duration_s * 1e3 * scale - 0.4)
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{LANE}" '
                f'fill="{colour(lane, span.name)}"><title>{span.name}</title></rect>'
            )
    base = TOP + len(lanes) * (LANE + GAP)
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if end_ms / s <= 12)
    for tick in range(0, int(end_ms) + 1, step):
        x = LEFT + tick * scale
        parts.append(
            f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{base}" stroke="#ffffff" '
            'stroke-opacity="0.5"/>'
            f'<text x="{x:.1f}" y="{base + 14}" text-anchor="middle" fill="#666666">{tick}</text>'
        )
    parts.append(
        f'<text x="{WIDTH - 20}" y="{base + 14}" text-anchor="end" fill="#666666">ms</text>'
    )
    return "\n".join([*parts, "</svg>", ""])


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
        options.output.write_text(draw(result.trace, title), encoding="utf-8")
    except (OSError, sti.StiError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
