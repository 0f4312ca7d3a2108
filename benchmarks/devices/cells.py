"""Row ``cells``: the plan that is chosen against one device, over devices, links and lengths.

In: a pack of BERT-base's shape. Out: for each cell what one device takes, what the chosen plan
takes, what the best chain takes, whether or not it was chosen; and what was predicted of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from benchmarks import common
from benchmarks.common import Cell, Column, Table, at_most
from benchmarks.devices.home import Home, Joined
from benchmarks.devices.kinds import Kind
from benchmarks.devices.setting import Setting, Turns, in_turns
from benchmarks.rows import Summary, tell
from sti.engine.device_options import AUTO
from sti.planning.plan import LOCAL
from sti.planning.strategies import CHAIN

WORST, OFF = 1.05, 0.15
"""Chosen over local, in every cell; and how far a prediction may be from what was measured."""
DEVICES: tuple[tuple[Kind, ...], ...] = (
    (Kind(4.0, "microsd"),) * 2,
    (Kind(10.0, "emmc"),) * 2,
    (Kind(8.0, "microsd"), Kind(4.0, "emmc"), Kind(4.0, "emmc")),
    (Kind(8.0),) * 4,
)
JOINED = (Joined(125.0), Joined(300.0, shared=True), Joined(1000.0))
TOKENS: tuple[int, ...] = (16, 64, 128, 256, 512)
_QUICK_TOKENS: tuple[int, ...] = (8, 16)
_WARM_UPS = 3
"""Turns that do not count."""
_ERROR, _MOST_ROUNDS = 0.01, 8
"""A cell is given as many turns more until the standard error of its ratio is no larger a share of
it, whatever the ratio is, or so often; all of them count. Others who use the machine blur some
cells."""


class Compared(NamedTuple):
    """One cell."""

    devices: str
    joined: str
    tokens: int
    stages: str
    """That were chosen last."""
    local_s: float
    chosen_s: float
    chain_s: float
    over: float
    """Median over the turns of chosen over local."""
    error: float
    """About its standard error, as a share of it."""
    local_predicted_s: float
    chosen_predicted_s: float
    chain_predicted_s: float
    equal: bool
    told: int
    """Notices: a device failed, or was late."""
    turns: int

    @property
    def offs(self) -> dict[str, float]:
        """How far predictions were from what was measured, as a share of it."""
        return {
            LOCAL: self.local_predicted_s / self.local_s - 1.0,
            "chosen": self.chosen_predicted_s / self.chosen_s - 1.0,
            CHAIN: self.chain_predicted_s / self.chain_s - 1.0,
        }


def measure(setting: Setting) -> Iterator[Compared]:
    """All cells, device by device and link by link."""
    pack = setting.speed
    for kinds in DEVICES[: setting.scaled(len(DEVICES), 1)]:
        for joined in JOINED[: setting.scaled(len(JOINED), 1)]:
            with Home(pack, kinds, joined) as home:
                for name in (LOCAL, AUTO, CHAIN):
                    home.open(name, name)
                for tokens in setting.scaled(TOKENS, _QUICK_TOKENS):
                    tell(f"cells: {words_of(kinds)}; {joined.words}; {tokens} tokens")
                    yield _cell(setting, home, kinds, joined, tokens)


def _cell(
    setting: Setting, home: Home, kinds: Sequence[Kind], joined: Joined, tokens: int
) -> Compared:
    texts = setting.speed.texts(1, tokens)

    ways = {name: partial(home.run, name, texts) for name in (LOCAL, AUTO, CHAIN)}
    turns = Turns({name: [] for name in ways})
    for number in range(setting.scaled(_MOST_ROUNDS, 1)):
        warm_ups = 0 if number else _WARM_UPS
        turns.add(in_turns(ways, warm_ups=warm_ups, repeats=setting.repeats))
        if turns.ratio_error(AUTO, LOCAL) <= _ERROR:
            break
    return _compared(kinds, joined, tokens, turns)


def _compared(kinds: Sequence[Kind], joined: Joined, tokens: int, turns: Turns) -> Compared:
    ways = LOCAL, AUTO, CHAIN
    return Compared(
        words_of(kinds),
        joined.words,
        tokens,
        turns.runs[AUTO][-1].stages or LOCAL,
        *(turns.seconds(name) for name in ways),
        turns.ratio(AUTO, LOCAL),
        turns.ratio_error(AUTO, LOCAL),
        *(turns.predicted_s(name) for name in ways),
        turns.equal,
        len(turns.notices),
        len(turns.runs[LOCAL]),
    )


def words_of(kinds: Sequence[Kind]) -> str:
    """Devices in words: ``2 of 4x microsd``, ``8x microsd + 2 of 4x emmc``."""
    found = [(kind, kinds.count(kind)) for kind in dict.fromkeys(kinds)]
    return " + ".join(
        f"{count} of {kind.words}" if count > 1 else kind.words for kind, count in found
    )


def summarize(found: Sequence[Compared]) -> Summary:
    """The cells, the worst of them, and predictions."""
    if not found:
        return Summary()
    columns = (
        *(Column("devices"), Column("link"), Column("tokens"), Column("chosen")),
        *(Column("local, ms", ".1f"), Column("chosen, ms", ".1f"), Column("chain, ms", ".1f")),
        *(
            Column("chosen / local", ".3f"),
            Column("error", ".1%"),
            Column("turns"),
            Column("equal"),
            Column("told"),
        ),
        *(Column(f"predicted, {name}", "+.1%") for name in (LOCAL, "chosen", CHAIN)),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            *item[:4],
            *(item.local_s * 1e3, item.chosen_s * 1e3, item.chain_s * 1e3, item.over),
            *(item.error, item.turns),
            *("yes" if item.equal else "NO", item.told),
            *item.offs.values(),
        )
        for item in found
    ]
    over = [item.over for item in found]
    offs = {
        name: sorted(abs(item.offs[name]) for item in found) for name in (LOCAL, "chosen", CHAIN)
    }
    limits = [
        at_most(f"chosen over local, worst of {len(found)} cells", max(over), WORST),
        *(
            at_most(f"predicted off measured, {name}, worst cell", values[-1], OFF)
            for name, values in offs.items()
        ),
        *(
            ("predicted off measured, " + name + ", median cell", common.median(values), "-", "-")
            for name, values in offs.items()
        ),
    ]
    notes = [
        f"{sum(item.stages != LOCAL for item in found)} of {len(found)} cells were computed by "
        "several devices; predictions are those that runs were made with, after warm-ups"
    ]
    return Summary(limits, [Table("Chosen against local", columns, rows)], notes)
