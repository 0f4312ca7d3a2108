"""A budget of memory is kept: all that a process grows by, as the system counts it."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import ENVIRONMENT
from tests.support.packs import PROFILE, tiny_pack
from tests.support.paths import ROOT

INTENTS = ROOT / "models" / "clinc150-intents.sti.safetensors"
MINILM = ROOT / "models" / "all-MiniLM-L6-v2.sti.safetensors"
MB = 1_000_000
LENGTHS = (3, 30, 120, 8, 60, 3)
"""Words of texts, in turn."""
_LOOK_S = 5e-4
CHILD = """
import json, sys
import numpy, onnxruntime, sti
from sti.device.profile import DeviceProfile

job = json.loads(sys.stdin.readline())
sti.Engine
profile = DeviceProfile.from_json(job["profile"], where="the test")
print("ready", flush=True)
sys.stdin.readline()
refused = 0
with sti.Engine.open(job["pack"], profile=profile, **job["target"]) as engine:
    for number, words in enumerate(job["lengths"]):
        if number == 2:
            engine.preloaded()
        try:
            engine.run(["the dog " * ((words + 1) // 2)] * job["texts"])
        except sti.InfeasibleError as error:
            assert error.limit == "memory"
            refused += 1
    engine.preloaded()
    engine.run(["the dog"])
    mapped = engine.mapped_bytes > 0
print(json.dumps({"refused": refused, "mapped": mapped}), flush=True)
"""


def anonymous_bytes(pid: int) -> int:
    words = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    return (int(words[1]) - int(words[2])) * mmap.PAGESIZE


def peak_of(pack: Path, target: dict[str, Any], *, texts: int = 1) -> tuple[int, dict[str, Any]]:
    """How many bytes a process grows by that runs texts of several lengths, at most; and what it
    told.
    """
    job = {
        "pack": str(pack),
        "target": {"threads": 2, **target},
        "lengths": LENGTHS,
        "texts": texts,
        "profile": PROFILE.to_json(),
    }
    with subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    ) as child:
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        child.stdin.write(f"{json.dumps(job)}\n")
        child.stdin.flush()
        assert child.stdout.readline() == "ready\n", child.stderr.read()
        before = peak = anonymous_bytes(child.pid)
        child.stdin.write("\n")
        child.stdin.flush()
        while child.poll() is None:
            with suppress(OSError, IndexError):  # it has just ended
                peak = max(peak, anonymous_bytes(child.pid))
            time.sleep(_LOOK_S)
        out, said = child.communicate()
    assert child.returncode == 0, said[-2000:]
    return peak - before, json.loads(out)


counted = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="the system does not count a process's memory"
)


@counted
@pytest.mark.parametrize(
    ("pack", "target", "texts"),
    [
        pytest.param(None, {"memory": "5MB"}, 1, id="tiny, little"),
        pytest.param(None, {"memory": "15MB", "threads": 1}, 8, id="tiny, a graph"),
        pytest.param(MINILM, {"memory": "9MB", "fidelity": 2}, 1, id="shipped, little"),
        pytest.param(MINILM, {"memory": "20MB"}, 4, id="shipped, several texts"),
    ],
)
def test_a_process_grows_by_less_than_the_budget(
    pack: Path | None, target: dict[str, Any], texts: int
) -> None:
    grown, told = peak_of(pack or tiny_pack(), target, texts=texts)
    assert MB < grown <= float(target["memory"].removesuffix("MB")) * MB
    assert told["refused"] < len(LENGTHS)
    assert told["mapped"] == (target["memory"] == "15MB")


@counted
def test_a_process_that_plans_for_a_latency_first_grows_by_less_than_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    grown, _ = peak_of(INTENTS, {"memory": "14MB", "latency": "200ms"})
    assert grown <= 14 * MB
