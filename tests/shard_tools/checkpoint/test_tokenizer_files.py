"""Tokenizer files of a checkpoint: what is read, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from shard_tools.checkpoint.tokenizer_files import load_tokenizer
from sti.errors import CheckpointError
from sti.text.added_tokens import AddedToken
from sti.text.tokenizer import Tokenizer
from sti.text.tokenizer_spec import TokenizerSpec
from sti.text.wordpiece import WordPieceSettings

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "dog", "##s", "É", "e", ","]
SPECIAL = WORDS[:5]
SENTENCE = "The dogs, É é [MASK] cat"


def added(word: str, number: int, **options: object) -> dict[str, object]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": word, "special": True, **plain, **options}


def bert_file() -> dict[str, Any]:
    """A ``tokenizer.json`` as the reference library writes it, padding and truncation baked in."""
    cls_item, sep_item = ({"SpecialToken": {"id": w, "type_id": 0}} for w in ("[CLS]", "[SEP]"))
    first, second = ({"Sequence": {"id": i, "type_id": t}} for i, t in (("A", 0), ("B", 1)))
    last = {"SpecialToken": {"id": "[SEP]", "type_id": 1}}
    return {
        "version": "1.0",
        "truncation": {
            "direction": "Right",
            "max_length": 4,
            "strategy": "LongestFirst",
            "stride": 0,
        },
        "padding": {
            "strategy": {"Fixed": 32},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
        "added_tokens": [added(word, number) for number, word in enumerate(SPECIAL)],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [cls_item, first, sep_item],
            "pair": [cls_item, first, sep_item, second, last],
            "special_tokens": {
                word: {"id": word, "ids": [WORDS.index(word)], "tokens": [word]}
                for word in ("[CLS]", "[SEP]")
            },
        },
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: number for number, word in enumerate(WORDS)},
        },
    }


def write_json(folder: Path, name: str, value: object) -> None:
    (folder / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint with no tokenizer file yet."""
    write_json(tmp_path, "config.json", {"vocab_size": 16, "max_position_embeddings": 512})
    return tmp_path


@pytest.fixture
def with_json(checkpoint: Path) -> Path:
    write_json(checkpoint, "tokenizer.json", bert_file())
    return checkpoint


@pytest.fixture
def with_vocab(checkpoint: Path) -> Path:
    (checkpoint / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return checkpoint


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Write ``tokenizer.json`` anew with one change."""
    value = bert_file()
    change(value)
    write_json(folder, "tokenizer.json", value)


def settings_of(spec: TokenizerSpec) -> WordPieceSettings:
    assert isinstance(spec.settings, WordPieceSettings)
    return spec.settings


def ids(folder: Path, text: str = SENTENCE, pair: str | None = None) -> list[int]:
    return list(Tokenizer(*load_tokenizer(folder)).encode(text, pair).ids)


def reference_ids(folder: Path, text: str = SENTENCE, pair: str | None = None) -> list[int]:
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs.no_padding()
    theirs.no_truncation()
    return list(theirs.encode(text, pair).ids)


# --- tokenizer.json ---


def test_a_bert_file_loads_with_padding_and_truncation_ignored(with_json: Path) -> None:
    spec, vocab, _ = load_tokenizer(with_json)
    assert vocab == "\n".join(WORDS).encode()
    assert (
        settings_of(spec).lowercase,
        settings_of(spec).strip_accents,
        settings_of(spec).clean_text,
    ) == (True, True, True)
    assert spec.special_tokens == tuple(SPECIAL)
    assert spec.max_tokens == 512
    assert ids(with_json) == reference_ids(with_json)
    assert ids(with_json, "the dog", "dogs") == reference_ids(with_json, "the dog", "dogs")


def test_what_the_reference_library_saves_can_be_loaded(checkpoint: Path) -> None:
    built = tokenizers.BertWordPieceTokenizer(
        {word: number for number, word in enumerate(WORDS)}, lowercase=False, strip_accents=False
    )
    built.save(str(checkpoint / "tokenizer.json"))
    spec, *_ = load_tokenizer(checkpoint)
    assert (settings_of(spec).lowercase, settings_of(spec).strip_accents) == (False, False)
    assert (spec.cls_token, spec.sep_token) == ("[CLS]", "[SEP]")
    assert ids(checkpoint) == reference_ids(checkpoint)


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [True, False, None])
def test_accents_follow_the_case_unless_told(
    checkpoint: Path, lowercase: bool, strip_accents: bool | None
) -> None:
    options = {"lowercase": lowercase, "strip_accents": strip_accents}
    edit(checkpoint, lambda value: value["normalizer"].update(options))
    expected = lowercase if strip_accents is None else strip_accents
    assert settings_of(load_tokenizer(checkpoint).spec).strip_accents is expected
    assert ids(checkpoint) == reference_ids(checkpoint)


def test_a_sequence_of_bert_and_lowercase_is_understood(checkpoint: Path) -> None:
    def change(value: dict[str, Any]) -> None:
        cased = {**value["normalizer"], "lowercase": False}
        steps = [cased, {"type": "Lowercase"}]
        value["normalizer"] = {"type": "Sequence", "normalizers": steps}

    edit(checkpoint, change)
    spec, *_ = load_tokenizer(checkpoint)
    assert (settings_of(spec).lowercase, settings_of(spec).strip_accents) == (True, False)
    assert ids(checkpoint) == reference_ids(checkpoint)


def test_the_model_of_an_old_file_needs_no_type(checkpoint: Path) -> None:
    edit(checkpoint, lambda value: value["model"].pop("type"))
    assert settings_of(load_tokenizer(checkpoint).spec).continuing_prefix == "##"


def test_added_markers_beyond_the_vocabulary_join_it(checkpoint: Path) -> None:
    edit(checkpoint, lambda value: value["added_tokens"].append(added("<e1>", len(WORDS))))
    text = "the <e1>dog<e1>s <E1>"
    assert len(WORDS) in ids(checkpoint, text)
    assert ids(checkpoint, text) == reference_ids(checkpoint, text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda v: v["model"].update(type="WordLevel"),
            "model: type 'WordLevel' is not supported; supported",
        ),
        (lambda v: v["normalizer"].update(type="NFC"), "normalizer: type 'NFC'"),
        (lambda v: v.update(normalizer=None), "no normalizer; supported"),
        (
            lambda v: v.update(normalizer={"type": "Sequence", "normalizers": []}),
            "an empty Sequence",
        ),
        (
            lambda v: v.update(
                normalizer={"type": "Sequence", "normalizers": [v["normalizer"], {"type": "NFC"}]}
            ),
            "type 'NFC'",
        ),
        (lambda v: v["pre_tokenizer"].update(type="Whitespace"), "type 'Whitespace'"),
        (lambda v: v.update(pre_tokenizer=None), "no pre_tokenizer"),
        (lambda v: v.update(post_processor=None), "no post_processor"),
        (lambda v: v["post_processor"].update(type="ByteLevel"), "type 'ByteLevel'"),
        (lambda v: v["post_processor"].update(single=[]), r"a template must have \$A once"),
        (lambda v: v["post_processor"]["pair"].pop(3), r"must have \$A and \$B once"),
        (
            lambda v: v["post_processor"]["pair"][4]["SpecialToken"].update(type_id=2),
            "a type other",
        ),
        (
            lambda v: v["post_processor"]["special_tokens"]["[CLS]"].update(ids=[3]),
            "has the id 3, in the vocabulary 2",
        ),
        (
            lambda v: v["post_processor"]["special_tokens"]["[CLS]"].update(ids=[2, 3]),
            "2 ids; supported is one",
        ),
        (
            lambda v: v["post_processor"]["pair"][4]["SpecialToken"].update(id="<eos>"),
            "post_processor: '<eos>' is not in the vocabulary",
        ),
        (
            lambda v: v["post_processor"]["single"][1]["Sequence"].update(id="C"),
            "'id' must be A or B",
        ),
        (
            lambda v: v["post_processor"]["single"][0]["SpecialToken"].update(id="$A"),
            "'id' must be another",
        ),
        (
            lambda v: v.update(post_processor={"type": "BertProcessing", "cls": ["[CLS]", 4]}),
            "'sep' must be a list",
        ),
        (
            lambda v: v.update(
                post_processor={"type": "BertProcessing", "cls": ["[CLS]", 4], "sep": ["[SEP]", 3]}
            ),
            "'.CLS.' has the id 4, in the vocabulary 2",
        ),
        (lambda v: v["model"].update(fast=True), "model: unknown field 'fast'; known are"),
        (lambda v: v["normalizer"].update(fast=1), "normalizer: unknown field 'fast'"),
        (lambda v: v["pre_tokenizer"].update(fast=1), "pre_tokenizer: unknown field 'fast'"),
        (lambda v: v["post_processor"].update(fast=1), "post_processor: unknown field 'fast'"),
        (lambda v: v["added_tokens"][0].update(fast=1), r"added_tokens.0.: unknown field 'fast'"),
        (lambda v: v.pop("model"), "model"),
        (lambda v: v["model"].pop("vocab"), "vocab"),
        (lambda v: v["model"]["vocab"].update(cat=5), "'the' and 'cat' share the id 5"),
        (lambda v: v["model"]["vocab"].update(cat=12), "no word has the id 11"),
        (lambda v: v["model"]["vocab"].update(cat=-1), "'cat' must be an integer"),
        (lambda v: v["model"]["vocab"].update({"c\nt": 11}), "newline"),
        (lambda v: v["model"]["vocab"].update({"c\ud800t": 11}), "surrogate"),
        (lambda v: v["model"].update(unk_token="<unk>"), "unk_token '<unk>' is not in the voc"),
        (
            lambda v: v["added_tokens"].append(added("<a>", 12)),
            "'<a>' has the id 12; the next that is free is 11",
        ),
        (
            lambda v: v["added_tokens"].append(added("dog", 5)),
            "'dog' has the id 5; in the vocabulary it has 6",
        ),
        (lambda v: v["added_tokens"].append(added("a" * 65, 11)), "1 to 64 characters"),
        (lambda v: v["added_tokens"].append(added("", 11)), "1 to 64 characters"),
        (lambda v: v["added_tokens"].append(added("c\nt", 11)), "newline"),
        (lambda v: v["model"].update(max_input_chars_per_word=129), "at most 128"),
        (lambda v: v["truncation"].update(direction="Up"), "'direction' must be Right or Left"),
        (
            lambda v: v["model"]["vocab"].update({f"w{n}": n for n in range(11, 17)}),
            "17 words, but config.json says vocab_size 16",
        ),
    ],
)
def test_a_tokenizer_json_of_another_kind_is_refused(
    checkpoint: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    value = bert_file()
    change(value)
    (checkpoint / "tokenizer.json").write_text(json.dumps(value), encoding="ascii")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_tokenizer(checkpoint)
    assert "tokenizer.json" in str(caught.value)


def test_a_template_may_not_give_an_added_token_another_id(checkpoint: Path) -> None:
    def change(value: dict[str, Any], number: int) -> None:
        value["added_tokens"].append(added("<eos>", len(WORDS)))
        step = value["post_processor"]
        step["single"][2]["SpecialToken"]["id"] = "<eos>"
        step["special_tokens"]["<eos>"] = {"id": "<eos>", "ids": [number], "tokens": ["<eos>"]}

    edit(checkpoint, lambda value: change(value, len(WORDS)))
    assert ids(checkpoint) == reference_ids(checkpoint)
    edit(checkpoint, lambda value: change(value, 5))  # of which the reference makes "the"
    with pytest.raises(CheckpointError, match="'<eos>' has the id 5, in the vocabulary 11"):
        load_tokenizer(checkpoint)


@pytest.mark.parametrize("missing", ["[CLS]", "[SEP]", "[PAD]"])
def test_a_vocabulary_without_a_special_token_is_refused(checkpoint: Path, missing: str) -> None:
    def change(value: dict[str, Any]) -> None:
        number = value["model"]["vocab"].pop(missing)
        value["model"]["vocab"]["other"] = number
        value["added_tokens"] = []

    edit(checkpoint, change)
    with pytest.raises(CheckpointError, match=f"_token '.{missing[1:4]}.' is not in the vocab"):
        load_tokenizer(checkpoint)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "tokenizer.json: not valid JSON: .*line 1"),
        (b'{"a": 1,\n\n}', "not valid JSON: .*line 3"),
        (b'{"a":\n "\xff"}', "tokenizer.json: line 2 is not UTF-8"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[]", "expected an object"),
        (b"", "not valid JSON"),
    ],
)
def test_a_file_that_is_no_json_object_is_refused(
    checkpoint: Path, content: bytes, message: str
) -> None:
    (checkpoint / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(checkpoint)


# --- vocab.txt ---


def test_a_vocab_txt_alone_has_berts_defaults(with_vocab: Path) -> None:
    spec, vocab, _ = load_tokenizer(with_vocab)
    assert vocab == "\n".join(WORDS).encode()
    assert settings_of(spec).lowercase
    assert settings_of(spec).strip_accents
    assert settings_of(spec).handle_chinese_chars
    assert spec.special_tokens == ("[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]")
    edit(with_vocab, lambda value: None)
    expected = reference_ids(with_vocab)
    (with_vocab / "tokenizer.json").unlink()
    assert ids(with_vocab) == expected


def test_tokenizer_json_wins_over_vocab_txt(with_json: Path) -> None:
    (with_json / "vocab.txt").write_text("nothing\nof\nuse\n")
    assert ids(with_json) == reference_ids(with_json)


def test_tokenizer_config_sets_the_options_of_a_vocab_txt(with_vocab: Path) -> None:
    options = {"do_lower_case": False, "tokenize_chinese_chars": False, "strip_accents": None}
    write_json(with_vocab, "tokenizer_config.json", options)
    spec, *_ = load_tokenizer(with_vocab)
    assert (
        settings_of(spec).lowercase,
        settings_of(spec).strip_accents,
        settings_of(spec).handle_chinese_chars,
    ) == (False,) * 3


def test_special_tokens_may_be_named_as_text_or_as_objects(checkpoint: Path) -> None:
    words = ["<pad>", "<unk>", "<s>", "</s>", "dog"]
    (checkpoint / "vocab.txt").write_text("\n".join(words))
    named = {"unk_token": "<unk>", "sep_token": {"content": "</s>", "lstrip": False}}
    write_json(checkpoint, "tokenizer_config.json", named)
    write_json(
        checkpoint,
        "special_tokens_map.json",
        {"cls_token": "<s>", "pad_token": {"content": "<pad>"}},
    )
    spec, *_ = load_tokenizer(checkpoint)
    tokens = (settings_of(spec).unk_token, spec.sep_token, spec.cls_token, spec.pad_token)
    assert tokens == ("<unk>", "</s>", "<s>", "<pad>")
    assert spec.special_tokens == ("<unk>", "</s>", "<pad>", "<s>")
    assert ids(checkpoint, "<s> dog") == [2, 2, 4, 3]


def test_a_vocab_txt_may_end_its_lines_as_windows_does(checkpoint: Path) -> None:
    (checkpoint / "vocab.txt").write_bytes("\r\n".join(WORDS).encode() + b"\r\n")
    assert load_tokenizer(checkpoint).vocabulary == "\n".join(WORDS).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[PAD]\n[UNK]\n[CLS]\n[UNK]\n", r"vocab.txt: line 4 repeats '\[UNK\]' of line 2"),
        (b"[PAD]\n\n[UNK]\n\n", "vocab.txt: line 4 repeats '' of line 2"),
        (b"[PAD]\n[UNK]\ncaf\xe9\n", "vocab.txt: line 3 is not UTF-8"),
        (b"[PAD]\n[CLS]\n[SEP]\n", r"vocab.txt: unk_token '\[UNK\]' is not in the vocabulary"),
        (b"", "is not in the vocabulary"),
        ("\n".join(map(str, range(17))).encode(), "17 words, but config.json says vocab_size 16"),
    ],
)
def test_a_vocab_txt_that_cannot_be_used_is_refused(
    checkpoint: Path, content: bytes, message: str
) -> None:
    (checkpoint / "vocab.txt").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(checkpoint)


def test_a_tokenizer_without_the_basic_step_is_refused(with_vocab: Path) -> None:
    write_json(with_vocab, "tokenizer_config.json", {"do_basic_tokenize": False})
    with pytest.raises(CheckpointError, match="do_basic_tokenize"):
        load_tokenizer(with_vocab)


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf[PAD]\n[UNK]\n"])
def test_a_byte_order_mark_is_refused_in_words(checkpoint: Path, content: bytes) -> None:
    (checkpoint / "vocab.txt").write_bytes(content)
    with pytest.raises(CheckpointError, match="begins with a byte order mark"):
        load_tokenizer(checkpoint)


# --- added tokens of every file ---


def flagged(folder: Path) -> dict[str, AddedToken]:
    return {token.text: token for token in load_tokenizer(folder).spec.added_tokens}


def test_added_tokens_json_lists_words_beyond_a_vocab_txt(with_vocab: Path) -> None:
    write_json(with_vocab, "added_tokens.json", {"e1": 11, "<e2>": 12})
    write_json(with_vocab, "special_tokens_map.json", {"additional_special_tokens": ["<e2>"]})
    parts = load_tokenizer(with_vocab)
    assert parts.vocabulary.split(b"\n")[11:] == [b"e1", b"<e2>"]
    assert parts.spec.added_words == 2
    assert flagged(with_vocab) == {"e1": AddedToken("e1", normalized=True)}
    assert "<e2>" in parts.spec.special_tokens
    assert ids(with_vocab, "the E1 <e2>") == [2, 5, 11, 12, 3]


def test_added_tokens_decoder_settles_what_other_files_say(with_json: Path) -> None:
    write_json(with_json, "added_tokens.json", {"ignored": 40})
    write_json(with_json, "special_tokens_map.json", {"pad_token": "ignored"})
    entry = {"content": "[MASK]", "lstrip": True, "special": True}
    decoder = {"4": {**entry, "normalized": False}, "11": {"content": "e1"}}
    write_json(with_json, "tokenizer_config.json", {"added_tokens_decoder": decoder})
    assert flagged(with_json) == {
        "[MASK]": AddedToken("[MASK]", lstrip=True),
        "e1": AddedToken("e1", normalized=True),
    }


def test_more_special_tokens_get_the_next_ids(with_vocab: Path) -> None:
    more = ["<a>", {"content": "<b>", "rstrip": True}, "dog"]
    write_json(with_vocab, "tokenizer_config.json", {"additional_special_tokens": more})
    assert ids(with_vocab, "<a>dog<b>") == [2, 11, 6, 12, 3]
    assert flagged(with_vocab) == {"<b>": AddedToken("<b>", rstrip=True)}


def test_special_tokens_without_names_are_those_of_the_file_that_counts(with_vocab: Path) -> None:
    key = "additional_special_tokens"
    write_json(with_vocab, "special_tokens_map.json", {key: ["<b>"]})
    assert "<b>" in load_tokenizer(with_vocab).spec.special_tokens
    write_json(with_vocab, "tokenizer_config.json", {key: ["<a>"]})
    special = load_tokenizer(with_vocab).spec.special_tokens
    assert "<a>" in special
    assert "<b>" not in special


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("added_tokens.json", {"e1": 12}, "'e1' has the id 12; the next that is free is 11"),
        ("added_tokens.json", {"e1": -1}, "'e1' must be an integer of at least 0"),
        ("added_tokens.json", {"e1": 11.0}, "'e1' must be an integer"),
        ("added_tokens.json", {"dog": 11}, "'dog' has the id 11; in the vocabulary it has 6"),
        ("added_tokens.json", {f"w{n}": 11 + n for n in range(1020)}, "at most 1024"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}, "'x' must be named by"),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"9" * 5000: {"content": "a"}}},
            "'9{70,80} must be named by",
        ),
        ("tokenizer_config.json", {"unk_token": 3}, "'unk_token' must be a token"),
        ("tokenizer_config.json", {"additional_special_tokens": [3]}, "expected an object"),
        ("tokenizer_config.json", {"truncation_side": "up"}, "one of right, left"),
        ("tokenizer_config.json", {"auto_map": {}}, "code of the checkpoint's own"),
    ],
)
def test_lists_of_tokens_that_cannot_be_are_refused(
    with_vocab: Path, name: str, value: object, message: str
) -> None:
    write_json(with_vocab, name, value)
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(with_vocab)


# --- which file counts ---


@pytest.mark.parametrize("name", ["BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer"])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (True, True, True)),
        ({"do_lower_case": False}, (False, False, True)),
        ({"strip_accents": False, "tokenize_chinese_chars": False}, (True, False, False)),
    ],
)
def test_options_of_a_bert_class_win_over_tokenizer_json(
    checkpoint: Path, name: str, options: dict[str, bool], expected: tuple[bool, bool, bool]
) -> None:
    edit(checkpoint, lambda value: value["normalizer"].update(lowercase=False))
    write_json(checkpoint, "tokenizer_config.json", {"tokenizer_class": name, **options})
    found = settings_of(load_tokenizer(checkpoint).spec)
    assert (found.lowercase, found.strip_accents, found.handle_chinese_chars) == expected


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "TokenizersBackend"])
def test_tokenizer_json_is_all_that_counts_for_a_class_of_no_kind(
    checkpoint: Path, name: str
) -> None:
    edit(checkpoint, lambda value: value["normalizer"].update(lowercase=False))
    options = {"tokenizer_class": name, "do_lower_case": True}
    write_json(checkpoint, "tokenizer_config.json", options)
    assert not settings_of(load_tokenizer(checkpoint).spec).lowercase


@pytest.mark.parametrize("name", ["BertJapaneseTokenizer", "BertweetTokenizer", "XTokenizerFast"])
@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json"])
def test_a_class_of_another_algorithm_is_refused_by_name(
    with_vocab: Path, name: str, file: str
) -> None:
    sizes = {"vocab_size": 16, "max_position_embeddings": 512}
    write_json(with_vocab, file, {"tokenizer_class": name, **sizes})
    with pytest.raises(CheckpointError, match=f"{file}: tokenizer_class '{name}' is not supp"):
        load_tokenizer(with_vocab)


def test_a_class_of_another_kind_than_the_files_is_refused(with_json: Path) -> None:
    write_json(with_json, "tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer"})
    with pytest.raises(CheckpointError, match=r"of the kind BPE, the .* of the kind WordPiece"):
        load_tokenizer(with_json)


@pytest.mark.parametrize("config", [None, "left", "right"])
def test_the_end_is_kept_where_either_file_says_so(checkpoint: Path, config: str | None) -> None:
    edit(checkpoint, lambda value: value["truncation"].update(direction="Left"))
    if config is not None:
        write_json(checkpoint, "tokenizer_config.json", {"truncation_side": config})
    assert load_tokenizer(checkpoint).spec.truncation_side == (config or "left")


@pytest.mark.parametrize("first", [True, False])
def test_lower_case_before_or_after_berts_normalizer_is_understood(
    checkpoint: Path, first: bool
) -> None:
    def change(value: dict[str, Any]) -> None:
        steps = [{"type": "Lowercase"}, {**value["normalizer"], "lowercase": False}]
        value["normalizer"] = {"type": "Sequence", "normalizers": steps[:: 1 if first else -1]}

    edit(checkpoint, change)
    assert ids(checkpoint) == reference_ids(checkpoint)


def test_robertas_way_to_put_two_texts_together_is_understood(checkpoint: Path) -> None:
    step = {"type": "RobertaProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    more = {"trim_offsets": True, "add_prefix_space": False}
    edit(checkpoint, lambda value: value.update(post_processor={**step, **more}))
    assert ids(checkpoint, "the dog", "dogs") == reference_ids(checkpoint, "the dog", "dogs")


# --- the sequence limit, and the other files ---


@pytest.mark.parametrize(
    ("settings", "sentence", "expected"),
    [
        ({}, {}, 512),
        ({"model_max_length": 128}, {}, 128),
        ({"max_len": 64}, {}, 64),
        ({"max_len": 64, "model_max_length": 128}, {}, 128),
        ({"model_max_length": 128}, {"max_seq_length": 256}, 256),
        ({"model_max_length": 512}, {"max_seq_length": None}, 512),
        ({"model_max_length": int(1e30)}, {}, 512),
        ({"model_max_length": 1e30}, {}, 512),
        ({}, {"max_seq_length": 1024}, 512),
    ],
)
def test_the_most_specific_limit_counts_within_the_position_table(
    with_json: Path, settings: object, sentence: object, expected: int
) -> None:
    write_json(with_json, "tokenizer_config.json", settings)
    write_json(with_json, "sentence_bert_config.json", sentence)
    assert load_tokenizer(with_json).spec.max_tokens == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("config.json", {"max_position_embeddings": 512}, "config.json: field 'vocab_size'"),
        (
            "config.json",
            {"vocab_size": 16, "max_position_embeddings": 2},
            "'max_position_embeddings'",
        ),
        ("tokenizer_config.json", {"model_max_length": "512"}, "'model_max_length' must be a num"),
        ("tokenizer_config.json", {"pad_token": {"text": "[PAD]"}}, "pad_token: field 'content'"),
        ("sentence_bert_config.json", {"max_seq_length": 2}, "'max_seq_length'"),
        ("sentence_bert_config.json", {"do_lower_case": "no"}, "'do_lower_case'"),
    ],
)
def test_a_malformed_setting_is_refused_by_name(
    with_json: Path, name: str, value: object, message: str
) -> None:
    write_json(with_json, name, value)
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(with_json)


def test_sentence_transformers_may_lower_the_text_of_a_cased_tokenizer(checkpoint: Path) -> None:
    edit(checkpoint, lambda value: value["normalizer"].update(lowercase=False))
    write_json(checkpoint, "sentence_bert_config.json", {"do_lower_case": True})
    spec, *_ = load_tokenizer(checkpoint)
    assert (settings_of(spec).lowercase, spec.lowercase_text) == (False, True)
    assert ids(checkpoint, "The DOG [SEP]") == ids(checkpoint, "the dog [sep]")


def test_the_files_of_sentence_transformers_count_under_their_old_names(with_json: Path) -> None:
    write_json(with_json, "sentence_xlnet_config.json", {"max_seq_length": 9})
    write_json(with_json, "sentence_distilbert_config.json", {"max_seq_length": 7})
    assert load_tokenizer(with_json).spec.max_tokens == 7
    write_json(with_json, "sentence_bert_config.json", {"do_lower_case": True})
    spec = load_tokenizer(with_json).spec
    assert (spec.max_tokens, spec.lowercase_text) == (512, True)  # it reads no other then


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config.json: cannot be read: No such file"):
        load_tokenizer(tmp_path)
    write_json(tmp_path, "config.json", {"vocab_size": 16, "max_position_embeddings": 512})
    with pytest.raises(CheckpointError, match=r"neither tokenizer.json, nor vocab.txt, nor vocab"):
        load_tokenizer(tmp_path)


def test_a_word_without_end_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path, "config.json", {"vocab_size": 16, "max_position_embeddings": 512})
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, "a" * 4097]), encoding="utf-8")
    with pytest.raises(CheckpointError, match="a word has more than 4096 characters"):
        load_tokenizer(tmp_path)


def test_far_more_words_than_a_model_can_have_are_refused_unread(tmp_path: Path) -> None:
    write_json(tmp_path, "config.json", {"vocab_size": 16, "max_position_embeddings": 512})
    (tmp_path / "vocab.txt").write_bytes(b"\n" * (1 << 21))
    with pytest.raises(CheckpointError, match="more than the 1048576 words"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("[" + "0," * (1 << 21) + "0]", encoding="utf-8")
    with pytest.raises(CheckpointError, match="values it may have"):
        load_tokenizer(tmp_path)
