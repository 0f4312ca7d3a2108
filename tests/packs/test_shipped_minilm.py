"""The pack that ships, end to end: sound, small, and close to the float model it was made of."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

import sti
from sti.pack.verify import verify
from tests.support.packs import PROFILE
from tests.support.paths import ROOT

PACK = ROOT / "models" / "all-MiniLM-L6-v2.sti.safetensors"
GOLDEN = json.loads((ROOT / "tests" / "golden" / "minilm_embeddings.json").read_text("utf-8"))
TEXTS: list[str] = GOLDEN["texts"]
FLOAT = np.array(GOLDEN["embeddings"], dtype=np.float32)


@pytest.fixture(scope="module")
def engine() -> Iterator[sti.Engine]:
    with sti.Engine.open(
        PACK, fidelity=8, preload="1MB", threads=1, profile=PROFILE, adapt=False
    ) as opened:
        opened.run(TEXTS)
        yield opened


def test_it_is_sound_and_small_and_the_file_that_its_card_names() -> None:
    report = verify(PACK)
    assert report.good
    assert report.sha256 in (ROOT / "models" / "all-MiniLM-L6-v2.md").read_text("utf-8")
    assert PACK.stat().st_size <= 20_000_000


@pytest.mark.parametrize(
    ("bits", "least"), [(8, 0.99), (6, 0.985), (4, 0.95), (3, 0.85), (2, 0.55)]
)
def test_embeddings_stay_close_to_the_float_model(
    engine: sti.Engine, bits: int, least: float
) -> None:
    engine.set_target(fidelity=bits)
    assert float((engine.embed(TEXTS) * FLOAT).sum(axis=1).mean()) >= least


def test_pipelined_and_sequential_runs_agree_to_the_bit(engine: sti.Engine) -> None:
    for bits in (2, 4, 8):
        engine.set_target(fidelity=bits, preload="500KB")
        piped, straight = engine.run(TEXTS), engine.run(TEXTS, mode="sequential")
        assert (piped.embeddings == straight.embeddings).all()


def test_like_texts_are_nearer_than_unlike_ones(engine: sti.Engine) -> None:
    engine.set_target(fidelity=3)
    vectors = engine.embed(TEXTS)
    scores = vectors @ vectors.T
    assert scores[0, 1] > scores[0, 2] and scores[3, 5] > scores[3, 2]


def test_a_target_between_the_fidelities_mixes_them(engine: sti.Engine) -> None:
    """Under time pressure important shards get more bits than others."""
    engine.set_target()
    predicted = engine.plan_for(tokens=128).predicted
    assert predicted is not None
    engine.set_target(latency=timedelta(seconds=predicted.total_s * 0.9))
    plan = engine.plan_for(tokens=128)
    assert plan.predicted is not None and plan.predicted.total_s <= predicted.total_s * 0.9
    assert len({block.counts for block in plan.steps}) > 1
    assert 0 < plan.predicted.loss < 0.7
    assert engine.run(TEXTS[:1]).embeddings.shape == (1, engine.dimension)


def test_the_example_finds_the_line_that_answers(tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join([*TEXTS[:3], TEXTS[5]]), encoding="utf-8")
    script = tmp_path / "semantic_search.py"
    shutil.copy(ROOT / "examples" / "semantic_search.py", script)
    done = subprocess.run(
        [sys.executable, script, PACK, lines, TEXTS[3], "--top", "1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert TEXTS[5] in done.stdout
