"""Measuring the machine anew: how much what is offered differs, and what a bad start costs.

In: packs. Out: the least latencies that ten processes with empty caches offer; which targets are
accepted after a first measurement beside busy processes, and after a quiet one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import common
from benchmarks.common import Column, Table, median
from benchmarks.targets_busy import busy, neighbours
from benchmarks.targets_probe import TOKENS, Probed, probe
from benchmarks.targets_setting import Case, Found, Setting

CALIBRATIONS = 10
WITHIN = 1.15
TIMES = (1.2, 1.5, 2.0, 3.0, 5.0)
"""Targets, in the least that a quiet measurement offers."""

Prober = Callable[[Path, Path, Sequence[float]], Probed]

_CALIBRATIONS = (
    *(Column("pack"), Column("calibrations", ",d"), Column("least offered ms, least", ".2f")),
    *(Column("median", ".2f"), Column("largest", ".2f"), Column("largest over least", ".2f")),
)
_FIRST = (
    *(Column("pack"), Column("target ms", ".2f"), Column("quiet calibration")),
    *(Column("first run beside busy processes, then quiet"),),
)


def calibrations(setting: Setting, prober: Prober = probe) -> Found:
    """Ten in a row for each pack."""
    table, found = Table(f"Calibrations in a row, {TOKENS} tokens", _CALIBRATIONS), Found()
    for place, pack in enumerate(setting.packs):
        offered: list[float] = []
        for _ in range(setting.scaled(CALIBRATIONS)):
            if len(offered) > 1 and setting.budget.over((place + 1) / len(setting.packs)):
                break
            with tempfile.TemporaryDirectory() as cache:
                offered.append(prober(pack, Path(cache), ()).least_s * 1e3)
        name, ratio = Case(pack).name, max(offered) / min(offered)
        row = (name, len(offered), min(offered), median(offered), max(offered), ratio)
        table.rows.append(row)
        what = f"{name}: largest over least of {len(offered)} calibrations"
        found.limits.append(common.at_most(what, ratio, WITHIN))
    found.tables.append(table)
    return found


def disturbed_first(setting: Setting, prober: Prober = probe) -> Found:
    """A machine that is first measured while it is busy, and used when that is over."""
    table, found = Table("First run ever beside busy processes", _FIRST), Found()
    for pack in setting.packs:
        name = Case(pack).name
        with tempfile.TemporaryDirectory() as place:
            quiet_cache, other_cache = Path(place, "quiet"), Path(place, "other")
            least_s = prober(pack, quiet_cache, ()).least_s
            targets = [times * least_s for times in TIMES]
            quiet = prober(pack, quiet_cache, targets)
            with busy(neighbours()):
                during = prober(pack, other_cache, ())
            after = prober(pack, other_cache, targets)
        rows = zip(targets, quiet.accepted, after.accepted, strict=True)
        for target_s, expected, accepted in rows:
            table.rows.append((name, target_s * 1e3, _word(expected), _word(accepted)))
        as_quiet = sum(map(lambda a, b: a <= b, quiet.accepted, after.accepted))
        found.limits.append(
            common.at_least(
                f"{name}: targets accepted as after a quiet start, of {len(targets)}",
                as_quiet,
                len(targets),
            )
        )
        found.notes.append(
            f"{name}: least offered {quiet.least_s * 1e3:.2f} ms after a quiet start, "
            f"{during.least_s * 1e3:.2f} beside busy processes, {after.least_s * 1e3:.2f} then"
        )
    found.tables.append(table)
    return found


def _word(accepted: bool) -> str:
    return "accepted" if accepted else "refused"
