"""What a build costs: seconds and peak memory of `sti-shard build`, compared with their limits.

    python -m benchmarks.build_cost --checkpoint DIR

DIR is a checkpoint of BERT-base's shape (`base_model`); without it, one is written first. Every
build is a process of its own, as a user starts it, and all of them must write the same bytes. The
floor is what cannot be saved: reading the checkpoint and writing the pack, both through the page
cache. Peak memory is the kernel's own figure of that process (``ru_maxrss``), interpreter and
imports included.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from benchmarks import base_model, common
from benchmarks.common import Column, Report, Table
from sti.errors import StiError
from sti.pack.pack_reader import PackReader

LIMIT_S = 60.0
LIMIT_SHARE, LIMIT_MORE_BYTES = 1.5, 100_000_000
"""Peak memory may be this share of the checkpoint, and so many bytes more."""

_COLUMNS = (Column("build"), Column("s", ".1f"), Column("CPU s", ".1f"), Column("peak MB", ".0f"))
_PIECE = 1 << 24


@dataclass(frozen=True, slots=True)
class Cost:
    """One build."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    digest: str


def measure(checkpoint: Path, output: Path) -> Cost:
    """Build once, in a process of its own.

    Raises:
        RuntimeError: the build failed; carries what it wrote.
    """
    command = [sys.executable, "-m", "shard_tools", "build", str(checkpoint), "-o", str(output)]
    start = perf_counter()
    # Its few lines fit the pipe, so nothing has to be read before it ends.
    process = subprocess.Popen(command, cwd=common.ROOT, stdout=-1, stderr=subprocess.STDOUT)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stdout is not None
    with process.stdout as stream:
        said = stream.read().decode()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}\n{said}")
    with output.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, digest)


def floor_s(checkpoint: Path, pack: Path) -> float:
    """Seconds to read the checkpoint's tensors and to write and sync a file of the pack's size."""
    start = perf_counter()
    buffer = bytearray(_PIECE)
    for path in sorted(checkpoint.glob("*.safetensors")):
        with path.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass
    copy = pack.with_name(pack.name + ".copy")
    try:
        with copy.open("wb", buffering=0) as stream:
            left = pack.stat().st_size
            while left > 0:
                left -= stream.write(memoryview(buffer)[: min(left, _PIECE)])
            os.fsync(stream.fileno())
    finally:
        copy.unlink(missing_ok=True)
    return perf_counter() - start


def run(checkpoint: Path, place: Path, *, repeats: int) -> Report:
    """Build ``repeats`` times and compare with the limits."""
    size = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    report = Report("Building a pack", common.about_machine())
    output = place / "pack.sti.safetensors"
    costs = [measure(checkpoint, output) for _ in range(repeats)]
    if len({cost.digest for cost in costs}) != 1:
        raise RuntimeError("two builds of one checkpoint differ")
    with PackReader.open(output) as reader:
        dims, groups = reader.manifest.dimensions, reader.manifest.groups
        encoder = sum(group.shard_weights * group.slices for group in groups)
        report.about.append(
            f"checkpoint {size / 1e6:.0f} MB: {dims.layers} layers, width {dims.hidden}, "
            f"{encoder / 1e6:.0f} M encoder weights; pack {reader.file_bytes / 1e6:.0f} MB"
        )
    table = Table("Builds", _COLUMNS)
    for number, cost in enumerate(costs, 1):
        table.rows.append((str(number), cost.wall_s, cost.cpu_s, cost.peak_bytes / 1e6))
    table.rows.append(("floor: read and write", floor_s(checkpoint, output), None, None))
    limits = Table("Limits (median of seconds, largest of memory)", common.LIMITS)
    most = LIMIT_SHARE * size + LIMIT_MORE_BYTES
    limits.rows.append(
        common.at_most("seconds", common.median([cost.wall_s for cost in costs]), LIMIT_S)
    )
    limits.rows.append(
        common.at_most("peak MB", max(cost.peak_bytes for cost in costs) / 1e6, most / 1e6)
    )
    report.tables += [table, limits]
    report.notes.append("all builds wrote the same bytes")
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark the command line asks for."""
    parser = common.parser("build_cost", __doc__, "--checkpoint /tmp/bert-base")
    parser.add_argument("--checkpoint", type=Path, help="default: a new one of BERT-base's shape")
    parser.add_argument("--repeats", type=int, default=3, help="default: 3")
    options: argparse.Namespace = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        checkpoint = options.checkpoint and options.checkpoint.resolve()
        if checkpoint is None:
            checkpoint = Path(place) / "checkpoint"
            shape, planting = base_model.SIZES["base"], base_model.Planting()
            base_model.write_checkpoint(checkpoint, shape, planting)
        try:
            run(checkpoint, Path(place), repeats=options.repeats).print(options.output)
        except StiError as error:
            print(f"build_cost: {error}", file=sys.stderr)
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
