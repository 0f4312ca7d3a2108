"""Where a pack's staircases come from: the pack itself, the cache, or made now and cached.

In: an open pack. Out: ``Staircases``. Only packs that were ranked bring theirs along; those of
others are made at the first opening, which takes about a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from sti.calibration.cache import Cache
from sti.errors import PlanError
from sti.notices import Notify
from sti.pack.header import STAIRCASES
from sti.pack.pack_reader import PackReader
from sti.planning.staircases import STAIRCASES_VERSION, Staircases
from sti.version import __version__


def staircases_of(
    reader: PackReader,
    notify: Notify,
    apart: Callable[[PackReader], bytes] | None = None,
) -> Staircases:
    """The staircases of an open pack.

    Args:
        notify: told where those that the pack brings along cannot be used.
        apart: makes them in a process of its own, which takes no memory of this one.

    Raises:
        As ``apart``.
    """
    manifest = reader.manifest
    if reader.has_resident(STAIRCASES):
        where = f"{reader.path}: {STAIRCASES}"
        try:
            stored = reader.resident(STAIRCASES).tobytes()
            return Staircases.from_bytes(stored, manifest, where=where)
        except PlanError as error:
            notify(f"{error}; until then they are made anew")
    raw = Cache().load_staircases(_key(reader))
    if raw is not None:
        with suppress(PlanError):  # damaged: made again
            return Staircases.from_bytes(raw, manifest, where="cached staircases")
    if apart is not None:
        return Staircases.from_bytes(apart(reader), manifest, where="staircases made apart")
    return made(reader)


def made(reader: PackReader) -> Staircases:
    """The staircases of an open pack, made now, and cached where that can be."""
    # Rare, and it takes much more of the planner than a run.
    from sti.planning.staircase_making import make_staircases

    found = make_staircases(reader.manifest)
    Cache().store_staircases(_key(reader), found.to_bytes(reader.manifest))
    return found


def _key(reader: PackReader) -> dict[str, object]:
    """What staircases in the cache depend on."""
    return {
        "staircases": STAIRCASES_VERSION,
        "version": __version__,
        "pack": reader.pack_id,
    }
