"""Added and special tokens of a checkpoint, of all the files that may list them.

In: what ``tokenizer.json`` lists, ``tokenizer_config.json``, ``special_tokens_map.json``,
``added_tokens.json`` and the tokenizer's class. Out: every token with how it is looked for, and the
words that are added to the vocabulary for them. Where files contradict, transformers' precedence
holds: ``added_tokens_decoder`` makes the two last files count for nothing, and settles the flags of
a token; without it ``special_tokens_map.json`` wins over ``tokenizer_config.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shard_tools.checkpoint.tokenizer_classes import TokenizerClass
from shard_tools.checkpoint.tokenizer_pipeline import Listed, added_token
from shard_tools.checkpoint.words_by_id import expect_encodable
from sti.errors import CheckpointError
from sti.json_fields import JsonFields, whole_number
from sti.text.added_tokens import LONGEST_ADDED_TOKEN, MOST_ADDED_TOKENS, AddedToken

NAMED = (
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
    "bos_token",
    "eos_token",
)
_MORE, _MORE_ONCE = "extra_special_tokens", "additional_special_tokens"


class TokenFiles:
    """The files beside the tokenizer's own that list tokens.

    Args:
        settings: ``tokenizer_config.json``.
        special: ``special_tokens_map.json``.
        added: ``added_tokens.json``.
        known: the tokenizer's class.
    """

    def __init__(
        self, settings: JsonFields, special: JsonFields, added: JsonFields, known: TokenizerClass
    ) -> None:
        decided = settings.has("added_tokens_decoder")
        self._settings = settings
        self._added = None if decided else added
        self._sources = (settings,) if decided else (special, settings)
        self._known = known

    def named(self, key: str) -> str | None:
        """A special token by its name, such as ``cls_token``; None where there is none."""
        for source in self._sources:
            value = source.raw(key)
            if isinstance(value, str):
                return value
            if isinstance(value, Mapping):
                return source.object(key).text("content")
            if value is not None:
                raise source.fail(key, "a token")
        return self._known.tokens.get(key)

    def listed(self, own: Sequence[Listed]) -> list[Listed]:
        """All tokens: those with ids in their order, then those that get the next ones.

        Args:
            own: those of ``tokenizer.json``.

        Raises:
            CheckpointError: an entry is malformed.
        """
        more = self._special()
        special = {listed.token.text for listed in more}
        by_text = {listed.token.text: listed for listed in own}
        for listed in (*self._decoder(), *self._legacy(special)):
            # What tokenizer.json says of a token is only corrected by added_tokens_decoder.
            if self._added is None or listed.token.text not in by_text:
                by_text[listed.token.text] = listed
        found = sorted(by_text.values(), key=lambda listed: listed.number or 0)
        return [*found, *(listed for listed in more if listed.token.text not in by_text)]

    def _decoder(self) -> list[Listed]:
        if self._added is not None:
            return []
        decoder = self._settings.object("added_tokens_decoder")
        found = []
        for key in decoder.keys():
            entry = decoder.object(key)
            number = whole_number(key)
            if number is None:
                raise decoder.fail(key, "named by the id of a token")
            plain = entry.has("special") and entry.flag("special")
            token = added_token(entry, normalized=not plain)
            found.append(Listed(token, number, entry.where))
        return found

    def _legacy(self, special: set[str]) -> list[Listed]:
        """Those of ``added_tokens.json``."""
        added = self._added
        if added is None:
            return []
        found = []
        for text in added.keys():
            token = AddedToken(text, normalized=text not in special)
            found.append(Listed(token, added.integer(text), added.where))
        return found

    def _special(self) -> list[Listed]:
        """Special tokens by their names, and those that have none."""
        found: dict[str, Listed] = {}
        for key in NAMED:
            text = self.named(key)
            if text:
                mask = key == "mask_token" and self._known.spaced_mask
                source = next((x for x in self._sources if x.has(key)), None)
                token = AddedToken(text, lstrip=mask)
                if source is not None and isinstance(source.raw(key), Mapping):
                    token = added_token(source.object(key))
                where = f"{(source or self._settings).where}: {key}"
                found.setdefault(text, Listed(token, None, where, optional=source is None))
        unnamed = self._unnamed()
        for text in () if unnamed else self._known.more:
            where = self._settings.where
            found.setdefault(text, Listed(AddedToken(text), None, where, optional=True))
        for source, key in unnamed:
            value = source.raw(key)
            where = f"{source.where}: {key}"
            for item in value.values() if isinstance(value, Mapping) else source.items(key):
                token = (
                    AddedToken(item)
                    if isinstance(item, str)
                    else added_token(JsonFields(item, where=where, error=CheckpointError))
                )
                found.setdefault(token.text, Listed(token, None, where))
        return list(found.values())

    def _unnamed(self) -> list[tuple[JsonFields, str]]:
        """Where special tokens without names are listed; the old key is read where the new one
        holds nothing, and in ``special_tokens_map.json`` where neither is in the other file.
        """
        own = next((key for key in (_MORE, _MORE_ONCE) if self._settings.raw(key)), None)
        found = [] if own is None else [(self._settings, own)]
        for source in self._sources[:-1]:
            keys = {_MORE, _MORE_ONCE} & set(self._settings.keys())
            found += [(source, key) for key in (_MORE, *([] if keys else [_MORE_ONCE]))]
        return [(source, key) for source, key in found if source.has(key)]


def with_added(words: list[str], listed: Sequence[Listed]) -> tuple[list[str], list[AddedToken]]:
    """The vocabulary with added tokens at its end, and all added tokens.

    Args:
        words: those of the tokenizer's model by id.
        listed: the added tokens in the order in which they get ids.

    Raises:
        CheckpointError: an id is not that of the vocabulary, or not the next that is free; or a
            token is too long, or there are too many.
    """
    words = list(words)
    ids = {word: number for number, word in enumerate(words)}
    tokens = []
    if len(listed) > MOST_ADDED_TOKENS:
        raise CheckpointError(
            f"{listed[0].where}: {len(listed)} added tokens; at most {MOST_ADDED_TOKENS} are "
            "supported"
        )
    for entry in listed:
        text = entry.token.text
        if not text or len(text) > LONGEST_ADDED_TOKEN:
            raise CheckpointError(
                f"{entry.where}: an added token must have 1 to {LONGEST_ADDED_TOKEN} characters, "
                f"found {text!r:.80}"
            )
        if text not in ids:
            if entry.optional:
                continue
            expect_encodable(entry.where, [text])
            if entry.number in (None, len(words)):
                ids[text] = len(words)
                words.append(text)
        if entry.number is not None and ids.get(text) != entry.number:
            told = f"the next that is free is {len(words)}, and gaps are not supported"
            if text in ids:
                told = f"in the vocabulary it has {ids[text]}"
            raise CheckpointError(f"{entry.where}: {text!r} has the id {entry.number}; {told}")
        tokens.append(entry.token)
    return words, tokens
