"""RoBERTa, XLM-RoBERTa and CamemBERT: BERT's blocks, positions behind the padding token's."""

from __future__ import annotations

from shard_tools.architectures.encoder.family import Family, TensorNames
from shard_tools.architectures.heads import names


def _family(name: str, heads: names.HeadNames) -> Family:
    return Family(
        name,
        heads,
        TensorNames("roberta."),
        padding=1,
        padding_key="pad_token_id",
        typed_pairs=False,
    )


ROBERTA = _family("roberta", names.ROBERTA)
XLM_ROBERTA = _family("xlm-roberta", names.XLM_ROBERTA)
CAMEMBERT = _family("camembert", names.CAMEMBERT)
