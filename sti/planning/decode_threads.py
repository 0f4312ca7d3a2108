"""How many threads decode: the one rule that profiles, plans and the engine follow. Pure.

The cores not used for compute, but at least 1, at most ``MOST_DECODE_THREADS``, and at most the
pack's slices: a thread decodes whole shards, so extra threads would idle. In: counts and a
manifest. Out: a count.
"""

from __future__ import annotations

from sti.model.manifest import Manifest

MOST_DECODE_THREADS = 4


def decode_threads(manifest: Manifest, *, cores: int, compute_threads: int) -> int:
    """Decode threads on a machine of ``cores`` cores, ``compute_threads`` of them taken."""
    return clamp_decode_threads(manifest, cores - compute_threads)


def clamp_decode_threads(manifest: Manifest, wanted: int) -> int:
    """``wanted`` decode threads, or the nearest number that the pack has use for."""
    return max(1, min(wanted, MOST_DECODE_THREADS, manifest.dimensions.slices))
