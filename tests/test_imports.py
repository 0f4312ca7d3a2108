"""What opening and running a pack needs of a machine: nothing but NumPy and ONNX Runtime."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sti
from sti.report.installation import install_hint
from sti.storage.digest import sha256

RUN = """
import json, sys
{before}
import sti
with sti.Engine.open({pack!r}, fidelity={fidelity}, threads=1) as engine:
    result = engine.run(["the dog runs", "under the table"])
print(json.dumps({{"modules": sorted(sys.modules), "bytes": result.bytes_read}}))
"""

ANDROID = """
import builtins, io, os, sys
sys.platform = "android"
DENIED = ("/proc/stat", "/proc/loadavg", "/proc/uptime", "/proc/pressure")

def deny(real):
    def guarded(path, *args, **kwargs):
        if str(path).startswith(DENIED):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)
    return guarded

builtins.open, io.open, os.open = deny(open), deny(io.open), deny(os.open)
os.getloadavg = lambda: (_ for _ in ()).throw(OSError("denied"))
"""


def run(code: str, tmp_path: Path, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    root = str(Path(sti.__file__).parent.parent)
    environment = {
        **os.environ,
        "PYTHONPATH": root,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHONWARNINGS": "error",
    }
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
        timeout=120,
    )
    assert not check or ended.returncode == 0, ended.stderr
    return ended


def answer(code: str, tmp_path: Path) -> dict[str, Any]:
    document = json.loads(run(code, tmp_path).stdout)
    assert isinstance(document, dict)
    return document


def test_running_a_pack_imports_no_library_of_the_offline_tools(
    tiny_pack: Path, tmp_path: Path
) -> None:
    found = answer(RUN.format(before="", pack=str(tiny_pack), fidelity=4), tmp_path)
    loaded = {name.partition(".")[0] for name in found["modules"]}
    assert "sti" in loaded
    assert not loaded & {"onnx", "torch", "tokenizers", "safetensors", "shard_tools"}


def test_a_pack_runs_without_psutil(tiny_pack: Path, tmp_path: Path) -> None:
    before = "sys.modules['psutil'] = None"
    found = answer(RUN.format(before=before, pack=str(tiny_pack), fidelity=4), tmp_path)
    assert found["bytes"] > 0


@pytest.mark.parametrize("fidelity", [4, None])
def test_a_pack_runs_on_android_where_proc_is_denied(
    tiny_pack: Path, tmp_path: Path, fidelity: int | None
) -> None:
    code = RUN.format(before=ANDROID, pack=str(tiny_pack), fidelity=fidelity)
    found = answer(code, tmp_path)
    assert found["bytes"] > 0


def test_doctor_runs_on_android_where_proc_is_denied(tiny_pack: Path, tmp_path: Path) -> None:
    code = ANDROID + (
        "from sti.cli.main import main\n"
        f"raise SystemExit(main(['doctor', {str(tiny_pack)!r}, '--json']))"
    )
    assert "android" in answer(code, tmp_path)["device"]


def test_importing_sti_loads_no_engine(tmp_path: Path) -> None:
    code = "import json, sys, sti; print(json.dumps({'modules': sorted(sys.modules)}))"
    loaded = set(answer(code, tmp_path)["modules"])
    assert not loaded & {"onnxruntime", "numpy", "sti.engine.engine"}


def test_asking_for_help_loads_no_engine(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from sti.cli.main import build_parser\n"
        "build_parser().format_help()\n"
        "print('numpy' in sys.modules or 'onnxruntime' in sys.modules)"
    )
    assert run(code, tmp_path).stdout == "False\n"


@pytest.mark.parametrize(
    "module",
    [
        *("statistics", "tomllib", "csv", "shutil", "sti.benchmark.runs"),
        "sti.calibration.fit_profile",
    ],
)
def test_running_a_pack_loads_nothing_that_only_other_commands_need(
    tiny_pack: Path, tmp_path: Path, module: str
) -> None:
    code = (
        "import sys\n"
        "from sti.cli.main import main\n"
        f"assert main(['run', {str(tiny_pack)!r}, 'the dog', '--fidelity', '4', '--json']) == 0\n"
        f"sys.exit({module!r} in sys.modules)"
    )
    run(code, tmp_path)


@pytest.mark.skipif(
    not any(importlib.util.find_spec(name) for name in ("_sha2", "_sha256")),
    reason="this Python has no SHA-256 of its own",
)
def test_running_a_pack_loads_no_openssl(tiny_pack: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from sti.cli.main import main\n"
        f"assert main(['run', {str(tiny_pack)!r}, 'the dog', '--fidelity', '4', '--json']) == 0\n"
        "sys.exit('_hashlib' in sys.modules)"
    )
    run(code, tmp_path)


def test_packs_are_named_by_the_sha256_of_the_standard_library() -> None:
    assert sha256(b"a pack").hexdigest() == hashlib.sha256(b"a pack").hexdigest()


def test_only_training_imports_torch(tmp_path: Path) -> None:
    code = (
        "import importlib, pkgutil, sys\n"
        "sys.modules['torch'] = None\n"
        "import shard_tools\n"
        "for found in pkgutil.walk_packages(shard_tools.__path__, 'shard_tools.'):\n"
        "    name = found.name\n"
        "    if not name.startswith('shard_tools.train') and not name.endswith('__main__'):\n"
        "        importlib.import_module(name)\n"
    )
    run(code, tmp_path)


def test_asking_sti_shard_for_help_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from shard_tools.cli.main import main\n"
        "try:\n"
        "    main([{command!r}, '--help'])\n"
        "except SystemExit:\n"
        "    sys.exit('torch' in sys.modules or 'numpy' in sys.modules)\n"
        "sys.exit(1)\n"
    )
    for command in ("build", "finetune"):
        run(code.format(command=command), tmp_path)


def test_finetune_without_torch_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from shard_tools.cli.main import main\n"
        "sys.exit(main(['finetune', 'x', '--data', 'a.tsv', '--dev', 'b.tsv', '-o', 'y']))\n"
    )
    ended = run(code, tmp_path, check=False)
    assert ended.returncode == 2
    assert ended.stderr == (
        f"sti-shard finetune: the Python package torch is missing: {install_hint('torch')}\n"
    )
