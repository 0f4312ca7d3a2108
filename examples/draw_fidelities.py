"""Draw which bits a plan gives to each shard: a map of layers by slices for each kind of block.

    python examples/draw_fidelities.py PACK --latency 10ms -o fidelities.svg

Nothing is run: the plan is the one that an engine on this device would take for a text of so many
tokens. Layers are drawn from the first, at the top; a shard that is not in use is left empty.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import sti
from sti.report.drawings import fidelity_panels
from sti.report.svg.heat_map import heat_map
from sti.report.wording import describe_plan


def main() -> int:
    """Plan and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pack", help="a pack")
    parser.add_argument("--latency", help="what an answer may take, e.g. 10ms (default: any time)")
    parser.add_argument("--preload", help="memory for preloaded weights, e.g. 1MB")
    parser.add_argument("--tokens", type=int, default=16, help="tokens of the text (default: 16)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", default=Path("fidelities.svg"), help="SVG"
    )
    args = parser.parse_args()
    try:
        with sti.Engine.open(args.pack, latency=args.latency, preload=args.preload) as engine:
            plan = engine.plan_for(tokens=args.tokens)
            words = describe_plan(plan)
            panels = fidelity_panels(engine.manifest, plan)
            drawing = heat_map(panels, title=engine.manifest.name, description=words)
        args.output.write_text(drawing, encoding="utf-8")
    except (OSError, sti.StiError) as error:
        print(f"draw_fidelities: {error}", file=sys.stderr)
        return 1
    print(words)
    print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
