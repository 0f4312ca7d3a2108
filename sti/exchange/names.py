"""What devices may be called: in keys, in files that name them, and over a network.

In: a name as someone wrote it. Out: whether it is one. Knows nothing of which devices there are.
"""

from __future__ import annotations

import re

from sti.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def is_device_name(name: str) -> bool:
    """Whether a device may have this name; names are parts of file names."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> None:
    """Refuse what no device can be called.

    Raises:
        InputError: says what names are.
    """
    if not is_device_name(name):
        raise InputError(
            f"{name!r:.80} is no name of a device: 1 to 63 ASCII letters, digits, '_', '-' and "
            "'.', the first a letter or digit"
        )
