"""``sti doctor``: what this device offers, what is missing, and what to do about it.

In: nothing, or a pack. Out: facts, for people (``doctor_texts``) or as JSON, and advice
(``doctor_advice``). Works on broken installations: needs only NumPy.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from sti.calibration.cache import Cache, cache_directory, keeps_history
from sti.calibration.history_file import history_files
from sti.calibration.read_timer import time_reads
from sti.cli.doctor_advice import advise
from sti.cli.doctor_texts import report
from sti.cli.measured import kept_facts
from sti.cli.program import print_json
from sti.codec.decoders import kernel_path
from sti.device import host
from sti.device.identity import instruction_set
from sti.errors import LimitError, StiError
from sti.pack.pack_reader import PackReader
from sti.storage.file_reader import FileReader, drop_cache
from sti.storage.own_files import make_directory
from sti.version import __version__

PROBE_BYTES = 8 << 20
PROBE_S = 0.4


def execute(args: argparse.Namespace) -> None:
    """Examine the device, and the pack where one is given."""
    facts: dict[str, Any] = {
        "sti": __version__,
        "device": host.describe(),
        "cores": [{"index": core.index, "speed": core.speed} for core in host.cores()],
        "usable_cores": host.core_count(),
        "core_quota": host.core_quota(),
        "memory": {
            "total_bytes": host.memory().total_bytes,
            "available_bytes": host.memory().available_bytes,
        },
        "instructions": instruction_set(),
        "kernel": _kernel(),
        "versions": _versions(),
        "limit": _limit(),
        "cache": _cache(),
        "history": {"kept": keeps_history(), "packs": len(history_files(Cache()))},
        "measured": kept_facts(Cache()),
    }
    if args.pack is not None:
        with PackReader.open(args.pack) as reader:
            facts["pack"] = _pack(reader)
            facts["storage"] = storage_rates(reader.path)
    else:
        facts["storage"] = _probe_storage()
    advice = advise(facts, args.pack)
    if args.json:
        print_json({**facts, "advice": advice})
        return
    print(report(facts))
    print("\n".join(f"- {item}" for item in advice) if advice else "nothing is missing")


def storage_rates(path: Path) -> dict[str, Any]:
    """Median bytes per second of single reads of a file, by request size."""
    drop_cache(path)
    seconds: defaultdict[int, list[float]] = defaultdict(list)
    with FileReader(path) as reader:
        for found in time_reads(reader, path.stat().st_size, budget_s=PROBE_S):
            seconds[found.size].append(found.seconds)
        direct = reader.direct
    rates = {str(size): round(size / statistics.median(seconds[size])) for size in sorted(seconds)}
    return {"path": str(path), "direct": direct, "bytes_per_s": rates}


def _probe_storage() -> dict[str, Any]:
    """Rates of a temporary file in the cache directory, or why there are none."""
    directory = cache_directory()
    try:
        make_directory(directory)
        with tempfile.NamedTemporaryFile(dir=directory, suffix=".tmp") as file:
            file.write(os.urandom(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
            return {**storage_rates(Path(file.name)), "path": str(directory)}
    except (OSError, StiError) as error:
        return {"path": str(directory), "error": str(error), "bytes_per_s": {}}


def _kernel() -> dict[str, str | None]:
    """The path that decodes weights here, or why the one that was asked for is not to be had."""
    try:
        return {"path": kernel_path(), "error": None}
    except StiError as error:
        return {"path": None, "error": str(error)}


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version(), "numpy": np.__version__}
    try:
        from sti.backend.onnxruntime.release import ort_version

        found["onnxruntime"] = ort_version()
    except Exception:  # a broken build may raise anything
        found["onnxruntime"] = None
    module = host.psutil()
    found["psutil"] = None if module is None else str(module.__version__)
    return found


def _limit() -> str | None:
    """Which limit of this process keeps ONNX Runtime from being loaded, if one does."""
    try:
        importlib.import_module("sti.backend.onnxruntime.library")
    except LimitError as error:
        return str(error)
    except Exception:  # as in _versions
        return None
    return None


def _cache() -> dict[str, Any]:
    directory = cache_directory()
    place = directory
    while not place.exists() and place != place.parent:
        place = place.parent
    return {
        "path": str(directory),
        "writable": place.is_dir() and _can_write(place),
        "profiles": len(list(directory.glob("profile-*.json"))) if directory.is_dir() else 0,
    }


def _can_write(directory: Path) -> bool:
    """By trying: rights alone do not tell, for the superuser or on systems like ``/proc``."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def _pack(reader: PackReader) -> dict[str, Any]:
    manifest, dims = reader.manifest, reader.manifest.dimensions
    facts: dict[str, Any] = {
        "path": str(reader.path),
        "id": reader.pack_id,
        "part": None if reader.part is None else reader.part._asdict(),
        "name": manifest.name,
        "task": manifest.task,
        "bytes": reader.file_bytes,
        "layers": dims.layers,
        "slices": dims.slices,
        "ladder": list(manifest.ladder),
    }
    try:
        from sti.backend.onnxruntime.compute import OrtBackend
        from sti.calibration.calibrate import best_threads
    except Exception:  # as in _versions
        return facts
    threads = best_threads(reader)
    backend = OrtBackend(reader, lanes=threads)
    return {**facts, "threads": threads, "saturates": backend.saturates}
