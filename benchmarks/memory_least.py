"""How close the least budget that is offered is to what is then taken.

In: packs, targets, lengths of texts. Out: the least budget, and the peak measured with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from benchmarks.common import Column, Table, at_least, at_most
from benchmarks.memory_setting import MB, Offered, Pack, Setting, least_offered, target_words
from benchmarks.rows import Summary, tell
from sti.device import host

FIDELITIES = (2, 4, 8)
LATENCIES = ("1s",)
TOKENS = (8, 32, 128, 256, 100_000)
MOST, LEAST = 1.15, 1.0


class Least(NamedTuple):
    """The least for a target and a length."""

    pack: str
    target: str
    tokens: int
    offered: Offered


def targets_of(pack: Pack) -> list[dict[str, Any]]:
    """What is aimed at beside memory; nothing at last."""
    bits = sorted({pack.nearest(wanted) for wanted in FIDELITIES})
    return [
        *({"fidelity": own} for own in bits),
        *({"latency": latency} for latency in LATENCIES),
        {},
    ]


def measure(setting: Setting) -> Iterator[Least]:
    """Target after target."""
    for pack in setting.packs:
        for target in targets_of(pack):
            for tokens in setting.lengths(pack, TOKENS):
                found = least_offered(pack, target, tokens, threads=host.core_count())
                item = Least(pack.name, target_words(target), tokens, found)
                tell(f"least: {item.pack}, {item.target}, {tokens} tokens: {_words(found)}")
                yield item


def _words(offered: Offered) -> str:
    if offered.needed_bytes is None:
        return f"not offered: {offered.said}"
    return (
        f"{offered.needed_bytes / MB:.2f} MB offered, {offered.peak_bytes / MB:.2f} MB taken: "
        f"{offered.ratio:.3f}, after {offered.tries} tries"
    )


def summarize(items: Sequence[Least]) -> Summary:
    """Each, the largest and the smallest ratio."""
    found = Summary()
    columns = (Column("pack"), Column("target"), Column("tokens", ",d"), Column("least MB", ".2f"))
    columns += (Column("taken MB", ".2f"), Column("ratio", ".3f"), Column("tries", ",d"))
    table = Table("The least budget offered", columns)
    for pack, target, tokens, offered in items:
        figures = (None, None, None)
        if offered.needed_bytes is not None:
            figures = (offered.needed_bytes / MB, offered.peak_bytes / MB, offered.ratio)
        else:
            found.notes.append(f"{pack}, {target}, {tokens} tokens: {_words(offered)}")
        table.rows.append((pack, target, tokens, *figures, offered.tries))
    found.tables.append(table)
    ratios = [item.offered.ratio for item in items if item.offered.needed_bytes is not None]
    if ratios:
        found.limits += [
            at_most(f"least offered over taken, the most of {len(ratios)}", max(ratios), MOST),
            at_least("least offered over taken, the least", min(ratios), LEAST),
        ]
    return found
