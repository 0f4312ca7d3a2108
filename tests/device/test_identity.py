"""What names a machine besides its cores: instructions of every kind of core, and the kernel."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from sti.codec.decoders import kernel_path
from sti.device import host
from sti.device.identity import instruction_set, machine_line


def tell(root: Path, text: str) -> None:
    (root / "proc").mkdir()
    (root / "proc" / "cpuinfo").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("flags\t\t: fpu sse2 ssse3", "ssse3"),
        ("flags\t\t: ssse3 avx avx2", "avx2"),
        ("flags\t\t: ssse3 avx2 avx_vnni", "avx2+vnni"),
        ("flags\t\t: ssse3 avx2 avx512f avx512bw", "avx512"),
        ("flags\t\t: ssse3 avx2 avx512f avx512bw avx512_vnni", "avx512+vnni"),
        ("flags\t\t: avx2 avx512bw avx512_vnni amx_tile amx_int8", "amx"),
        ("Features\t: fp asimd crc32", "neon"),
        ("Features\t: fp asimd asimddp", "neon+dotprod"),
        ("Features\t: fp asimd asimddp i8mm", "neon+i8mm"),
        ("Features : asimd asimddp i8mm\n\nFeatures : asimd asimddp", "neon+dotprod"),
        ("flags : fpu sse2", platform.machine()),
        ("isa : rv64imafdc", platform.machine()),
    ],
)
def test_instructions_are_those_that_every_core_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str
) -> None:
    monkeypatch.setattr(host, "ROOT", tmp_path)
    tell(tmp_path, text)
    assert instruction_set() == name


def test_a_system_that_does_not_tell_is_named_by_its_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "ROOT", tmp_path)
    assert instruction_set() == platform.machine()


def test_a_machine_line_names_instructions_and_kernel() -> None:
    assert machine_line() == f"{host.describe()}, {instruction_set()}, kernel {kernel_path()}"
