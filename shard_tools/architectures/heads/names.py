"""What a family of checkpoints calls its heads, as data.

Out: ``HeadNames``, from which ``shard_tools.architectures.heads.task`` finds the task of a
checkpoint, and ``head`` beside it the tensors. Knows no checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from shard_tools.graphs.embed_head import HeadActivation

Named = Literal["encoder", "classification", "tagging"]
"""What a name in ``architectures`` is for; an encoder has no head that is used."""

_ENDINGS: Mapping[str, Named] = {
    "Model": "encoder",
    "ForMaskedLM": "encoder",
    "ForPreTraining": "encoder",
    "ForSequenceClassification": "classification",
    "ForTokenClassification": "tagging",
}
_TOLD = ("Model", "ForSequenceClassification", "ForTokenClassification", "ForMaskedLM")


@dataclass(frozen=True, slots=True)
class HeadNames:
    """The heads of one family.

    Attributes:
        stem: how the names in ``architectures`` begin, such as ``Bert``.
        dense: the linear module that the first token goes through before the classifier of texts.
        inside: whether that module's name stands behind the encoder's prefix.
        activation: what follows ``dense``.
        texts: the linear module that classifies texts.
        tokens: the linear module that classifies tokens.
    """

    stem: str
    dense: str = "pooler.dense"
    inside: bool = True
    activation: HeadActivation = "tanh"
    texts: str = "classifier"
    tokens: str = "classifier"

    def named(self, architecture: str) -> Named | None:
        """What a name in ``architectures`` is for; None for one that is not supported."""
        if not architecture.startswith(self.stem):
            return None
        return _ENDINGS.get(architecture.removeprefix(self.stem))

    def supported(self) -> str:
        """The names that are supported, in words."""
        return ", ".join(f"{self.stem}{ending}" for ending in _TOLD)


def with_classification_head(stem: str, activation: HeadActivation = "tanh") -> HeadNames:
    """The names of families that classify texts with ``classifier.dense`` and ``out_proj``."""
    return HeadNames(
        stem,
        dense="classifier.dense",
        inside=False,
        activation=activation,
        texts="classifier.out_proj",
    )


BERT = HeadNames("Bert")
DISTILBERT = HeadNames("DistilBert", dense="pre_classifier", inside=False, activation="relu")
ROBERTA = with_classification_head("Roberta")
XLM_ROBERTA = with_classification_head("XLMRoberta")
CAMEMBERT = with_classification_head("Camembert")
MPNET = with_classification_head("MPNet")
ELECTRA = with_classification_head("Electra", "gelu")
