"""What ``sti doctor`` found, for people.

In: the facts, as it prints them with ``--json``. Out: text. Knows nothing of how facts are found.
"""

from __future__ import annotations

from typing import Any

from sti.cli.measured import kept_table
from sti.model.part import Part
from sti.report.tables import aligned
from sti.report.wording import counted
from sti.units import format_size


def report(facts: dict[str, Any]) -> str:
    """The facts as lines and tables."""
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
    if pack["part"] is not None:
        part = Part(**pack["part"])
        line += f"\na part: {part.words}, of pack {part.pack_id}"
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
