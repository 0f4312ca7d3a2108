"""``sti run --engine mpi``: the ranks of a job answer as one machine does."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.commands import Cli
from tests.support.mpi import job, needs_mpi

pytestmark = needs_mpi
TEXTS = ("the dog runs", "under the table a cat runs")


def test_ranks_answer_with_the_bits_of_one_machine(cli: Cli, tiny_pack: Path) -> None:
    command = ("run", str(tiny_pack), *TEXTS, "--fidelity", "4", "--threads", "1", "--json")
    alone = cli(*command).json
    ended = job(3, ["-m", "sti", *command, "--engine", "mpi", "--strategy", "chain"])
    assert ended.returncode == 0, ended.stderr
    together = json.loads(ended.stdout)
    assert together["embeddings"] == alone["embeddings"]
    assert {stage["device"] for stage in together["stages"]} & {"rank1", "rank2"}
    assert "Traceback" not in ended.stderr


def test_a_command_that_fails_ends_all_ranks(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.safetensors")
    ended = job(2, ["-m", "sti", "run", missing, "a text", "--engine", "mpi"])
    assert ended.returncode != 0
    assert "cannot be opened" in ended.stderr


def test_one_rank_is_told_how_to_start_several(cli: Cli, tiny_pack: Path) -> None:
    ended = job(1, ["-m", "sti", "run", str(tiny_pack), "a text", "--engine", "mpi"])
    assert ended.returncode != 0
    assert "mpiexec -n 4" in ended.stderr
