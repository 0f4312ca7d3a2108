"""What a tokenizer class of transformers makes of a ``tokenizer.json``.

In: what the file says, ``tokenizer_config.json``, and the class. Out: the pipeline as transformers
has it: classes with a tokenizer of their own take vocabulary, merges and map of characters from the
file, and the rest from ``tokenizer_config.json`` or their defaults. Reads no file.
"""

from __future__ import annotations

from dataclasses import replace

from shard_tools.checkpoint.tokenizer_classes import TokenizerClass
from shard_tools.checkpoint.tokenizer_pipeline import Pipeline, flag
from sti.json_fields import JsonFields
from sti.text.byte_bpe import ByteBpeSettings
from sti.text.kinds import Settings
from sti.text.template import Template
from sti.text.unigram_settings import UnigramSettings
from sti.text.wordpiece import WordPieceSettings

_UNIGRAM_MARK = "\u2581"


def of_class(
    pipeline: Pipeline, settings: JsonFields, known: TokenizerClass, around: Template, unk: str
) -> Pipeline:
    """The pipeline that a class makes of a file's.

    Args:
        pipeline: what the file says.
        settings: ``tokenizer_config.json``.
        known: the class.
        around: the template that it makes of its special tokens.
        unk: the unknown token, which some classes look for in the vocabulary.
    """
    if not known.from_settings:
        return pipeline
    own = pipeline.own
    unknown = known.unknown
    if unknown is None:
        unknown = own.words.index(unk) if unk in own.words else 0
    made = _changed(own.settings, settings, unknown)
    changed = replace(pipeline, own=replace(own, settings=made))
    if isinstance(own.settings, WordPieceSettings):
        return changed
    return replace(changed, template=around, template_ids={})


def _changed(own: Settings, settings: JsonFields, unknown: int) -> Settings:
    if isinstance(own, WordPieceSettings):
        lowercase = flag(settings, "do_lower_case", default=True)
        return own._replace(
            lowercase=lowercase,
            strip_accents=flag(settings, "strip_accents", default=lowercase),
            handle_chinese_chars=flag(settings, "tokenize_chinese_chars", default=True),
        )
    if isinstance(own, ByteBpeSettings):
        return roberta_settings(settings)
    if isinstance(own, UnigramSettings):
        prefix = flag(settings, "add_prefix_space", default=True)
        return UnigramSettings(
            unknown=unknown,
            byte_fallback=False,
            steps=tuple(step for step in own.steps if step.kind == "charsmap"),
            split_spaces=True,
            mark=_UNIGRAM_MARK,
            prepend="always" if prefix else "never",
            split_marks=True,
        )
    return own


def roberta_settings(settings: JsonFields) -> ByteBpeSettings:
    """What RobertaTokenizer does, by ``tokenizer_config.json`` or its defaults."""
    prefix = flag(settings, "add_prefix_space", default=False)
    return ByteBpeSettings(
        add_prefix_space=prefix,
        part_words=True,
        whole_words=False,
        trim_offsets=flag(settings, "trim_offsets", default=True),
        trim_prefix_space=prefix,
    )
