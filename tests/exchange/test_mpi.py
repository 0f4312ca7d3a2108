"""Members over MPI: jobs of four ranks, whose results are compared with those of threads."""

from __future__ import annotations

import hashlib
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from sti.exchange.threads import thread_exchanges
from tests.exchange.mpi_work import collected
from tests.support import mpi
from tests.support.mpi import needs_mpi

pytestmark = needs_mpi


def job(ranks: int, *words: str) -> subprocess.CompletedProcess[str]:
    return mpi.job(ranks, ["-m", "tests.exchange.mpi_rank", *words])


@pytest.mark.parametrize("thread_level", ["multiple", "serialized"])
def test_ranks_keep_the_contract_and_get_the_bits_that_threads_do(thread_level: str) -> None:
    done = job(4, "contract", thread_level)
    assert done.returncode == 0, done.stderr
    said = {line["rank"]: line["found"] for line in map(json.loads, done.stdout.splitlines())}
    assert set(said) == {0, 1, 2, 3}
    for count in range(1, 5):
        for rank, hashes in enumerate(hashes_of_threads(count)):
            assert said[rank][str(count)] == hashes


def hashes_of_threads(count: int) -> list[list[str]]:
    """Of what each of so many members collects."""
    members = thread_exchanges(f"rank{rank}" for rank in range(count))

    def act(rank: int) -> list[str]:
        parts = collected(members[f"rank{rank}"], count, rank)
        return [hashlib.sha256(part).hexdigest() for part in parts]

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(act, range(count)))


def test_a_rank_that_dies_ends_the_job_and_nobody_hangs() -> None:
    done = job(2, "death", "")
    assert done.returncode != 0
