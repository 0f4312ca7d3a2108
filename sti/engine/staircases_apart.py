"""Making staircases in a process of its own, for an engine whose memory is limited.

Making them takes some 20 MB for a moment. In: an open pack. Out: the staircases as bytes.
"""

from __future__ import annotations

import base64

from sti.device.other_process import ask
from sti.errors import RunError
from sti.notices import log_notice
from sti.pack.pack_reader import PackReader

_PATIENCE_S = 120.0


def staircases_apart(reader: PackReader) -> bytes:
    """The staircases of a pack, made by another process.

    Raises:
        StiError: as that process found the pack.
        RunError: there can be no other process, or it failed otherwise; says what to do.
    """
    what = f"{reader.path}: making its staircases"
    remedy = "open it once without a budget of memory, or ask for more"
    found = ask(
        "sti.engine.staircases_child",
        {"path": str(reader.path.absolute())},
        what=what,
        remedy=remedy,
        patience_s=_PATIENCE_S,
        notify=log_notice,
    )
    try:
        return base64.b64decode(found["staircases"], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{what} gave none: {error}; {remedy}") from error
