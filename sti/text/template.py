"""What is put around texts: special tokens, and the type of each token.

In: JSON, or the two tokens of BERT's way. Out: a ``Template``. Knows nothing of ids. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from sti.json_fields import JsonFields

FIRST, SECOND = "$A", "$B"
"""Stand for the texts."""

MOST_PARTS = 16
_TYPES = (0, 1)


class Part(NamedTuple):
    """A special token, or one of the texts."""

    what: str
    """``FIRST``, ``SECOND``, or a word of the vocabulary."""
    type_id: int


class Template(NamedTuple):
    """What stands where.

    Attributes:
        single: for a text; ``FIRST`` once.
        pair: for a pair of texts: both once, in any order; empty where there is no way to give two.
    """

    single: tuple[Part, ...]
    pair: tuple[Part, ...]

    def to_json(self) -> dict[str, object]:
        """The parts as JSON values."""
        return {"single": [list(x) for x in self.single], "pair": [list(x) for x in self.pair]}

    @classmethod
    def from_json(cls, fields: JsonFields) -> Template:
        """What ``to_json`` wrote; it may have a ``fault``.

        Raises:
            The error of the fields: a list is ill-formed.
        """
        fields.only(*cls._fields)
        return cls(_parts(fields, "single"), _parts(fields, "pair"))

    def fault(self) -> str:
        """What is wrong with it, in words; empty where nothing is."""
        layouts = [(self.single, [FIRST])]
        if self.pair:
            layouts.append((self.pair, [FIRST, SECOND]))
        for parts, texts in layouts:
            if sorted(x.what for x in parts if x.what in (FIRST, SECOND)) != texts:
                return f"a template must have {' and '.join(texts)} once, and no other text"
            if len(parts) > MOST_PARTS:
                return f"a template has more than {MOST_PARTS} parts"
        if any(x.type_id not in _TYPES for x in (*self.single, *self.pair)):
            return f"a template has a type other than {' and '.join(map(str, _TYPES))}"
        return ""

    def tokens(self) -> frozenset[str]:
        """The special tokens in it."""
        every = {part.what for part in (*self.single, *self.pair)}
        return frozenset(every - {FIRST, SECOND})

    def least_tokens(self) -> int:
        """Tokens of the longer way where texts are empty."""
        return max(len(self.single) - 1, len(self.pair) - 2)


def bert_template(cls_token: str, sep_token: str) -> Template:
    """CLS A SEP, and CLS A SEP B SEP with type 1 from B on."""
    single = (Part(cls_token, 0), Part(FIRST, 0), Part(sep_token, 0))
    return Template(single, (*single, Part(SECOND, 1), Part(sep_token, 1)))


def roberta_template(cls_token: str, sep_token: str) -> Template:
    """CLS A SEP, and CLS A SEP SEP B SEP, all of type 0."""
    single = (Part(cls_token, 0), Part(FIRST, 0), Part(sep_token, 0))
    return Template(single, (*single, Part(sep_token, 0), Part(SECOND, 0), Part(sep_token, 0)))


def _parts(fields: JsonFields, key: str) -> tuple[Part, ...]:
    found = []
    for item in fields.items(key):
        good = isinstance(item, list | tuple) and len(item) == 2
        if not good or not isinstance(item[0], str) or type(item[1]) is not int:
            raise fields.fail(key, "a list of pairs of a token and its type")
        found.append(Part(*item))
    return tuple(found)
