"""A made-up machine that says what a process takes: so opening takes the same in every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from sti.device import host

MB = 1_000_000
_PLENTY = 8000 * MB


class CountedMemory:
    """What the system says of memory, below a root of its own."""

    def __init__(self, root: Path, total: int) -> None:
        self._place, self._total = root / "proc", total
        (self._place / "self").mkdir(parents=True)
        self.has(total)
        self.process_takes(60 * MB)

    def has(self, available: int) -> None:
        """Let so many bytes of the machine be available."""
        total = self._total // 1024
        self._write("meminfo", f"MemTotal: {total} kB\nMemAvailable: {available // 1024} kB\n")

    def says_nothing(self) -> None:
        """Do not say what the machine has."""
        self._write("meminfo", "")

    def process_takes(self, size: int) -> None:
        """Let this process take so many bytes of anonymous memory."""
        self._write("self/statm", f"90000 {size // 4096 + 5000} 5000 1 0 1 0\n")

    def does_not_count(self) -> None:
        """Do not say what this process takes."""
        (self._place / "self" / "statm").unlink()

    def _write(self, name: str, text: str) -> None:
        made = self._place / "next"
        made.write_text(text, encoding="ascii")
        made.replace(self._place / name)  # nobody reads half of it


def counted_memory(
    root: Path, monkeypatch: pytest.MonkeyPatch, *, total: int = _PLENTY
) -> CountedMemory:
    """Such a machine, for one test."""
    host.describe()  # kept for the whole process: it is to be of the real machine
    found = CountedMemory(root, total)
    monkeypatch.setattr(host, "ROOT", root)
    return found
