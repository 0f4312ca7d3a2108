"""The intent classifier that ships, end to end: sound, small, elastic, aware of its limits."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

import sti
from shard_tools.data.rows import read_rows
from sti.cli.main import main
from sti.device.lanes import PIPELINED
from sti.pack.verify import verify
from tests.support.packs import PROFILE
from tests.support.paths import ROOT

PACK = ROOT / "models" / "clinc150-intents.sti.safetensors"
ROWS = read_rows(ROOT / "tests" / "golden" / "clinc150_sample.tsv")
INSIDE = [row for row in ROWS if row.label != "oos"]
OUTSIDE = [row for row in ROWS if row.label == "oos"]


@pytest.fixture(scope="module")
def engine() -> Iterator[sti.Engine]:
    with sti.Engine.open(PACK, threads=1, profile=PROFILE, adapt=False) as opened:
        opened.set_target(latency="10s")
        opened.run(["what time is it"])  # its threads are there before the first test
        yield opened


def accuracy(engine: sti.Engine) -> float:
    labels = engine.classify([str(row.text) for row in INSIDE])
    right = [found[0].name == row.label for found, row in zip(labels, INSIDE, strict=True)]
    return sum(right) / len(right)


def test_it_is_sound_and_small_and_the_file_that_its_card_names() -> None:
    report = verify(PACK)
    assert report.good
    assert report.sha256 in (ROOT / "models" / "clinc150-intents.md").read_text("utf-8")
    assert PACK.stat().st_size <= 20_000_000


def test_its_evaluations_are_of_this_pack(engine: sti.Engine) -> None:
    pages = sorted((ROOT / "models" / "evaluations").glob("clinc150-*.md"))
    assert len(pages) == 2
    for page in pages:
        assert f"pack {engine.pack_id}." in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("bits", [8, 2])
def test_it_answers_at_every_fidelity(engine: sti.Engine, bits: int) -> None:
    engine.set_target(fidelity=bits)
    assert accuracy(engine) >= 0.93


def test_plans_under_time_pressure_use_smaller_submodels_that_still_answer(
    engine: sti.Engine,
) -> None:
    engine.set_target()
    whole = engine.plan_for(tokens=16).predicted
    assert whole is not None
    sizes = []
    for share, least in ((0.6, 0.9), (0.1, 0.85)):
        jitter = PROFILE.run(PIPELINED).jitter
        engine.set_target(latency=timedelta(seconds=whole.total_s * jitter * share))
        plan = engine.plan_for(tokens=16)
        assert plan.predicted is not None and plan.predicted.quality is not None
        assert plan.predicted.total_s <= whole.total_s * share
        sizes.append(plan.depth * plan.width)
        target = plan.target._replace(latency_s=None)
        engine.set_target(plan=replace(plan, target=target))  # for all texts at once, too
        assert accuracy(engine) >= least
        classes = engine.run([str(row.text) for row in INSIDE]).classes  # in scope or not
        pairs = zip(classes, INSIDE, strict=True)
        found = sum(best.name == row.label for (best, *_), row in pairs) / len(INSIDE)
        assert plan.predicted.quality.low <= found + 0.03
    assert 72 >= sizes[0] > sizes[1]


def test_what_is_out_of_scope_is_told(engine: sti.Engine) -> None:
    engine.set_target()
    kept = engine.run([str(row.text) for row in INSIDE]).accepted
    refused = engine.run([str(row.text) for row in OUTSIDE]).accepted
    assert sum(kept) / len(kept) >= 0.9
    assert 1 - sum(refused) / len(refused) >= 0.5


def test_the_command_line_shows_intent_plan_and_timings(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = "move 100 dollars from my savings to my checking account"
    assert main(["run", str(PACK), sentence, "--latency", "10s"]) == 0
    shown, said = capsys.readouterr()
    assert "transfer" in shown
    for part in ("ms (plan ", ", storage ", "expected accuracy"):
        assert part in said


def test_the_loop_answers_every_line(tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(str(row.text) for row in INSIDE[:4]), encoding="utf-8")
    script = tmp_path / "intent_loop.py"
    shutil.copy(ROOT / "examples" / "intent_loop.py", script)
    done = subprocess.run(
        [sys.executable, script, PACK, "--latency", "10s", "--input", lines, "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 4
