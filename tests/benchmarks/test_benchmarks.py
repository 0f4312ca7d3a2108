"""The benchmarks run, on tiny inputs, and report what they say they do. Nothing here is timed."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from benchmarks import (
    base_model,
    checking,
    common,
    corruption,
    opening,
    ort_models,
    start,
    streaming,
    stsb,
)
from benchmarks.base_model import SIZES, Planting, vocabulary, write_checkpoint
from benchmarks.ideal import Ideal
from sti.codec.decoders import kernel_path
from sti.device.lanes import shared
from sti.model.workload import Workload
from sti.planning.plan import PlanRequest
from sti.planning.uniform import uniform_plan
from tests.support.packs import TINY_BERT, tiny_bert
from tests.support.synthetic import make_manifest


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    return tiny_bert() / "checkpoint"


@pytest.fixture(scope="module")
def models() -> Path:
    return tiny_bert() / "models"


@pytest.fixture(scope="module")
def pack() -> Path:
    return tiny_bert() / "pack"


def report_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def rows_of(report: dict[str, Any], title: str) -> list[dict[str, Any]]:
    (table,) = [table for table in report["tables"] if table["title"].startswith(title)]
    rows: list[dict[str, Any]] = table["rows"]
    return rows


def test_same_seed_writes_the_same_checkpoint_and_another_seed_another(tmp_path: Path) -> None:
    files = []
    for place, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_checkpoint(tmp_path / place, TINY_BERT, Planting(), seed=seed)
        files.append((tmp_path / place / "model.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]


def test_only_the_planted_channels_leave_the_bulk(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    for name, matrix in tensors.items():
        if "dense" in name and name.endswith(".weight"):
            bulk = np.median(np.abs(matrix)) / 0.65
            channels = np.flatnonzero((np.abs(matrix) > 8.5 * bulk).any(axis=0))
            is_down = "attention" not in name and "output" in name
            assert len(channels) == (Planting().channels if is_down else 0), name


def test_weights_have_the_tails_of_a_trained_encoder() -> None:
    values = base_model.heavy_tailed(np.random.default_rng(0), 768, 768)
    beyond = (np.abs(values) > 3 * values.std()).mean()
    assert 0.0045 < beyond < 0.0065


def test_vocabulary_has_the_asked_size_and_no_word_twice() -> None:
    words = vocabulary(SIZES["base"].vocabulary)
    assert len(words) == 30522 == len(set(words))
    assert [words.index(word) for word in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")] == [
        0,
        100,
        101,
        102,
    ]
    with pytest.raises(ValueError, match="too small"):
        vocabulary(100)


def test_command_line_of_base_model_overrides_a_size(tmp_path: Path) -> None:
    sizes = ["--size", "tiny", "--layers", "1", "--hidden", "32", "--heads", "2", "--inner", "64"]
    assert base_model.main([str(tmp_path), *sizes]) == 0
    config = json.loads((tmp_path / "config.json").read_text())
    named = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    assert [config[name] for name in named] == [1, 32, 2, 64]


def test_every_int8_product_of_the_reference_is_fused(models: Path) -> None:
    # What is left unfused would slow the reference down and flatter the pack.
    nodes = onnx.load(models / "int8_optimized.onnx").graph.node
    kinds = Counter(node.op_type for node in nodes)
    fused = kinds["DynamicQuantizeMatMul"] + kinds["MatMulIntegerToFloat"]
    assert fused == 6 * TINY_BERT.layers
    assert kinds["MatMulInteger"] == 0


def test_reference_that_differs_from_the_graph_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort_models.Export, "gelu", lambda self, x: self.op("Relu", x))
    with pytest.raises(ValueError, match="differs from the reference"):
        ort_models.make_models(checkpoint, tmp_path)


def test_stsb_scores_the_references_and_every_fidelity(
    checkpoint: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = vocabulary(TINY_BERT.vocabulary)[-60:]
    lines = ["sentence1\tsentence2\tscore\tgenre"]
    for place in range(0, 60, 4):
        sentences = f'{words[place]} "{words[place + 1]}\t{words[place + 2]} {words[place + 3]}'
        lines.append(f"{sentences}\t{place % 5}.5\tnews")
    data = tmp_path / "dev.tsv"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    arguments = ["--pack", pack, "--checkpoint", checkpoint, "--data", data, "--output", "json"]
    assert stsb.main([*map(str, arguments), "--batch", "4", "--pairs", "12"]) == 0
    rows = rows_of(report_of(capsys), "STS")
    assert [row["system"].rpartition(", ")[2] for row in rows] == [
        *("float", "ORT fp32", "quantize_dynamic"),
        *(f"{bits} bits" for bits in (8, 6, 4, 3, 2)),
    ]
    assert rows[0]["against float"] == 0.0
    assert rows[3]["cosine to float, mean"] > 0.99
    assert [row["verdict"] is None for row in rows] == [*(True,) * 3, *(False,) * 4, True]


def test_streaming_compares_both_executors_at_every_fidelity(
    pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--bits", "4", "8", "--tokens", "16", "--repeats", "2", "--preload", "1KB"]
    assert streaming.main([str(pack), *sizes, "--output", "json"]) == 0
    report = report_of(capsys)
    rows = rows_of(report, "As planned")
    assert [(row["bits"], row["tokens"]) for row in rows] == [(4, 16), (8, 16)]
    assert all(row["end to end / ideal"] >= 1.0 for row in rows)
    assert all(0.0 < row["decode share"] < 1.0 for row in rows)
    assert all(row["predicted"] > 0 for row in rows)
    assert all(row["end to end / ideal schedule"] >= 1.0 for row in rows)
    assert rows[1]["MB read"] > rows[0]["MB read"] > 0
    assert len(rows_of(report, "Sequential")) == len(rows_of(report, "Roofline")) == 2
    assert [(row["limit on"], row["limit"]) for row in rows_of(report, "Limits")] == [
        ("end to end / ideal schedule, 4 bits, 16 tokens", "<= 1.04")
    ]


def streamed(bits: int, tokens: int, *, total_s: float, decode_s: float) -> streaming.Case:
    """A run on two threads that share the steps."""
    found = streaming.Sample(
        total_s=total_s,
        threads=shared(2),
        work_s={"storage": 4.0, "decode": decode_s, "compute": 10.0 - decode_s},
        stall_s=0.0,
        bytes_read=1,
        schedule=Ideal(limited_s=5.0, unlimited_s=5.0),
    )
    request = PlanRequest(make_manifest(Random(0)), "made up", Workload(1, 16))
    return streaming.Case(bits, tokens, [found], [found], uniform_plan(request, bits=bits))


def test_threads_that_share_steps_are_held_against_their_part_of_the_work() -> None:
    case = streamed(4, 128, total_s=6.0, decode_s=2.0)
    (planned,) = streaming.planned_table([case]).to_json()["rows"]
    assert planned["end to end / ideal"] == pytest.approx(6.0 / 5.0)
    assert planned["decode share"] == pytest.approx(0.2)
    (alone,) = streaming.alone_table([case]).to_json()["rows"]
    assert alone["planned / ideal, each alone"] == pytest.approx(6.0 / 5.0)
    shorter = replace(case.planned[0], work_s={"storage": 5.9, "decode": 1.0, "compute": 9.0})
    assert shorter.ideal_s == 5.9


def test_streaming_is_held_against_the_limits_of_its_lengths() -> None:
    cases = [
        streamed(4, 128, total_s=5.3, decode_s=1.1),
        streamed(4, 8, total_s=5.1, decode_s=5.0),
        streamed(4, 512, total_s=5.3, decode_s=5.0),
        streamed(2, 128, total_s=9.0, decode_s=5.0),
    ]
    found = [(row[0], row[2], row[3]) for row in streaming.limit_table(cases).rows]
    assert found == [
        ("end to end / ideal schedule, 4 bits, 128 tokens", "<= 1.04", "SHORT"),
        ("decoding's share of processor time, 4 bits, 128 tokens", "<= 0.1", "SHORT"),
        ("end to end / ideal schedule, 4 bits, 8 tokens", "<= 1.04", "met"),
        ("end to end / ideal schedule, 4 bits, 512 tokens", "<= 1.04", "SHORT"),
    ]


def test_streaming_refuses_answers_that_differ(
    pack: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = iter(range(1000))
    right = streaming.sample

    def drifting(*arguments: Any) -> Any:
        found, answer = right(*arguments)
        return found, answer + np.float32(1e-6 * next(taken))

    monkeypatch.setattr(streaming, "sample", drifting)
    with pytest.raises(SystemExit):
        streaming.main([str(pack), "--bits", "2", "--tokens", "16", "--repeats", "1"])
    assert "run differs" in capsys.readouterr().err


def test_tables_say_what_was_met_and_what_fell_short() -> None:
    rows = [common.at_most("a", 1.1, 1.1), common.at_least("b", 2.9, 3.0)]
    assert [row[-1] for row in rows] == ["met", "SHORT"]
    text = common.Table("Limits", common.LIMITS, rows).markdown()
    assert "| b        | 2.900 | >= 3   | SHORT   |" in text


def test_starts_are_compared_with_bare_imports(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    stand_in = tmp_path / "drop_caches"  # nobody's page cache is emptied for a test
    monkeypatch.setattr(start, "PAGE_CACHE", stand_in)
    synced: list[None] = []  # nor is waited for what other processes write
    monkeypatch.setattr(os, "sync", lambda: synced.append(None))
    assert start.main([str(pack), "--repeats", "1", "--output", "json"]) == 0
    report = report_of(capsys)
    rows = rows_of(report, "From exec to exit, warm")
    assert rows[0]["ratio"] == 1.0 and all(row["ms"] > 0 for row in rows)
    assert [row["limit"] for row in rows_of(report, "Limits")] == ["<= 1.3", "<= 1.3"]
    assert "cold starts were not measured" in json.dumps(report)
    stand_in.touch()
    assert start.main([str(pack), "--repeats", "1", "--output", "json"]) == 0
    report = report_of(capsys)
    assert stand_in.read_text() == "3" and synced
    assert len(rows_of(report, "From exec to exit, cold")) == len(rows)
    assert [row["limit"] for row in rows_of(report, "Limits")][2:] == ["<= 1.5", "<= 1.5"]
    with pytest.raises(SystemExit):
        start.main([str(tmp_path / "none")])


def test_the_cost_of_checking_is_measured_with_every_decoder(
    pack: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "TOKENS", (16, 32))
    assert checking.main([str(pack), "--pairs", "2", "--output", "json"]) == 0
    rows = rows_of(report_of(capsys), "Cost of checking")
    assert {row["decoder"] for row in rows} == {kernel_path(), "portable"}
    assert {row["tokens"] for row in rows} == {"16", "32"}
    assert all(row["ms"] > 0 and row["ms, unchecked"] > 0 for row in rows)


def test_damage_of_every_kind_is_tried_and_none_is_silent(
    pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = 2 * len(corruption.KINDS)
    assert corruption.main([str(pack), "--cases", str(cases), "--output", "json"]) == 0
    report = report_of(capsys)
    rows = rows_of(report, "What a run says")
    assert [row["damage"] for row in rows] == list(corruption.KINDS)
    said = sum(int(row[name]) for row in rows for name in corruption.OUTCOMES if row[name] != "-")
    assert said == cases and not report["notes"]


def test_a_process_that_dies_costs_one_case(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dies = [sys.executable, "-c", 'print(\'[0, "bit", "refused"]\')']
    monkeypatch.setattr(corruption, "command_for", lambda *_: dies)
    found = corruption.measure([pack], cases=2, seed=0)
    rows = dict(zip(corruption.KINDS, found.tables[0].rows, strict=True))
    assert rows["bit"][2] == "1" and rows["run"][-1] == "1"


def test_openings_are_timed_of_a_real_pack_and_of_a_deep_one(
    pack: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "DEEP", TINY_BERT)
    assert opening.main([str(pack), "--repeats", "2", "--output", "json"]) == 0
    rows = rows_of(report_of(capsys), "Opening")
    assert len(rows) == 3 and all(row["ms"] > 0 for row in rows)
    assert rows[-1]["what"] == "pack alone, 2 layers of 8 slice groups"
