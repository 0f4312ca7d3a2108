"""What a shared library asks of the machine that loads it: a small reader of 64-bit ELF files.

In: the bytes of a library. Out: its processor, the names it defines and those it lacks, the
libraries it needs. Reads only what the checks of the native kernel look at, little endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MACHINES = {62: "x86_64", 183: "aarch64"}
"""Processors by the number ELF gives them, named as ``platform.machine()`` does."""

_SHARED_OBJECT = 3
_DYNAMIC, _DYNAMIC_SYMBOLS = 6, 11
_NEEDED, _RPATH, _TEXT_RELOCATIONS, _RUNPATH = 1, 15, 22, 29
_STACK, _EXECUTABLE = 0x6474E551, 1


@dataclass(frozen=True, slots=True)
class Library:
    """What a shared library offers and asks for."""

    machine: str
    """A value of ``MACHINES``."""
    defined: frozenset[str]
    """Names that it exports."""
    undefined: frozenset[str]
    """Names that another library would have to define."""
    unwanted_entries: int
    """Entries that must not be there: libraries it needs, search paths, relocations of its code."""
    executable_stack: bool

    def objection(self) -> str | None:
        """Why it cannot be loaded everywhere: what it asks for; None where it asks for nothing."""
        if self.undefined:
            return f"undefined symbols: {', '.join(sorted(self.undefined))}"
        if self.unwanted_entries:
            return "needs other libraries, search paths or relocations of its code"
        return "asks for an executable stack" if self.executable_stack else None


@dataclass(frozen=True, slots=True)
class _Section:
    kind: int
    start: int
    size: int
    link: int


def read_library(data: bytes) -> Library:
    """Read a shared library.

    Raises:
        ValueError: not a 64-bit, little-endian ELF shared object for a processor of ``MACHINES``,
            or damaged.
    """
    try:
        return _read(data)
    except (struct.error, LookupError, OverflowError, UnicodeError) as error:
        raise ValueError("a damaged ELF file") from error


def _read(data: bytes) -> Library:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit, little-endian ELF file")
    kind, number = struct.unpack_from("<HH", data, 16)
    if kind != _SHARED_OBJECT:
        raise ValueError("not a shared library")
    if number not in MACHINES:
        raise ValueError(f"for another processor (ELF machine {number})")
    sections = list(_sections(data))
    symbols = {
        (name, defined)
        for section in sections
        if section.kind == _DYNAMIC_SYMBOLS
        for name, defined in _symbols(data, section, sections[section.link])
    }
    unwanted = (_NEEDED, _RPATH, _TEXT_RELOCATIONS, _RUNPATH)
    return Library(
        machine=MACHINES[number],
        defined=frozenset(name for name, defined in symbols if defined),
        undefined=frozenset(name for name, defined in symbols if not defined),
        unwanted_entries=sum(
            struct.unpack_from("<q", data, place)[0] in unwanted
            for section in sections
            if section.kind == _DYNAMIC
            for place in range(section.start, section.start + section.size, 16)
        ),
        executable_stack=_executable_stack(data),
    )


def _sections(data: bytes) -> Iterator[_Section]:
    (start,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    for index in range(count):
        fields = struct.unpack_from("<IIQQQQII", data, start + index * size)
        yield _Section(kind=fields[1], start=fields[4], size=fields[5], link=fields[6])


def _symbols(data: bytes, table: _Section, names: _Section) -> Iterator[tuple[str, bool]]:
    """Names of a symbol table and whether each is defined there."""
    for place in range(table.start, table.start + table.size, 24):
        name, _, _, section = struct.unpack_from("<IBBH", data, place)
        start = names.start + name
        text = data[start:].partition(b"\0")[0].decode("ascii")
        if text:
            yield text, section != 0


def _executable_stack(data: bytes) -> bool:
    """Whether it asks for one; a library that does not say is taken to."""
    (start,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    headers = (struct.unpack_from("<II", data, start + index * size) for index in range(count))
    flags = [flags for kind, flags in headers if kind == _STACK]
    return not flags or any(item & _EXECUTABLE for item in flags)
