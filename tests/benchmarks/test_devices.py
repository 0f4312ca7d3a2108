"""The benchmark of several devices: what it makes of runs, made-up ones and real ones, untimed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from random import Random
from statistics import stdev

import numpy as np
import pytest

from benchmarks.devices import __main__ as devices
from benchmarks.devices import cells, equal, links, shares, speed, start
from benchmarks.devices.controller import Ran
from benchmarks.devices.home import Home
from benchmarks.devices.kinds import CountingReader, Kind, covered_bytes, loaded
from benchmarks.devices.packed import Packed
from benchmarks.devices.setting import Setting, Turns, in_turns, middle
from benchmarks.slow_device import emulated
from sti.device.emulated_storage import parse_storage
from sti.planning.links import FLOAT16, INT8
from sti.planning.plan import LOCAL
from sti.planning.strategies import CHAIN
from sti.storage.byte_ranges import SECTOR, ByteRange
from sti.storage.file_reader import FileReader
from sti.storage.reader import aligned_buffer
from tests.support.packs import PROFILE, TEXTS, tiny_pack

RAN = Ran(1.0, 1.0, "", 1, "bits", [])


@pytest.fixture
def packed(tmp_path: Path) -> Packed:
    return Packed(tiny_pack(), tmp_path, PROFILE)


def test_devices_give_the_bits_of_one_and_are_counted(packed: Packed) -> None:
    with Home(packed, [Kind(), Kind(2.0, "ufs4")], None) as home:
        for name in (LOCAL, CHAIN):
            home.open(name, name)
        runs = {name: home.run(name, TEXTS) for name in (LOCAL, CHAIN)}
        assert "w1" in runs[CHAIN].stages
        assert not runs[LOCAL].stages
        assert runs[LOCAL].digest == runs[CHAIN].digest
        priced = home.price(CHAIN, texts=1, tokens=8)
        assert [item.name for item in priced][:2] == [LOCAL, CHAIN]
        assert sum(item.taken for item in priced) == 1
        assert priced[0].sent_bytes == 0 < priced[1].sent_bytes
        assert home.counted()["w1"].read_bytes > 0
        assert home.counted()["w1"] == (0, 0)
        stages = equal.cut([LOCAL, "w1"], packed.layers)
        assert home.stages(TEXTS, stages, units=2) == home.digests(LOCAL, TEXTS)
        with pytest.raises(RuntimeError, match="InputError"):
            home.run(LOCAL, [])


def test_rows_are_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        devices.main(["pack", "--rows", "latency,none"])
    assert "'none' is none of equal, links, latency" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        devices.main(["/nowhere/pack", "--rows", "start"])
    assert "/nowhere/pack" in capsys.readouterr().err


def test_numbers_on_links_are_compared_with_one_device(tmp_path: Path, packed: Packed) -> None:
    lines = ["sentence1\tsentence2\tscore"]
    lines += [f"{TEXTS[place % 3]}\t{TEXTS[place % 2]}\t{place}" for place in range(6)]
    data = tmp_path / "dev.tsv"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = list(links.measure(Setting(packed, packed, data, 1, quick=True)))
    assert {(item.link_type, item.cuts) for item in found} >= {(FLOAT16, 1), (INT8, 1)}
    assert all(item.off == 0.0 for item in found if item.link_type == "float32")
    assert all(0.9 < item.least_cosine < 1.0 for item in found if item.link_type == INT8)
    limits = links.summarize(found).limits
    assert [limit for _, _, limit, _ in limits[-2:]] == ["<= 0.001", "<= 0.003"]
    with pytest.raises(ValueError, match="--stsb"):
        list(links.measure(Setting(packed, packed, None, 1, quick=True)))


def test_a_single_text_that_differs_is_told() -> None:
    same = equal.Equal("MPI", 2, "w1 0-1", "each alone", 4, 4)
    for found, verdict in ([same], "met"), ([same, same._replace(same=3)], "SHORT"), ([], "SHORT"):
        assert equal.summarize(found).limits[0][-1] == verdict
    assert equal.cut(["a", "b", "c"], 7) == [("a", 0, 1), ("b", 2, 3), ("c", 4, 6)]


def cell(**changed: object) -> cells.Compared:
    usual = cells.Compared(
        *("2 of 4x", "125 Mbit", 16, LOCAL, 1.0, 1.0, 2.0, 1.0, 0.01, 1.1, 1.1, 1.9, True, 0, 3)
    )
    return usual._replace(**changed)  # type: ignore[arg-type]


def test_cells_are_held_against_the_worst() -> None:
    summary = cells.summarize([cell(), cell(over=1.2), cell(chain_predicted_s=1.5)])
    found = {name: (figure, verdict) for name, figure, _, verdict in summary.limits}
    assert found["chosen over local, worst of 3 cells"] == (1.2, "SHORT")
    assert found["predicted off measured, chain, worst cell"] == (0.25, "SHORT")
    assert found["predicted off measured, local, worst cell"][1] == "met"
    assert cells.words_of([Kind(4.0, "emmc"), Kind(2.0), Kind(2.0)]) == "4x emmc + 2 of 2x own disk"


def test_speed_is_held_against_one_device() -> None:
    timed = speed.Timed("text", 2, 1, "w1 0-1", 1.5, 1.0, 1.5, 1.5, 1.0, True, 3)
    assert speed.summarize_latency([timed]).limits[0][-1] == "met"
    assert speed.summarize_throughput([timed]).limits[0][-1] == "SHORT"
    share = shares.Share(2, "w1", 100, 104, 100, 106)
    assert [row[-1] for row in shares.summarize([share]).limits] == ["met", "SHORT"]
    assert shares.over(1, 0) == float("inf")
    started = start.Started(0.1, 0.2, 1.1, "w1, local")
    assert start.summarize([started]).limits[0][-1] == "SHORT"


def test_turns_alternate_and_are_compared_pair_by_pair() -> None:
    order: list[str] = []

    def way(name: str, seconds: float) -> Ran:
        order.append(name)
        return RAN._replace(total_s=seconds * len(order), digest=name[0])

    turns = in_turns(
        {"a": lambda: way("a", 1.0), "b": lambda: way("b", 2.0)}, warm_ups=1, repeats=2
    )
    assert "".join(order) == "ababba"
    assert {name: len(runs) for name, runs in turns.runs.items()} == {"a": 2, "b": 2}
    assert not turns.equal
    assert Turns({"a": [RAN], "b": [RAN]}).equal
    assert middle([3.0, 1.0, 2.0]) == 2.0
    assert middle([1.0, 2.0]) == 1.5


def test_each_way_is_behind_each_other_one_as_often() -> None:
    order: list[str] = []

    def way(name: str) -> Ran:
        order.append(name)
        return RAN

    in_turns({name: partial(way, name) for name in "abc"}, warm_ups=0, repeats=6)
    turns = ["".join(order[place : place + 3]) for place in range(0, 18, 3)]
    assert sorted(turns) == ["abc", "acb", "bac", "bca", "cab", "cba"]


def test_a_ratio_is_as_sure_as_its_turns_agree() -> None:
    def turns(*ratios: float) -> Turns:
        found = [RAN._replace(total_s=ratio) for ratio in ratios]
        return Turns({"a": found, "b": [RAN._replace(total_s=1.0)] * len(ratios)})

    few, many, sure = turns(0.8, 1.0, 1.2), turns(*(0.8, 1.0, 1.2) * 12), turns(1.0, 1.0, 1.0)
    assert sure.ratio_error("a", "b") == 0.0
    assert few.ratio_error("a", "b") > 2.0 * many.ratio_error("a", "b") > 0.0
    # Against what drawing anew gives.
    random = Random(0)
    drawn = turns(*(random.gauss(1.0, 0.1) for _ in range(400)))
    medians = [middle([random.gauss(1.0, 0.1) for _ in range(400)]) for _ in range(400)]
    assert drawn.ratio_error("a", "b") == pytest.approx(stdev(medians), rel=0.25)


def test_what_is_read_is_counted_with_the_memory_that_it_fills(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(8 * SECTOR))
    reader = CountingReader(FileReader(path))
    buffer = aligned_buffer(4 * SECTOR)
    for place, size in ((0, 2), (1, 2), (0, 1)):
        start = place * SECTOR
        reader.read(ByteRange(0, size * SECTOR), buffer[start : start + size * SECTOR])
    assert reader.counted == (5 * SECTOR, 3 * SECTOR)
    reader.begin_anew()
    reader.read_rows(0, np.array([0]), np.zeros((1, SECTOR), np.uint8))
    assert reader.counted == (0, 0)
    reader.close()
    assert covered_bytes({0: 10, 5: 2, 20: 5, 22: 10}) == 22


def test_a_kind_of_device_has_the_profile_of_its_parts(packed: Packed) -> None:
    profile = loaded(packed.profile_of(Kind(3.0, "microsd")))
    assert profile.storage.bytes_per_s == parse_storage("microsd").bytes_per_s
    assert profile.decode.shard_s >= 3 * PROFILE.decode.shard_s
    assert loaded(packed.profile_of(Kind())) == emulated(PROFILE)
