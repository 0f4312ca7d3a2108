"""``sti doctor``: what this device offers, what is missing, and what to do about it.

In: nothing, or a pack. Out: facts and advice, for people or as JSON. Works on broken installations:
needs only NumPy.
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
from sti.cli.measured import PROVISIONAL, kept_facts, kept_table
from sti.cli.program import print_json
from sti.codec.decoder import PORTABLE
from sti.codec.decoders import VARIABLE, kernel_path
from sti.device import host
from sti.device.identity import instruction_set
from sti.device.user_places import NOWHERE
from sti.errors import LimitError, StiError
from sti.pack.pack_reader import PackReader
from sti.report.installation import install_compiler, install_hint
from sti.report.tables import aligned
from sti.report.wording import counted
from sti.storage.file_reader import FileReader, drop_cache
from sti.storage.own_files import make_directory
from sti.units import format_size
from sti.version import __version__

SLOW_STORAGE = 100e6
LITTLE_MEMORY = 200_000_000
PROBE_BYTES = 8 << 20
PROBE_S = 0.4
_SHARED_STORAGE = ("/sdcard", "/storage/emulated", "/mnt/sdcard")


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
    advice = _advise(facts) + _advise_measured(facts["measured"], args.pack)
    if args.pack is not None:
        with PackReader.open(args.pack) as reader:
            facts["pack"] = _pack(reader)
            facts["storage"] = storage_rates(reader.path)
        advice += _advise_place(Path(args.pack).resolve())
    else:
        facts["storage"] = _probe_storage()
    advice += _advise_storage(facts["storage"])
    if args.json:
        print_json({**facts, "advice": advice})
        return
    print(_report(facts))
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


def _advise(facts: dict[str, Any]) -> list[str]:
    advice = []
    versions = facts["versions"]
    if facts["limit"] is not None:
        advice.append(f"onnxruntime cannot be loaded: {facts['limit']}")
    elif versions["onnxruntime"] is None:
        advice.append(f"onnxruntime is missing or broken: {install_hint('onnxruntime')}")
    else:
        from sti.backend.onnxruntime.release import OLDEST_ORT, is_too_old

        if is_too_old(versions["onnxruntime"]):
            hint = install_hint("onnxruntime", upgrade=True)
            oldest = ".".join(map(str, OLDEST_ORT))
            advice.append(
                f"onnxruntime is older than {oldest}, and lets packs read any file: {hint}"
            )
    advice += _advise_kernel(facts["kernel"])
    if versions["psutil"] is None and facts["memory"]["available_bytes"] is None:
        advice.append(f"free memory is unknown without psutil: {install_hint('psutil')}")
    if not facts["cache"]["writable"]:
        place = facts["cache"]["path"]
        none = Path(place).is_relative_to(NOWHERE)
        what = "there is no home directory" if none else f"{place} cannot be written"
        advice.append(
            f"{what}, so every start measures the device again: set XDG_CACHE_HOME to a directory "
            "that you may write to"
        )
    available = facts["memory"]["available_bytes"]
    if available is not None and available < LITTLE_MEMORY:
        advice.append(f"only {format_size(available)} of memory is free: keep --preload small")
    return advice


def _advise_measured(measured: list[dict[str, Any]], pack: str | None) -> list[str]:
    provisional = [fact for fact in measured if fact["state"] == PROVISIONAL]
    if not provisional:
        return []
    return [
        f"{counted(len(provisional), 'measurement')} provisional, made while this machine was "
        f"busy: run `sti calibrate {pack or 'PACK'}` when it is quiet"
    ]


def _advise_kernel(kernel: dict[str, str | None]) -> list[str]:
    if kernel["error"] is not None:
        return [f"weights cannot be decoded: {kernel['error']}"]
    if kernel["path"] == PORTABLE and not os.environ.get(VARIABLE):
        return [
            "weights are decoded in NumPy, which is slower: the native kernel is missing or was "
            f"refused; {install_compiler()}, or take the wheel that holds the kernel"
        ]
    return []


def _advise_place(path: Path) -> list[str]:
    if str(path).startswith(_SHARED_STORAGE):
        return [f"{path} lies on shared storage, which is slow: copy it to your home directory"]
    return []


def _advise_storage(storage: dict[str, Any]) -> list[str]:
    if "error" in storage:
        return [f"storage was not measured: {storage['error']}; give a PACK to measure its own"]
    advice = []
    if not storage["direct"]:
        advice.append(
            "direct IO does not work on this file system; reads go through the page cache, and "
            "what was read is dropped from it after use"
        )
    best = max(storage["bytes_per_s"].values(), default=0)
    if best < SLOW_STORAGE:
        advice.append(
            f"storage reads at most {best / 1e6:.0f} MB/s: --preload helps most here, and so does "
            "copying the pack to faster storage"
        )
    return advice


def _report(facts: dict[str, Any]) -> str:
    memory, cache = facts["memory"], facts["cache"]
    cores = ", ".join(
        f"cpu{core['index']}" + (f" ({core['speed']})" if core["speed"] else "")
        for core in facts["cores"]
    )
    versions = (f"{name} {value or 'missing'}" for name, value in facts["versions"].items())
    sizes = (
        f"{name} {'unknown' if memory[key] is None else format_size(memory[key])}"
        for name, key in (("total", "total_bytes"), ("free", "available_bytes"))
    )
    lines = [
        f"device    {facts['device']}",
        f"cores     {facts['usable_cores']} usable{_quota(facts)}, fastest first: {cores}",
        f"memory    {', '.join(sizes)}",
        f"kernel    {facts['kernel']['path'] or 'none'}, on {facts['instructions']} instructions",
        f"versions  sti {facts['sti']}, {', '.join(versions)}",
        f"cache     {cache['path']} ({'writable' if cache['writable'] else 'NOT writable'}, "
        f"{counted(cache['profiles'], 'profile')})",
        _history_line(facts["history"]),
    ]
    if "pack" in facts:
        lines.append(_pack_line(facts["pack"]))
    measured = "measured  " + ("nothing yet\n" if not facts["measured"] else "before:\n")
    if facts["measured"]:
        measured += kept_table(facts["measured"])
    return "\n".join(lines) + "\n" + measured + _storage_table(facts["storage"])


def _quota(facts: dict[str, Any]) -> str:
    quota = facts["core_quota"]
    return "" if quota is None else f" (a cgroup allows the time of {quota:g})"


def _history_line(history: dict[str, Any]) -> str:
    packs = counted(history["packs"], "pack")
    if history["kept"]:
        return f"history   how runs of {packs} went, in the cache (STI_HISTORY=off keeps none)"
    return f"history   not kept, as STI_HISTORY is off; there is that of {packs} from before"


def _pack_line(pack: dict[str, Any]) -> str:
    ladder = ", ".join(map(str, pack["ladder"]))
    line = (
        f"pack      {pack['name']} ({pack['task']}), {format_size(pack['bytes'])}, "
        f"{counted(pack['layers'], 'layer')}, {counted(pack['slices'], 'slice')} at {ladder} bits"
    )
    if "threads" in pack:
        line += f"\nruns with {counted(pack['threads'], 'compute thread')}"
        if pack["saturates"]:
            line += "; products of 8 bits saturate here: steps of few bits are narrow"
    return line


def _storage_table(storage: dict[str, Any]) -> str:
    if not storage["bytes_per_s"]:
        return f"storage   not measured in {storage['path']}\n"
    kind = "direct" if storage["direct"] else "buffered"
    rows = [
        [f"{int(size) // 1024} KiB", f"{rate / 1e6:.0f}"]
        for size, rate in storage["bytes_per_s"].items()
    ]
    return f"storage   {storage['path']}, {kind} reads\n" + aligned(["request", "MB/s"], rows)
