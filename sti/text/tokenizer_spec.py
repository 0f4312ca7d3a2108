"""What a pack's manifest says of its tokenizer: what all kinds share, and the settings of its kind.

In: JSON. Out: a ``TokenizerSpec``, checked but for what only the vocabulary can tell. Knows no
kind: they are listed in ``sti.text.kinds``.
"""

from __future__ import annotations

from typing import NamedTuple

from sti.errors import PackFormatError
from sti.json_fields import JsonFields
from sti.text.kinds import KINDS, Settings

MOST_SPECIAL_TOKENS = 1024
LONGEST_SPECIAL_TOKEN = 64
"""Characters. A place of a text may be compared with all those of a special token."""

_LEAST_TOKENS = 3  # CLS A SEP B SEP without texts


class TokenizerSpec(NamedTuple):
    """Everything about a tokenizer except its vocabulary; stored in a pack's manifest as JSON.

    Attributes:
        kind: a key of ``sti.text.kinds.KINDS``.
        settings: what only this kind has.
        cls_token, sep_token, pad_token: words of the vocabulary.
        max_tokens: sequence limit, special tokens included.
        special_tokens: words of the vocabulary recognised verbatim in the text, before all else.
    """

    kind: str
    settings: Settings
    cls_token: str
    sep_token: str
    pad_token: str
    max_tokens: int
    special_tokens: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The fields as JSON values, those of the settings beside the others."""
        return {
            "kind": self.kind,
            **self.settings.to_json(),
            "cls_token": self.cls_token,
            "sep_token": self.sep_token,
            "pad_token": self.pad_token,
            "max_tokens": self.max_tokens,
            "special_tokens": list(self.special_tokens),
        }

    @classmethod
    def from_json(cls, obj: object) -> TokenizerSpec:
        """The spec that ``to_json`` wrote.

        Raises:
            PackFormatError: a field is missing, ill-typed or unknown, the kind is unknown, or
                numbers or special tokens cannot be.
        """
        fields = JsonFields(obj, where="tokenizer", error=PackFormatError)
        kind = fields.text("kind")
        if kind not in KINDS:
            raise PackFormatError(
                f"tokenizer: kind {kind!r:.80} is unknown; this version of sti knows "
                f"{', '.join(map(repr, KINDS))}: update sti, or build the pack again"
            )
        known = {*_SHARED, *KINDS[kind].setting_names}
        unknown = sorted(set(fields.keys()) - known)
        if unknown:
            raise PackFormatError(
                f"tokenizer: setting {unknown[0]!r:.80} is unknown to this version of sti: update "
                "sti, or build the pack again"
            )
        special_tokens = fields.texts("special_tokens")
        if "" in special_tokens:
            raise fields.fail("special_tokens", "a list of strings that are not empty")
        found = cls(
            kind=kind,
            settings=KINDS[kind].settings(fields),
            cls_token=fields.text("cls_token"),
            sep_token=fields.text("sep_token"),
            pad_token=fields.text("pad_token"),
            max_tokens=fields.integer("max_tokens", least=_LEAST_TOKENS),
            special_tokens=special_tokens,
        )
        found._check()
        return found

    def _check(self) -> None:
        """Refuse settings that would make looking words up slow or ambiguous."""
        named = (*self.settings.named_words(), self.cls_token, self.sep_token, self.pad_token)
        if len(set(named)) != len(named):
            raise PackFormatError("tokenizer: two of unk, cls, sep and pad are the same token")
        special = self.special_tokens
        if (
            len(special) > MOST_SPECIAL_TOKENS
            or max(map(len, (*special, *named))) > LONGEST_SPECIAL_TOKEN
        ):
            raise PackFormatError(
                f"tokenizer: more than {MOST_SPECIAL_TOKENS} special tokens, or one of more than "
                f"{LONGEST_SPECIAL_TOKEN} characters"
            )
        if len(set(special)) != len(special):
            raise PackFormatError("tokenizer: a special token is listed twice")


_SHARED = tuple(name for name in TokenizerSpec._fields if name != "settings")
