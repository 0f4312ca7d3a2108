"""What times depend on besides the cores: the processor's instructions, and what decodes weights.

In: ``/proc/cpuinfo`` below ``sti.device.host.ROOT``, and the decoder that ``sti.codec`` chooses.
Out: names for machine lines, profiles and the keys of what is remembered. Best effort: a system
that does not tell its instructions is named by its architecture.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator

from sti.codec.decoders import kernel_path
from sti.device import host

_NAMES = (
    ("amx", {"amx_int8"}),
    ("avx512+vnni", {"avx512bw", "avx512_vnni"}),
    ("avx2+vnni", {"avx2", "avx_vnni"}),
    ("avx512", {"avx512bw"}),
    ("avx2", {"avx2"}),
    ("ssse3", {"ssse3"}),
    ("neon+i8mm", {"asimd", "i8mm"}),
    ("neon+dotprod", {"asimd", "asimddp"}),
    ("neon", {"asimd"}),
)
"""Names, fastest at int8 products first, and the flags of the system that each of them needs."""


def instruction_set() -> str:
    """The widest int8 instructions that every core has, e.g. ``avx2+vnni`` or ``neon+dotprod``."""
    cores = list(_flags())
    common = set.intersection(*cores) if cores else set()
    return next((name for name, needs in _NAMES if needs <= common), platform.machine())


def machine_key() -> list[str | int | float]:
    """What tells this machine from others that share a home directory: part of cache keys.

    A quota of processor time makes it another machine: threads stand still when it is used up.
    """
    key: list[str | int | float]
    key = [host.cpu_name(), host.core_count(), platform.machine(), sys.platform]
    quota = host.core_quota()
    return key if quota is None else [*key, quota]


def machine_line() -> str:
    """One line for people, stable between runs: ``host.describe``, instructions and kernel path.

    Raises:
        BackendError: a kernel path was asked for that is not to be had here.
    """
    return f"{host.describe()}, {instruction_set()}, kernel {kernel_path()}"


def _flags() -> Iterator[set[str]]:
    """What each core offers, in the system's words."""
    try:
        text = (host.ROOT / "proc" / "cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            yield set(value.split())
