"""The JSON documents of both command lines: what they have in common. Pure.

In: the members of a document. Out: one line of JSON, which every command prints or writes as it is.
Knows nothing of what the members mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from sti.errors import RunError, StiError
from sti.version import JSON_VERSION

_LIMITS = ("limit", "asked", "needed")
"""Attributes of an error that tell which limit was missed, and by how much."""


def json_document(members: Mapping[str, Any]) -> str:
    """One line of JSON, without its line end; ``version`` stands first.

    ASCII alone, so that a terminal or a pipe of any encoding can carry it.

    Raises:
        RunError: a number among the members is infinite or not a number, which JSON cannot hold.
    """
    try:
        return json.dumps({"version": JSON_VERSION, **members}, allow_nan=False)
    except ValueError as error:
        raise RunError(f"the answer cannot be written as JSON: {error}") from error


def error_members(error: BaseException, message: str, exit_code: int) -> dict[str, Any]:
    """The member ``error`` of a document.

    Args:
        error: gives the kind, and, where it has them, the limit, what was asked for, and what would
            have done, in seconds or bytes; null for a number that is not finite.
        message: what was said on standard error, without the name of the program.
        exit_code: what the process returns.
    """
    members: dict[str, Any] = {
        "kind": type(error).__name__,
        "message": message,
        "exit_code": exit_code,
    }
    if isinstance(error, StiError):
        members |= {name: _plain(getattr(error, name)) for name in _LIMITS if hasattr(error, name)}
    return {"error": members}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
