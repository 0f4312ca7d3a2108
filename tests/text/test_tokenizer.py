"""What all kinds of tokenizers share: added tokens, templates, truncation; against the library."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
import tokenizers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors

from sti.errors import InputError, PackFormatError
from sti.text.added_tokens import AddedToken
from sti.text.encoding import Encoding
from sti.text.kinds import KINDS, Settings
from sti.text.template import Part, Template, bert_template, roberta_template
from sti.text.tokenizer import Tokenizer
from sti.text.tokenizer_spec import TokenizerSpec
from sti.text.unigram_settings import UnigramSettings
from tests.support.wordpiece import SETTINGS, SPEC, SPECIAL

PIECES = ("a", "b", "##a", "##b", "ab", "e", "##e", "c", "##c", ".", "\u4e2d")
TEMPLATES = {
    bert_template("[CLS]", "[SEP]"): ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
    roberta_template("[CLS]", "[SEP]"): ("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B [SEP]"),
    Template(
        (Part("[MASK]", 1), Part("$A", 0)), (Part("$B", 1), Part("[SEP]", 0), Part("$A", 0))
    ): ("[MASK]:1 $A", "$B:1 [SEP] $A"),
}
TOKENS = st.builds(
    AddedToken,
    text=st.sampled_from(["ab", "a b", "<m>", "E", "\u4e2d", "b.", " c", "<m>a", "aa"]),
    normalized=st.booleans(),
    lstrip=st.booleans(),
    rstrip=st.booleans(),
    single_word=st.booleans(),
)
BITS = (*"abcxE.1_ \t\u00e9\u4e2d\u0130\u200d\u0903\u3000", "  ", "[MASK]", "[SEP]", "<m>a", "a b")
TEXTS = st.lists(st.sampled_from([*BITS, "<m>", "ab"]), max_size=12).map("".join)


def vocabulary(spec: TokenizerSpec) -> list[str]:
    words = [*SPECIAL, *PIECES]
    return words + [token.text for token in spec.added_tokens if token.text not in words]


def ours(spec: TokenizerSpec, *, chunk_chars: int = 8192) -> Tokenizer:
    return Tokenizer(spec, "\n".join(vocabulary(spec)).encode(), chunk_chars=chunk_chars)


def reference(spec: TokenizerSpec) -> tokenizers.Tokenizer:
    words = {word: number for number, word in enumerate((*SPECIAL, *PIECES))}
    built = tokenizers.Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    built.normalizer = normalizers.BertNormalizer()
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    built.add_special_tokens(list(spec.special_tokens))
    built.add_tokens(
        [
            tokenizers.AddedToken(
                token.text,
                normalized=token.normalized,
                lstrip=token.lstrip,
                rstrip=token.rstrip,
                single_word=token.single_word,
            )
            for token in spec.added_tokens
        ]
    )
    single, pair = TEMPLATES[spec.around]
    built.post_processor = processors.TemplateProcessing(
        single=single,
        pair=pair,
        special_tokens=[(word, words[word]) for word in ("[CLS]", "[SEP]", "[MASK]")],
    )
    built.enable_truncation(spec.max_tokens, direction=spec.truncation_side)
    return built


def rows(encoding: Encoding) -> list[Sequence[object]]:
    offsets = [tuple(pair) for pair in encoding.offsets.tolist()]
    ids, types = encoding.ids.tolist(), encoding.type_ids.tolist()
    return [ids, types, offsets, encoding.word_ids.tolist(), [encoding.truncated]]


def expected_rows(encoding: tokenizers.Encoding) -> list[Sequence[object]]:
    words = [-1 if word is None else word for word in encoding.word_ids]
    return [encoding.ids, encoding.type_ids, encoding.offsets, words, [bool(encoding.overflowing)]]


@settings(max_examples=100)
@given(
    tokens=st.lists(TOKENS, max_size=4, unique_by=lambda token: token.text),
    template=st.sampled_from(list(TEMPLATES)),
    side=st.sampled_from(["right", "left"]),
    limit=st.sampled_from([4, 5, 6, 9, 1000]),
    chunk_chars=st.sampled_from([3, 8192]),
    texts=st.lists(TEXTS, min_size=2, max_size=2),
)
def test_added_tokens_templates_and_sides_are_those_of_the_reference(
    tokens: list[AddedToken],
    template: Template,
    side: str,
    limit: int,
    chunk_chars: int,
    texts: list[str],
) -> None:
    beyond = [token for token in tokens if token.text not in vocabulary(SPEC)]
    spec = SPEC._replace(
        added_tokens=tuple(tokens),
        added_words=len(beyond),
        template=template,
        truncation_side=side,
        max_tokens=limit,
    )
    assert TokenizerSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    try:
        found = ours(spec, chunk_chars=chunk_chars)
    except PackFormatError as error:
        assume("the same when normalized" not in str(error))
        raise
    theirs = reference(spec)
    first, second = texts
    assert rows(found.encode(first)) == expected_rows(theirs.encode(first))
    assert rows(found.encode(first, second)) == expected_rows(theirs.encode(first, second))
    words = first.split(" ")
    theirs_split = theirs.encode(words, is_pretokenized=True)
    assert rows(found.encode_words(words)) == expected_rows(theirs_split)


def test_words_beyond_those_of_the_model_are_found_as_added_tokens_alone() -> None:
    spec = SPEC._replace(added_tokens=(AddedToken("EEE"), AddedToken("eee")), added_words=2)
    theirs = reference(spec)
    for text in ("EEE eee", "eEe", "xeee", "EE", "aEEEa"):
        assert rows(ours(spec).encode(text)) == expected_rows(theirs.encode(text))


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_a_vocabulary_of_nothing_but_added_words_is_refused(kind: str) -> None:
    settings: Settings = SETTINGS
    if kind == "unigram":
        settings = UnigramSettings(0, False, (), True, "\u2581", "always", True)
    spec = SPEC._replace(kind=kind, settings=settings, added_words=len(vocabulary(SPEC)))
    tables = {name: np.zeros(0, dtype) for name, dtype in KINDS[kind].tables.items()}
    with pytest.raises(PackFormatError, match="words are added to a vocabulary of"):
        Tokenizer(spec, "\n".join(vocabulary(spec)).encode(), tables)


def test_a_whole_text_becomes_lower_case_before_all_else() -> None:
    settings_of_cased = SETTINGS._replace(lowercase=False, strip_accents=False)
    spec = SPEC._replace(settings=settings_of_cased, lowercase_text=True)
    cased = ours(spec._replace(lowercase_text=False))
    text = "AB [MASK] \u0130 Ce"
    found = ours(spec).encode(text)
    assert found.ids.tolist() == cased.encode(text.lower()).ids.tolist()
    assert SPECIAL.index("[MASK]") not in found.ids
    assert found.offsets[-3:].tolist() == [[12, 13], [13, 14], [0, 0]]  # places in the text given


def test_a_pair_is_refused_in_words_where_two_texts_cannot_be_put_together() -> None:
    single = Template(bert_template("[CLS]", "[SEP]").single, ())
    found = ours(SPEC._replace(template=single))
    assert len(found.encode("a b").ids) == 4
    with pytest.raises(InputError, match="no way to put two together"):
        found.encode("a", "b")


def test_a_spec_of_the_usual_settings_is_written_as_it_always_was() -> None:
    written = {
        "kind": "wordpiece",
        **SETTINGS.to_json(),
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "max_tokens": 1000,
        "special_tokens": list(SPECIAL),
    }
    assert SPEC.to_json() == written
    assert TokenizerSpec.from_json(written) == SPEC


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("added_tokens", [{"text": "[MASK]"}], "listed twice"),
        ("added_tokens", [{"text": ""}], "not empty"),
        ("added_tokens", [{"text": "a", "lstrip": 1}], "'lstrip' must be true or false"),
        ("added_tokens", [{"text": "a", "strip": True}], "unknown field 'strip'"),
        ("added_tokens", [{"text": "a" * 65}], "more than 64 characters"),
        ("added_tokens", [{"text": f"{n}"} for n in range(1024)], "more than 1024 special tokens"),
        ("template", {"single": [["$B", 0]], "pair": []}, r"must have \$A once"),
        ("template", {"single": [], "pair": []}, r"must have \$A once"),
        ("template", {"single": [["$A", 2]], "pair": []}, "a type other than 0 and 1"),
        ("template", {"single": [["$A", True]], "pair": []}, "a token and its type"),
        ("template", {"single": [["$A", 0], *[["a", 0]] * 16], "pair": []}, "more than 16 parts"),
        ("cls_token", "$A", r"must have \$A once"),
        ("sep_token", "$B", r"must have \$A once, and no other"),
        ("truncation_side", "up", "one of right, left"),
        ("lowercase_text", "no", "'lowercase_text'"),
        ("added_words", -1, "'added_words'"),
    ],
)
def test_settings_that_cannot_be_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(PackFormatError, match=message):
        TokenizerSpec.from_json({**SPEC.to_json(), field: value})


def test_added_tokens_that_normalizing_makes_nothing_or_alike_are_refused() -> None:
    for texts, message in ((["\u0301"], "nothing when normalized"), (["E", "e"], "the same when")):
        tokens = tuple(AddedToken(text, normalized=True) for text in texts)
        with pytest.raises(PackFormatError, match=message):
            ours(SPEC._replace(added_tokens=tokens))
