"""What a pack's manifest says of its tokenizer: what all kinds share, and the settings of its kind.

In: JSON. Out: a ``TokenizerSpec``, checked but for what only the vocabulary can tell. Knows no
kind: they are listed in ``sti.text.kinds``.
"""

from __future__ import annotations

from typing import NamedTuple

from sti.errors import PackFormatError
from sti.json_fields import JsonFields
from sti.text.added_tokens import LONGEST_ADDED_TOKEN, MOST_ADDED_TOKENS, AddedToken
from sti.text.kinds import KINDS, Settings
from sti.text.template import Template, bert_template

SIDES = ("right", "left")
"""Where tokens are cut off: the usual side first."""


class TokenizerSpec(NamedTuple):
    """Everything about a tokenizer except its vocabulary; stored in a pack's manifest as JSON.

    Attributes:
        kind: a key of ``sti.text.kinds.KINDS``.
        settings: what only this kind has.
        cls_token, sep_token, pad_token: words of the vocabulary.
        max_tokens: sequence limit, special tokens included.
        special_tokens: words of the vocabulary recognised verbatim in the text, before all else.
        added_tokens: more of them, that are looked for in another way.
        template: what is put around texts; None for BERT's way.
        truncation_side: where tokens are cut off.
        added_words: so many words at the end of the vocabulary are only found as added tokens.
        lowercase_text: the whole text becomes lower case, special tokens in it too, before all
            else; by Python's ``str.lower``, as sentence-transformers does.
    """

    kind: str
    settings: Settings
    cls_token: str
    sep_token: str
    pad_token: str
    max_tokens: int
    special_tokens: tuple[str, ...]
    added_tokens: tuple[AddedToken, ...] = ()
    template: Template | None = None
    truncation_side: str = SIDES[0]
    added_words: int = 0
    lowercase_text: bool = False

    @property
    def around(self) -> Template:
        """What is put around texts."""
        return self.template or bert_template(self.cls_token, self.sep_token)

    def to_json(self) -> dict[str, object]:
        """The fields as JSON values, those of the settings beside the others.

        Those that have a default are left out where they have it.
        """
        found: dict[str, object] = {
            "kind": self.kind,
            **self.settings.to_json(),
            "cls_token": self.cls_token,
            "sep_token": self.sep_token,
            "pad_token": self.pad_token,
            "max_tokens": self.max_tokens,
            "special_tokens": list(self.special_tokens),
        }
        if self.added_tokens:
            found["added_tokens"] = [token.to_json() for token in self.added_tokens]
        if self.template is not None:
            found["template"] = self.template.to_json()
        if self.truncation_side != SIDES[0]:
            found["truncation_side"] = self.truncation_side
        if self.added_words:
            found["added_words"] = self.added_words
        if self.lowercase_text:
            found["lowercase_text"] = True
        return found

    @classmethod
    def from_json(cls, obj: object) -> TokenizerSpec:
        """The spec that ``to_json`` wrote.

        Raises:
            PackFormatError: a field is missing, ill-typed or unknown, the kind is unknown, or
                numbers, special tokens or the template cannot be.
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
        added = fields.objects("added_tokens") if fields.has("added_tokens") else []
        if len(special_tokens) + len(added) > MOST_ADDED_TOKENS:
            raise PackFormatError(f"tokenizer: more than {MOST_ADDED_TOKENS} special tokens")
        side = fields.text("truncation_side") if fields.has("truncation_side") else SIDES[0]
        if side not in SIDES:
            raise fields.fail("truncation_side", f"one of {', '.join(SIDES)}")
        template = fields.object("template") if fields.has("template") else None
        found = cls(
            kind=kind,
            settings=KINDS[kind].settings(fields),
            cls_token=fields.text("cls_token"),
            sep_token=fields.text("sep_token"),
            pad_token=fields.text("pad_token"),
            max_tokens=fields.integer("max_tokens", least=1),
            special_tokens=special_tokens,
            added_tokens=tuple(map(AddedToken.from_json, added)),
            template=None if template is None else Template.from_json(template),
            truncation_side=side,
            added_words=fields.integer("added_words") if fields.has("added_words") else 0,
            lowercase_text=fields.has("lowercase_text") and fields.flag("lowercase_text"),
        )
        found.check(fields)
        return found

    def check(self, fields: JsonFields) -> None:
        """Refuse settings that would make looking words up slow or ambiguous."""
        fault = self.around.fault()  # of BERT's way, too: a token may be called as a text is
        if fault:
            raise PackFormatError(f"tokenizer: template: {fault}")
        least = self.around.least_tokens()
        if self.max_tokens < least:
            raise fields.fail("max_tokens", f"an integer of at least {least}")
        named = (*self.settings.named_words(), self.cls_token, self.sep_token, self.pad_token)
        if len(set(named)) != len(named):
            raise PackFormatError("tokenizer: two of unk, cls, sep and pad are the same token")
        special = (*self.special_tokens, *(token.text for token in self.added_tokens))
        if max(map(len, (*special, *named, *self.around.tokens()))) > LONGEST_ADDED_TOKEN:
            raise PackFormatError(
                f"tokenizer: special tokens: one has more than {LONGEST_ADDED_TOKEN} characters"
            )
        if len(set(special)) != len(special):
            raise PackFormatError("tokenizer: a special token is listed twice")


_SHARED = tuple(name for name in TokenizerSpec._fields if name != "settings")
