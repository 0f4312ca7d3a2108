"""Typed access to JSON objects that came from outside: manifests, plans, profiles.

Knows nothing of what the fields mean. In: a parsed JSON value and the name of its source.
Out: values of the asked type, or the caller's error naming the source and the field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sti.errors import StiError

MOST_INTEGER = 2**63 - 1
"""What the arrays hold that integers end up in."""

_MOST_DIGITS = 18


def whole_number(text: str) -> int | None:
    """What a name means that is a number; None where it is none, or has absurdly many digits."""
    good = text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
    return int(text) if good else None


class JsonFields:
    """A JSON object whose fields are read with their types checked.

    Args:
        value: the parsed JSON value; anything but an object is refused.
        where: what the value is, for messages, e.g. ``"model.safetensors: manifest"``.
        error: the error raised for a missing or ill-typed field.

    Not modified; safe to share between threads.
    """

    __slots__ = ("_error", "_value", "where")

    def __init__(self, value: object, *, where: str, error: type[StiError]) -> None:
        self._error = error
        self.where = where
        if not isinstance(value, Mapping):
            raise error(f"{where}: expected an object, found {type(value).__name__}")
        self._value: Mapping[str, Any] = value

    def fail(self, key: str, expected: str) -> StiError:
        """An error (to be raised by the caller) that says what ``key`` should have been."""
        found = self._value.get(key, "nothing")
        return self._error(
            f"{self.where}: field {key!r:.80} must be {expected}, found {found!r:.80}"
        )

    def has(self, key: str) -> bool:
        """Whether the field is there and not null."""
        return self._value.get(key) is not None

    def only(self, *known: str) -> JsonFields:
        """These fields, if it has no others.

        Raises:
            The error of the caller: names the first that is unknown, and those that are known.
        """
        unknown = self._value.keys() - set(known)
        if unknown:
            raise self._error(
                f"{self.where}: unknown field {min(unknown)!r:.60}; known are {', '.join(known)}"
            )
        return self

    def integer(self, key: str, *, least: int = 0, most: int = MOST_INTEGER) -> int:
        """An int from ``least`` to ``most`` (booleans are refused)."""
        value = self._value.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.fail(key, f"an integer of at least {least}")
        if value > most:
            raise self.fail(key, f"an integer of at most {most}")
        return value

    def require_version(self, key: str, readable: int, *, remedy: str) -> None:
        """Refuse a document whose ``key`` is not the version that this release reads."""
        version = self.integer(key)
        if version != readable:
            made = "an older" if version < readable else "a newer"
            raise self._error(
                f"{self.where}: {key} version {version}, from {made} STI than this one, which "
                f"reads version {readable}; {remedy}"
            )

    def number(self, key: str, *, least: float = -math.inf, most: float = math.inf) -> float:
        """A finite float from ``least`` to ``most``."""
        value = self._value.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(key, "a number")
        found = _floats((value,))
        if found is None or found[0] < least:
            raise self.fail(key, f"a finite number of at least {least}")
        if found[0] > most:
            raise self.fail(key, f"a number of at most {most}")
        return found[0]

    def text(self, key: str) -> str:
        """A string."""
        value = self._value.get(key)
        if not isinstance(value, str):
            raise self.fail(key, "a string")
        return value

    def flag(self, key: str) -> bool:
        """A boolean."""
        value = self._value.get(key)
        if not isinstance(value, bool):
            raise self.fail(key, "true or false")
        return value

    def integers(self, key: str, *, least: int = 0) -> tuple[int, ...]:
        """A list of ints of at least ``least``."""
        value = self._value.get(key)
        # Packs have thousands of these, checked at every opening: no Python code an item.
        good = isinstance(value, list | tuple) and set(map(type, value)) <= {int}
        if value is None or not good or (value and not least <= min(value)):
            raise self.fail(key, f"a list of integers of at least {least}")
        if value and max(value) > MOST_INTEGER:
            raise self.fail(key, f"a list of integers of at most {MOST_INTEGER}")
        return tuple(value)

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of finite floats."""
        value = self._value.get(key)
        good = isinstance(value, list | tuple) and set(map(type, value)) <= {int, float}
        found = _floats(value) if value is not None and good else None
        if found is None:
            raise self.fail(key, "a list of finite numbers")
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        value = self._value.get(key)
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise self.fail(key, "a list of strings")
        return tuple(value)

    def items(self, key: str) -> list[Any]:
        """A list of anything."""
        value = self._value.get(key)
        if not isinstance(value, list | tuple):
            raise self.fail(key, "a list")
        return list(value)

    def objects(self, key: str) -> list[JsonFields]:
        """A list of objects."""
        return [
            JsonFields(item, where=f"{self.where}: {key}[{index}]", error=self._error)
            for index, item in enumerate(self.items(key))
        ]

    def object(self, key: str) -> JsonFields:
        """An object."""
        return JsonFields(self._value.get(key), where=f"{self.where}: {key:.80}", error=self._error)

    def raw(self, key: str) -> Any:
        """The value as it is, ``None`` where it is absent."""
        return self._value.get(key)

    def keys(self) -> tuple[str, ...]:
        """The names of all fields."""
        return tuple(self._value)

    def members(self) -> dict[str, Any]:
        """All fields by name, as they are, in a dictionary of the caller's own."""
        return dict(self._value)


def _floats(values: Sequence[int | float]) -> tuple[float, ...] | None:
    """The numbers as floats, or None if one of them is not finite or too large for a float."""
    try:
        found = tuple(map(float, values))
    except OverflowError:
        return None
    return found if all(map(math.isfinite, found)) else None
