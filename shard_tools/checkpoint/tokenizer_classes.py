"""Which tokenizer classes of transformers are understood, and what each of them adds to its files.

In: metadata files of a checkpoint. Out: the ``TokenizerClass`` that transformers would make of
them, or an error that names one which is another algorithm. The list is data: a class that is not
on it is refused, as only its code could say what it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sti.errors import CheckpointError
from sti.json_fields import JsonFields


class TokenizerClass(NamedTuple):
    """What a class does beside what the files say.

    Attributes:
        kinds: types of models, as in ``tokenizer.json``, that it is of; empty for any.
        tokens: its special tokens where no file names them, by ``cls_token`` and so on.
        from_settings: whether options are those of ``tokenizer_config.json``, its defaults
            included, whatever ``tokenizer.json`` says (``class_settings``).
        two_separators: whether a pair is put together as RoBERTa does it.
        spaced_mask: whether the mask token takes the white space before it.
        more: special tokens without a name where no file lists any, as far as they are words.
        unknown: the number of a Unigram's unknown piece; None: that of its unknown token.
    """

    kinds: frozenset[str] = frozenset()
    tokens: Mapping[str, str] = {}
    from_settings: bool = False
    two_separators: bool = False
    spaced_mask: bool = False
    more: tuple[str, ...] = ()
    unknown: int | None = 3


_BERT_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_ROBERTA_TOKENS = {
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
    "bos_token": "<s>",
    "eos_token": "</s>",
}
GENERIC = TokenizerClass()
_BERT = TokenizerClass(frozenset({"WordPiece"}), _BERT_TOKENS, from_settings=True)
_MPNET = TokenizerClass(
    frozenset({"WordPiece"}),
    {**_ROBERTA_TOKENS, "unk_token": "[UNK]"},
    from_settings=True,
    two_separators=True,
    spaced_mask=True,
)
_ROBERTA = TokenizerClass(
    frozenset({"BPE"}),
    _ROBERTA_TOKENS,
    from_settings=True,
    two_separators=True,
    spaced_mask=True,
)
_XLM_ROBERTA = _ROBERTA._replace(kinds=frozenset({"Unigram"}))
_CAMEMBERT = _XLM_ROBERTA._replace(more=("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"), unknown=None)

CLASSES: Mapping[str, TokenizerClass] = {
    "BertTokenizer": _BERT,
    "CamembertTokenizer": _CAMEMBERT,
    "ConvBertTokenizer": _BERT,
    "DistilBertTokenizer": _BERT,
    "ElectraTokenizer": _BERT,
    "LayoutLMTokenizer": _BERT,
    "MobileBertTokenizer": _BERT,
    "SqueezeBertTokenizer": _BERT,
    "MPNetTokenizer": _MPNET,
    "RobertaTokenizer": _ROBERTA,
    "XLMRobertaTokenizer": _XLM_ROBERTA,
    "PreTrainedTokenizer": GENERIC,
    "TokenizersBackend": GENERIC,
}
"""By name, without ``Fast`` at its end."""

BY_MODEL_TYPE: Mapping[str, str] = {
    "bert": "BertTokenizer",
    "camembert": "CamembertTokenizer",
    "distilbert": "BertTokenizer",
    "electra": "BertTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
"""Which class a checkpoint has that names none."""


def tokenizer_class(config: JsonFields, settings: JsonFields, kind: str) -> TokenizerClass:
    """The class of a checkpoint's tokenizer.

    Args:
        config: ``config.json``.
        settings: ``tokenizer_config.json``.
        kind: the type of its model.

    Raises:
        CheckpointError: it is another algorithm, not known, or code of the checkpoint's own.
    """
    if settings.has("auto_map"):
        raise CheckpointError(
            f"{settings.where}: auto_map: the tokenizer is code of the checkpoint's own, which is "
            "not run"
        )
    for source in (settings, config):
        if source.has("tokenizer_class"):
            name = source.text("tokenizer_class")
            found = CLASSES.get(name.removesuffix("Fast"))
            if found is None:
                raise CheckpointError(
                    f"{source.where}: tokenizer_class {name!r:.80} is not supported; supported: "
                    f"{', '.join(CLASSES)}"
                )
            if found.kinds and kind not in found.kinds:
                raise CheckpointError(
                    f"{source.where}: tokenizer_class {name!r:.80} is of the kind "
                    f"{', '.join(found.kinds)}, the tokenizer's files of the kind {kind}"
                )
            return found
    model_type = config.raw("model_type")
    name = BY_MODEL_TYPE.get(model_type, "") if isinstance(model_type, str) else ""
    found = CLASSES.get(name, GENERIC)
    return GENERIC if found.kinds and kind not in found.kinds else found
