"""Where the user's own files are kept: caches and configuration.

In: the environment and the system's list of users. Out: directories, which need not exist. Knows
nothing of what is kept there.
"""

from __future__ import annotations

import os
from pathlib import Path

NOWHERE = Path(os.devnull) / "no home directory"
"""Stands for a directory where there is none: nothing can be read or written below it."""


def user_directory(variable: str, below_home: str) -> Path:
    """The directory that a variable of the XDG specification names.

    Args:
        variable: ``"XDG_CACHE_HOME"``, for example; a path that is not absolute is none.
        below_home: the usual place in the home directory, e.g. ``".cache"``.

    Returns:
        ``NOWHERE`` where there is no home directory either: ``$HOME`` is set and no absolute path,
        or it is not set and the system knows no home of this user.
    """
    named = os.environ.get(variable, "")
    if os.path.isabs(named):
        return Path(named)
    # Not expanduser("~/.cache"), which is "/.cache" where HOME is empty.
    home = os.path.expanduser("~") if os.environ.get("HOME", "/") else ""
    return Path(home) / below_home if os.path.isabs(home) else NOWHERE


def why_not(directory: Path, error: OSError) -> str:
    """Why nothing can be kept in a directory of the user's: what follows "cannot be kept"."""
    if directory.is_relative_to(NOWHERE):
        return "without a home directory: HOME is empty, not absolute, or not known"
    return f"in {directory}: {error.strerror or error}"
