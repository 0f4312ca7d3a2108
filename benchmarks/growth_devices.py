"""How a batch's time grows over several devices and over the links between them.

In: a pack, this machine's processors. Out: series of points, each a chain of emulated devices
beside one of them; the axes ``devices`` and ``links`` of ``benchmarks.growth``. Devices are child
processes on emulated networks (``benchmarks.devices``), as much slower than this machine as it
takes for its cores to carry all of them; they take turns with one device. Of each size of batch the
best chain is measured, whether or not it would be chosen. Knows nothing of the other axes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import Report
from benchmarks.devices.controller import BITS, Priced, Ran
from benchmarks.devices.home import Home, Joined
from benchmarks.devices.kinds import Kind, engine_options, loaded
from benchmarks.devices.packed import Packed
from benchmarks.devices.setting import in_turns
from benchmarks.growth_devices_fit import Point, Series, fit_table, pays_table, series_table
from benchmarks.growth_devices_scale import Scale
from benchmarks.growth_devices_work import Fleet, Load, load_of, operations
from benchmarks.network.switch import NoNetwork
from benchmarks.rows import tell
from sti.engine.engine import Engine
from sti.engine.targets import TargetSpec
from sti.errors import StiError
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.plan import LOCAL, Plan
from sti.planning.stages import CHAIN, Stage, layers_of

DEVICES, LINKS = "devices", "links"
_WARM_UPS, _BATCH_WARM_UPS = 2, 1
_CABLE, _WIFI = Joined(1000.0), Joined(300.0, shared=True)


def add_to(report: Report, pack: Path, scale: Scale, axes: Sequence[str], repeats: int) -> None:
    """Measure axes, and add what was found; why one cannot be measured here is a note.

    Args:
        axes: some of ``AXES``.
        repeats: turns of a single text; batches, which take long, have half as many.
    """
    found: list[Series] = []
    with tempfile.TemporaryDirectory(prefix="sti-profiles-") as place:
        packed = Packed.measured(pack, Path(place))
        report.about.append(
            f"several devices: {packed.name}, {BITS} bits; computing and decoding emulated, each "
            "device so many times slower than this machine, on one compute thread; profile: "
            f"{packed.machine.disturbed:.1%} of the time waited for a core; {repeats} turns of a "
            f"text, {_batch_repeats(repeats)} of a batch"
        )
        for axis in axes:
            bench = _Bench(packed, scale, repeats)
            try:
                found += AXES[axis](bench)
            except NoNetwork as error:
                report.notes.append(f"axis {axis}: not measured: {error}")
                continue
            except (OSError, RuntimeError, StiError) as error:
                report.notes.append(f"axis {axis}: failed: {error}")
            report.notes.append(f"axis {axis}: load of the machine: {os.getloadavg()[0]:.2f}")
            report.notes += dict.fromkeys(f"axis {axis}: {line}" for line in bench.told)
    report.tables += [series_table(series) for series in found]
    over_links = [series for series in found if series.unit != DEVICES]
    if over_links:
        report.tables.append(pays_table(over_links))
    if found:
        report.tables.append(fit_table(found))
        report.notes += [
            "chains of several devices: the best one of each size, whether or not it would be "
            "taken; answers were those of one device, to the bit",
            "where the best chain leaves nearly all layers to one device, it takes as long as one "
            "device alone, and which of them is faster is chance",
            "roof: the same work on storage, decoders, processors and links that are all busy all "
            "the time; the layers of a single text follow one another, so that of one text only "
            "storage adds up",
        ]


class _Chained(NamedTuple):
    """A home whose engine ``chain`` is measured at one x."""

    x: float
    home: Home
    fleet: Fleet


class _Bench:
    """The axes of several devices."""

    def __init__(self, packed: Packed, scale: Scale, repeats: int) -> None:
        self._packed, self._scale, self._repeats = packed, scale, repeats
        self.told: list[str] = []
        """What runs told: that a device failed, and this one answered alone."""

    def devices(self) -> Iterator[Series]:
        """Numbers of devices, with storage of each kind."""
        scale = self._scale
        for kind in scale.kinds:
            with ExitStack() as stack:
                homes = [
                    self._chained(stack, number, kind, number, _CABLE) for number in scale.numbers
                ]
                for asked in (scale.text, scale.large_batch):
                    name = f"{kind.words}, {_CABLE.words}, {asked.words}"
                    points = self._points(name, kind, homes, asked)
                    yield Series(name, DEVICES, tuple(points))

    def links(self) -> Iterator[Series]:
        """Rates of links of their own and of one medium, then lengths of a text."""
        scale, kind = self._scale, self._scale.link_kind
        with ExitStack() as stack:
            own = [self._chained(stack, rate, kind, 2, Joined(rate)) for rate in scale.mbit]
            one = [
                self._chained(stack, rate, kind, 2, Joined(rate, shared=True))
                for rate in scale.shared_mbit
            ]
            for asked in (scale.text, scale.batch):
                name = f"2 of {kind.words}, {asked.words}"
                _, *points = self._points(name, kind, [*own, *one], asked)
                yield Series(f"{name}, own links", "Mbit", tuple(points[: len(own)]))
                yield Series(f"{name}, one medium", "Mbit", tuple(points[len(own) :]))
        with ExitStack() as stack:
            yield self._lengths(self._chained(stack, 0.0, kind, 2, _WIFI), kind)

    def _lengths(self, chained: _Chained, kind: Kind) -> Series:
        """One text of different length."""
        name = f"2 of {kind.words}, {_WIFI.words}, 1 text"
        points = []
        for tokens in self._scale.lengths:
            home = chained._replace(x=tokens)
            points += self._points(name, kind, [home], Workload(1, tokens))[1:]
        return Series(name, "tokens", tuple(points))

    def _chained(
        self, stack: ExitStack, x: float, kind: Kind, devices: int, joined: Joined
    ) -> _Chained:
        packed = self._packed
        home = stack.enter_context(Home(packed, [kind] * devices, joined))
        for name in (LOCAL, CHAIN):
            home.open(name, name)
        return _Chained(x, home, Fleet(loaded(packed.profile_of(kind)), devices, joined))

    def _points(
        self, name: str, kind: Kind, homes: Sequence[_Chained], asked: Workload
    ) -> list[Point]:
        """One device, in the first of the homes, then the chain of each home."""
        tell(f"growth: {name}: {', '.join(f'{item.x:g}' for item in homes)}")
        texts = self._packed.texts(*asked)
        planned: dict[str, list[tuple[Priced, Ran]]] = {}

        def runs(home: Home, engine: str, place: str) -> Callable[[], Ran]:
            def run() -> Ran:
                found = home.price(CHAIN, texts=asked.batch, tokens=asked.tokens)
                ran = home.run(engine, texts)
                kept = planned.setdefault(place, [])
                kept += [(item, ran) for item in found if _is_of(item, ran)][:1]
                return ran

            return run

        alone = homes[0]._replace(x=1, fleet=homes[0].fleet._replace(devices=1))
        ways = {LOCAL: runs(alone.home, LOCAL, LOCAL)}
        ways |= {str(place): runs(item.home, CHAIN, str(place)) for place, item in enumerate(homes)}
        warm_ups, repeats = _WARM_UPS, self._repeats
        if asked.batch > 1:
            warm_ups, repeats = _BATCH_WARM_UPS, _batch_repeats(repeats)
        turns = in_turns(ways, warm_ups=warm_ups, repeats=repeats)
        if not turns.equal:
            raise RuntimeError(f"{name}: answers of chains differ from those of one device")
        self.told += [f"{name}: {line}" for line in turns.notices]
        alone_s, alone_predicted_s = turns.seconds(LOCAL), turns.predicted_s(LOCAL)
        points = []
        with _planner(self._packed, kind) as engine:
            plan = engine.plan_for(tokens=asked.tokens, batch=asked.batch)
            for place, item in zip(ways, (alone, *homes), strict=True):
                if not planned.get(place):
                    raise RuntimeError(f"{name}: no run went as it was planned: {turns.notices}")
                priced, ran = planned[place][-1]
                stages = _stages_of(ran, plan)
                load = _load(engine, plan, item.fleet, stages, priced, asked)
                points.append(
                    Point(
                        item.x,
                        item.fleet.devices,
                        ran.stages or LOCAL,
                        priced.units,
                        operations(engine.manifest, plan, *asked),
                        ran.bytes_read,
                        priced.sent_bytes,
                        turns.seconds(place),
                        turns.predicted_s(place),
                        load.roof_s,
                        load.limiting,
                        alone_s,
                        alone_predicted_s,
                    )
                )
        return points


AXES: Mapping[str, Callable[[_Bench], Iterator[Series]]] = {
    DEVICES: _Bench.devices,
    LINKS: _Bench.links,
}


def _batch_repeats(repeats: int) -> int:
    return (repeats + 1) // 2


def _planner(packed: Packed, kind: Kind) -> Engine:
    """An engine that plans as the controller does; it runs nothing."""
    options = engine_options(packed.path, loaded(packed.profile_of(kind)), kind, None, tell)
    return Engine(PackReader.open(packed.path), TargetSpec(fidelity=BITS), options)


def _load(
    engine: Engine,
    plan: Plan,
    fleet: Fleet,
    stages: Sequence[Stage],
    priced: Priced,
    asked: Workload,
) -> Load:
    return load_of(
        engine.manifest,
        plan,
        fleet,
        stages,
        units=priced.units,
        workload=asked,
        sent_bytes=priced.sent_bytes,
    )


def _is_of(priced: Priced, ran: Ran) -> bool:
    """Whether a run went as a strategy says; of several with other units, the first is the best."""
    return priced.words == (f"{CHAIN}: {ran.stages}" if ran.stages else LOCAL)


def _stages_of(ran: Ran, plan: Plan) -> list[Stage]:
    """Read ``Ran.stages``."""
    if not ran.stages:
        layers = layers_of(plan)
        return [Stage(LOCAL, layers[0], layers[-1])]
    found = []
    for words in ran.stages.split(", "):
        device, _, span = words.rpartition(" ")
        first, _, last = span.partition("-")
        found.append(Stage(device, int(first), int(last)))
    return found
