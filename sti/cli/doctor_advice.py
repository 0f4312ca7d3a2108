"""What ``sti doctor`` advises.

In: the facts that it found. Out: lines, each with what to do. Knows nothing of how facts are found.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sti.cli.measured import PROVISIONAL
from sti.codec.decoder import PORTABLE
from sti.codec.decoders import VARIABLE
from sti.device.user_places import NOWHERE
from sti.report.installation import install_compiler, install_hint
from sti.report.wording import counted
from sti.units import format_size

SLOW_STORAGE = 100e6
LITTLE_MEMORY = 200_000_000
_SHARED_STORAGE = ("/sdcard", "/storage/emulated", "/mnt/sdcard")


def advise(facts: dict[str, Any], pack: str | None) -> list[str]:
    """Advice on a device.

    Args:
        facts: as ``sti doctor --json`` prints them.
        pack: the path of the pack that was examined, if there was one.
    """
    place = [] if pack is None else _place(Path(pack).resolve())
    is_part = facts.get("pack", {}).get("part") is not None  # which nothing is measured with
    measured = _measured(facts["measured"], None if is_part else pack)
    return [*_installation(facts), *measured, *place, *_storage(facts["storage"])]


def _installation(facts: dict[str, Any]) -> list[str]:
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
    advice += _kernel(facts["kernel"])
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


def _measured(measured: list[dict[str, Any]], pack: str | None) -> list[str]:
    provisional = [fact for fact in measured if fact["state"] == PROVISIONAL]
    if not provisional:
        return []
    return [
        f"{counted(len(provisional), 'measurement')} provisional, made while this machine was "
        f"busy: run `sti calibrate {pack or 'PACK'}` when it is quiet"
    ]


def _kernel(kernel: dict[str, str | None]) -> list[str]:
    if kernel["error"] is not None:
        return [f"weights cannot be decoded: {kernel['error']}"]
    if kernel["path"] == PORTABLE and not os.environ.get(VARIABLE):
        return [
            "weights are decoded in NumPy, which is slower: the native kernel is missing or was "
            f"refused; {install_compiler()}, or take the wheel that holds the kernel"
        ]
    return []


def _place(path: Path) -> list[str]:
    if str(path).startswith(_SHARED_STORAGE):
        return [f"{path} lies on shared storage, which is slow: copy it to your home directory"]
    return []


def _storage(storage: dict[str, Any]) -> list[str]:
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
