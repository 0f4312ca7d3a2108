"""Byte-level BPE as ``tokenizer.json`` has it, or ``vocab.json`` with ``merges.txt``.

In: the parsed file, or the two files. Out: an ``OwnPart``. Only the ByteLevel pre-tokenizer
and BPE without dropout, prefix or suffix are understood; anything else is refused. Knows nothing
of added tokens, nor of templates but for what they do to offsets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from shard_tools.checkpoint.tokenizer_pipeline import OwnPart, flag, read_object, read_text
from shard_tools.checkpoint.words_by_id import words_by_id
from sti.errors import CheckpointError
from sti.json_fields import JsonFields
from sti.text.byte_bpe import KIND, ByteBpeSettings
from sti.text.byte_words import BYTE_CHARS
from sti.text.merges import make_tables

SUPPORTED = "supported: BPE with the ByteLevel pre-tokenizer, without normalizer and dropout"
_MERGES = "merges.txt"
_VERSION = "#version"  # begins the first line of merges.txt
_BYTE_LEVEL = ("add_prefix_space", "trim_offsets", "use_regex")
_OPTIONS = (
    *("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"),
    *("fuse_unk", "byte_fallback", "ignore_merges"),
)
_NO_TRIMMING = ("BertProcessing", "TemplateProcessing")


def read_byte_bpe(fields: JsonFields) -> OwnPart:
    """The tokenizer of a parsed ``tokenizer.json``.

    Raises:
        CheckpointError: it is malformed or not supported; names file and key.
    """
    if fields.has("normalizer"):
        kind = fields.object("normalizer").text("type")
        raise CheckpointError(f"{fields.where}: normalizer {kind!r:.60}; {SUPPORTED}")
    if not fields.has("pre_tokenizer"):
        raise CheckpointError(f"{fields.where}: no pre_tokenizer; {SUPPORTED}")
    splitting = _byte_level(fields.object("pre_tokenizer"))
    model = fields.object("model")
    _check_model(model)
    trim_offsets, trim_prefix_space = _trimming(fields)
    settings = ByteBpeSettings(
        add_prefix_space=flag(splitting, "add_prefix_space", default=True),
        part_words=flag(splitting, "use_regex", default=True),
        whole_words=flag(model, "ignore_merges", default=False),
        trim_offsets=trim_offsets,
        trim_prefix_space=trim_prefix_space,
    )
    words = words_by_id(model.object("vocab"))
    pairs = (
        _pair(f"{model.where}: merges[{at}]", merge)
        for at, merge in enumerate(model.items("merges"))
    )
    return _files(settings, words, model.where, pairs)


def read_vocab_and_merges(vocab: Path, settings: ByteBpeSettings) -> OwnPart:
    """The tokenizer of ``vocab.json`` and the ``merges.txt`` beside it.

    Args:
        vocab: the vocabulary.
        settings: what neither file says.

    Raises:
        CheckpointError: a file is missing, malformed or not supported; names file and line or key.
    """
    path = vocab.with_name(_MERGES)
    if not path.is_file():
        raise CheckpointError(f"{path}: is missing; {vocab.name} is not enough without it")
    lines = read_text(path).split("\n")
    pairs = (
        _pair(f"{path}: line {at}", line.removesuffix("\r"))
        for at, line in enumerate(lines, start=1)
        if line.strip() and not line.startswith(_VERSION)
    )
    return _files(settings, words_by_id(read_object(vocab)), str(vocab), pairs)


def _byte_level(step: JsonFields) -> JsonFields:
    """The ByteLevel pre-tokenizer, alone or alone in a Sequence."""
    steps = [step]
    if step.text("type") == "Sequence":
        steps = step.only("type", "pretokenizers").objects("pretokenizers")
    kinds = [step.text("type") for step in steps]
    if kinds != ["ByteLevel"]:
        raise CheckpointError(f"{step.where}: {', '.join(kinds) or 'no step':.80}; {SUPPORTED}")
    return steps[0].only("type", *_BYTE_LEVEL)


def _check_model(model: JsonFields) -> None:
    """Refuse what would change ids, and is not done here.

    As all bytes have words, nothing is ever unknown: ``unk_token``, ``fuse_unk`` and
    ``byte_fallback`` change nothing.
    """
    if model.has("type") and model.text("type") != "BPE":
        raise CheckpointError(f"{model.where}: type {model.text('type')!r:.60}; {SUPPORTED}")
    model.only("type", "vocab", "merges", *_OPTIONS)
    if model.has("dropout") and model.number("dropout") != 0:
        raise CheckpointError(f"{model.where}: dropout {model.raw('dropout')!r:.30}; {SUPPORTED}")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.has(key) and model.text(key):
            raise CheckpointError(f"{model.where}: {key} {model.text(key)!r:.30}; {SUPPORTED}")


def _trimming(fields: JsonFields) -> tuple[bool, bool]:
    """Whether the post-processor trims offsets, and its own ``add_prefix_space``."""
    if not fields.has("post_processor"):
        return False, False
    step = fields.object("post_processor")
    steps = step.objects("processors") if step.text("type") == "Sequence" else [step]
    found: list[tuple[bool, bool]] = []
    for one in steps:
        kind = one.text("type")
        if kind == "ByteLevel":
            one.only("type", *_BYTE_LEVEL)
        if kind in ("ByteLevel", "RobertaProcessing"):
            prefix = flag(one, "add_prefix_space", default=True)
            found += [(True, prefix)] if flag(one, "trim_offsets", default=True) else []
        elif kind not in _NO_TRIMMING:
            raise CheckpointError(f"{one.where}: type {kind!r:.60} is not supported")
    if len(found) > 1:
        raise CheckpointError(f"{step.where}: more than one step trims offsets: not supported")
    return found[0] if found else (False, False)


def _pair(where: str, merge: object) -> tuple[str, str, str]:
    """Where a merge stands, and its two words: a string with a space between, or a list of two."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if (
        not isinstance(parts, Sequence)
        or len(parts) != 2
        or not all(isinstance(part, str) for part in parts)
    ):
        raise CheckpointError(f"{where} must be two words, found {merge!r:.60}")
    return where, parts[0], parts[1]


def _files(
    settings: ByteBpeSettings,
    words: list[str],
    where: str,
    pairs: Iterable[tuple[str, str, str]],
) -> OwnPart:
    """All that is known, once merges are found in the vocabulary."""
    ids = {word: number for number, word in enumerate(words)}
    for byte, char in enumerate(BYTE_CHARS):
        if char not in ids:
            raise CheckpointError(
                f"{where}: the byte 0x{byte:02x}, {char!r}, is not in the vocabulary; vocabularies "
                f"without all 256 bytes are not supported"
            )
    merges: dict[tuple[int, int], int] = {}
    for place, left, right in pairs:
        unknown = next((word for word in (left, right, left + right) if word not in ids), None)
        if unknown is not None:
            raise CheckpointError(f"{place}: {unknown!r:.80} is not in the vocabulary")
        pair = ids[left], ids[right]
        if pair in merges:
            raise CheckpointError(f"{place}: {left!r:.60} and {right!r:.60} are merged before")
        merges[pair] = ids[left + right]
    rows = [(left, right, result) for (left, right), result in merges.items()]
    return OwnPart(KIND, settings, words, make_tables(rows, len(words)))
