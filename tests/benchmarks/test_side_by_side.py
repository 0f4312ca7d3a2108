"""The side-by-side comparison of a tiny model, and limits on made-up figures; nothing is timed."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import side_by_side, side_by_side_limits, side_by_side_systems
from benchmarks.cgroups import NoGroups, memory_group
from benchmarks.memory_limits import Limited, measure_limited
from benchmarks.side_by_side_limits import limits_of
from benchmarks.side_by_side_plot import as_svg
from benchmarks.systems import storage_alone
from benchmarks.systems.other_systems import other_systems
from benchmarks.systems.pooling import mean_pooled
from sti.benchmark.comparison import Figures
from sti.benchmark.system_child import System
from sti.benchmark.system_process import Spec
from sti.device import host
from sti.engine.engine import Engine
from sti.storage.byte_ranges import ByteRange
from sti.storage.file_reader import FileReader
from tests.support.drawings import check_layout
from tests.support.packs import tiny_bert

VNNI, PLAIN = "avx512+vnni", "avx2"
PIPE = side_by_side_systems.PIPE


def figures(name: str, ms: float, size: int = 1) -> Figures:
    return Figures(
        System(name, "module", Spec("file", ("text",), ((1,),), 1), ()),
        open_s=[0.001],
        cold_s=[ms * 2e-3],
        rested_s=[ms * 1e-3 + 0.01],
        warm_s=[ms * 1e-3],
        peak_bytes=[size, 9 * size, size],
        steady_bytes=size,
    )


def both(name: str, one: float, every: float, size: int) -> list[Figures]:
    return [figures(name, one, size), figures(f"{name}, all cores", every, size + 1)]


def all_figures() -> list[Figures]:
    return [
        *both("STI", 60.0, 44.0, 39),
        *both("ORT int8", 50.0, 32.0, 160),
        *both("ORT fp32", 700.0, 400.0, 600),
        *both("ORT int8, prepacked and mapped", 70.0, 66.0, 100),
        *both("ORT layers in turn", 90.0, 110.0, 50),
        *both("ORT layers in a pipe", 65.0, 55.0, 60),
        figures("STI's storage lane alone", 40.0),
    ]


def limited(ours: dict[int | None, float], pipe: dict[int | None, float]) -> Limited:
    found = {("STI, all cores", mb): figures("STI, all cores", ms) for mb, ms in ours.items()}
    found.update({(PIPE, mb): figures(PIPE, ms) for mb, ms in pipe.items()})
    return Limited(found)


def verdicts(table: Any) -> dict[str, tuple[Any, Any]]:
    return {row[0]: (row[1], row[3]) for row in table.rows}


def test_base_is_held_against_its_limits() -> None:
    inside = limited({None: 44, 160: 44, 112: 50, 72: 52, 64: 60}, {160: 90, 112: 100})
    table = limits_of("base", all_figures(), inside, VNNI)
    assert table is not None and "with int8 dot products" in table.title
    assert [(row[1], row[2], row[3]) for row in table.rows] == [
        (pytest.approx(1.1), "<= 1.1", "met"),
        (pytest.approx(1.375), None, None),
        (pytest.approx(54 / 42), None, None),
        (pytest.approx(1.2), "<= 1.2", "met"),
        (pytest.approx(32 / 44), ">= 3", "SHORT"),
        (pytest.approx(400 / 44), ">= 11", "SHORT"),
        (pytest.approx(1.5), ">= 1.6", "SHORT"),
        (pytest.approx(1.25), ">= 1.4", "SHORT"),
        (0.25, "<= 0.2", "SHORT"),
        (0.8, "<= 0.9", "met"),
        (pytest.approx(2.0), ">= 2", "met"),
        (pytest.approx(2.0), ">= 1.8", "met"),
        (pytest.approx(90 / 44), ">= 2", "met"),
        (pytest.approx(90 / 44), ">= 1.8", "met"),
        (72, "<= 64", "SHORT"),
    ]


def test_processors_without_dot_products_have_limits_of_their_own() -> None:
    table = limits_of("base", all_figures(), Limited(), PLAIN)
    assert table is not None and "without int8 dot products" in table.title
    limits = [row[2] for row in table.rows]
    assert limits[3:6] == ["<= 1.05", ">= 2", ">= 7"]
    assert len(limits) == 10  # nothing was measured within memory limits
    for name in ("neon+dotprod", "neon+i8mm", "amx", "avx2+vnni"):
        table = limits_of("base", all_figures(), Limited(), name)
        assert table is not None and "with int8 dot products" in table.title
    table = limits_of("base", all_figures(), Limited(), VNNI, saturates=True)
    assert table is not None and "without int8 dot products" in table.title
    assert [row[2] for row in table.rows] == limits


def test_a_short_text_is_held_against_the_reads_alone() -> None:
    short = [*both("STI", 44.0, 41.0, 39), figures("STI's storage lane alone", 40.0)]
    table = limits_of("base", all_figures(), Limited(), VNNI, short)
    assert table is not None
    assert table.rows[-2:] == [
        (
            "warm, 16 tokens, all cores, over STI's storage lane alone",
            pytest.approx(41 / 40),
            *("<= 1.05", "met"),
        ),
        (
            "warm, 16 tokens, one thread, over STI's storage lane alone",
            pytest.approx(1.1),
            *("<= 1.05", "SHORT"),
        ),
    ]


def test_every_table_has_what_a_short_text_is_held_against() -> None:
    place = tiny_bert()
    model = side_by_side_systems.Model(
        "tiny", place / "checkpoint", place / "pack", place / "models", place / "none"
    )
    assert side_by_side_limits.SHORT_TEXT in side_by_side.OTHERS
    spec = side_by_side_systems.spec_of(model, 1, 16)
    names = [item.name for item in side_by_side_systems.few_systems(model, spec)]
    assert names[:3] == ["STI", "STI, all cores", "STI's storage lane alone"]
    every = [item.name for item in side_by_side_systems.own_systems(model, spec)]
    assert len(every) == len(set(every)) and set(names) < set(every)


def test_no_answer_within_a_memory_limit_counts() -> None:
    slow = limited({None: 10, 112: 90, 160: 90}, {})
    slow.found[PIPE, 112] = slow.found[PIPE, 160] = Figures(figures(PIPE, 1).system, failed="gone")
    del slow.found["STI, all cores", 160]
    table = limits_of("base", all_figures(), slow, VNNI)
    assert table is not None
    assert [row[3] for row in table.rows[-5:]] == [
        *("met: the other has no answer",) * 2,
        *("SHORT: no answer",) * 2,
        "SHORT",
    ]


def test_other_models_have_fewer_limits() -> None:
    minilm = limits_of("minilm", all_figures(), Limited(), VNNI)
    large = limits_of("large", all_figures(), Limited(), VNNI)
    assert minilm is not None and large is not None
    assert [row[2] for row in minilm.rows] == ["<= 1.3", ">= 1.2", ">= 1.15"]
    assert [row[1:] for row in large.rows] == [(0.25, "<= 0.125", "SHORT")]
    assert limits_of("tiny", all_figures(), Limited(), VNNI) is None


def test_a_system_without_figures_is_named_instead_of_limits() -> None:
    table = limits_of("minilm", all_figures()[:-1], Limited(), VNNI)
    assert table is not None and not table.rows
    assert "STI's storage lane alone" in table.title and "no figures" in table.title


def test_the_comparison_is_drawn() -> None:
    drawn = as_svg(all_figures())
    assert drawn == as_svg(all_figures()) and drawn.count("<svg") == 1 and "ORT int8" in drawn
    check_layout(drawn)


def test_every_system_is_measured_on_the_same_texts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--models", "tiny", "--cold", "1", "--warm", "1", "--quick"]
    arguments = [str(tmp_path), *options, "--memory-limits", "--output", "json"]
    assert side_by_side.main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    (table,) = report["tables"]
    rows = {row["system"]: row for row in table["rows"]}
    pairs = ("STI", "ORT fp32", "ORT int8", "ORT int8, prepacked and mapped")
    pairs += ("ORT layers in turn", PIPE)
    assert set(rows) >= {name + suffix for name in pairs for suffix in ("", ", all cores")}
    assert set(rows) >= {"STI, load then execute", "STI's storage lane alone", "ORT fp32, mapped"}
    assert sum("paper's" in name for name in rows) == 4
    alone = rows.pop("STI's storage lane alone")
    assert alone["cosine"] == "-"
    assert all(float(row["cosine"]) > 0.3 for row in rows.values())
    notes = report["notes"]
    assert not [note for note in notes if "no figures" in note]
    assert [note for note in notes if "CTranslate2" in note and "no --python" in note]


def test_what_another_interpreter_lacks_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such package >&2\nexit 1\n", encoding="utf-8")
    python.chmod(0o755)
    place = tiny_bert()
    model = side_by_side_systems.Model(
        "tiny", place / "checkpoint", place / "pack", place / "models", place / "none"
    )
    spec = side_by_side_systems.spec_of(model, 1, 16)
    told: list[str] = []
    found, left_out = other_systems(model, tmp_path, spec, python, tell=told.append)
    assert {system.python for system in found} == {sys.executable}
    names = ("CTranslate2", "OpenVINO", "LiteRT", "llama.cpp", "accelerate")
    assert [line.partition(":")[0] for line in left_out] == list(names)
    assert all(line.endswith("no such package") for line in left_out)


def test_the_storage_lane_alone_reads_what_a_run_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[ByteRange] = []
    read = FileReader.read

    def noted(self: FileReader, item: ByteRange, out: Any) -> None:
        reads.append(item)
        read(self, item, out)

    monkeypatch.setattr(FileReader, "read", noted)
    pack = tiny_bert() / "pack"
    asked = {"fidelity": 4, "preload": "5KB"}
    with Engine.open(pack, threads=1, **asked) as engine:
        (text,) = ["ba be bi bo bu"]
        ids = tuple(map(int, engine.tokenize([text])[0].ids))
        engine.run([text])
        assert engine.preloaded(10.0)
        reads.clear()
        engine.run([text])
        wanted = sorted(reads)
    system = storage_alone.prepare(Spec(str(pack), (text,), (ids,), 1, dict(asked)))()
    system.run()
    system.settle()
    reads.clear()
    assert system.run().shape == (1, 1)
    assert sorted(reads) == wanted and wanted
    system.close()


def test_read_ahead_is_told_where_the_system_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "ROOT", tmp_path)
    assert side_by_side.read_ahead(tmp_path) == []
    device = tmp_path.stat().st_dev
    place = tmp_path / "sys" / "class" / "bdi" / f"{os.major(device)}:{os.minor(device)}"
    place.mkdir(parents=True)
    (place / "read_ahead_kb").write_text("128\n", encoding="ascii")
    (line,) = side_by_side.read_ahead(tmp_path)
    assert "read 128 KiB ahead" in line


def test_padding_is_not_pooled() -> None:
    hidden = np.array([[[3.0, 4.0], [9.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    found = mean_pooled(hidden, [1, 2])
    np.testing.assert_allclose(found, [[0.6, 0.8], [0.5**0.5, 0.5**0.5]], rtol=1e-6)


def test_the_smallest_limit_is_one_in_which_cold_and_warm_fit() -> None:
    inside = limited({None: 10, 160: 10, 96: 12, 64: 12.1}, {})
    assert inside.smallest("STI, all cores") == 96
    inside.found["STI, all cores", 96].cold_s = [1.0]
    assert inside.smallest("STI, all cores") == 160
    assert limited({None: 10, 64: 13}, {}).smallest("STI, all cores") is None
    assert limited({64: 10}, {}).smallest("STI, all cores") is None


def has_groups() -> bool:
    try:
        with memory_group(2_000_000_000):
            return True
    except NoGroups:
        return False


def test_systems_run_within_memory_limits_or_it_is_said_why_not() -> None:
    pack = tiny_bert() / "pack"
    spec = Spec(str(pack), ("ba be",), ((1,),), 1, {"fidelity": 4})
    good = System("STI", "sti.benchmark.systems.sti_pack", spec, (pack,))
    bad = replace(good, name="bad", spec=replace(spec, file="nowhere"))
    told: list[str] = []
    done = measure_limited([(good, (2000,)), (bad, ())], cold=1, warm=1, progress=told.append)
    if not has_groups():
        assert not done.found and done.missing
        return
    rows = {(row[0], row[2]): row for row in done.table("title").rows}
    assert list(rows) == [("STI", "none"), ("STI", "2000 MB"), ("bad", "none")]
    for limit in ("none", "2000 MB"):
        assert rows["STI", limit][3] and rows["STI", limit][4] and rows["STI", limit][-1] is None
    assert "nowhere" in str(rows["bad", "none"][-1]) and rows["bad", "none"][3] is None
    assert len(told) == 3


def test_systems_run_within_limits_with_the_threads_they_are_fastest_with() -> None:
    failed = Figures(figures("ORT layers in turn", 1).system, failed="gone")
    chosen = side_by_side.limited_systems([*all_figures(), failed])
    assert [system.name for system in chosen] == [
        *("STI, all cores", "ORT int8, all cores", "ORT int8, prepacked and mapped, all cores"),
        *("ORT layers in turn", "ORT layers in a pipe, all cores"),
    ]
