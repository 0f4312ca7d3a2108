"""What transformers, or sentence-transformers, answers with a checkpoint.

In: a directory, a ``Case``, texts. Out: ``Answers``: ids and types of tokens, what the model says
of each text before any activation, and scores by label. A checkpoint with modules is asked through
sentence-transformers. Texts are answered one by one, so that nothing is padded. Needs torch and
transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks.checkpoint_config_cases import TEXTS, TOKENS, Case
from sti.arrays import Float32Array
from sti.text.encoding import Text


@dataclass(frozen=True, slots=True)
class Answers:
    """One entry a text."""

    ids: tuple[list[int], ...]
    types: tuple[list[int], ...] | None
    """None where the reference leaves them out: they are all 0."""
    raw: tuple[Float32Array, ...]
    """Vectors, logits, or logits of each token."""
    scores: tuple[Mapping[str, float], ...]
    """Of a classifier of texts: each label's."""


def answered(case: Case, folder: Path, texts: Sequence[Text]) -> Answers:
    """Ask the reference."""
    if "modules.json" in case.files:
        return _embedded(folder, texts)
    kind = "AutoTokenizer"
    if case.keeps and "model_type" not in case.keeps:  # which it asks for
        kind = f"{case.family}Tokenizer"
    tokenizer = getattr(transformers, kind).from_pretrained(folder)
    model = _class(case).from_pretrained(folder, attn_implementation="eager").eval()
    ids, types, raw = [], [], []
    longest = min(tokenizer.model_max_length, _positions(case, model.config))
    for text in texts:
        first, second = (text, None) if isinstance(text, str) else text
        found = tokenizer(first, second, truncation=True, max_length=longest, return_tensors="pt")
        ids.append(found["input_ids"][0].tolist())
        types.append(found["token_type_ids"][0].tolist() if "token_type_ids" in found else [])
        raw.append(_raw(case, model, found))
    scores: list[Mapping[str, float]] = []
    if case.head == TEXTS:
        scores = [_scores(case, model, folder, row) for row in raw]
    return Answers(tuple(ids), tuple(types) if any(types) else None, tuple(raw), tuple(scores))


def _class(case: Case) -> Any:
    """The class of the model: a pretrained one is taken as its encoder."""
    ending = case.head if case.head in (TEXTS, TOKENS) else "Model"
    return getattr(transformers, f"{case.family}{ending}")


def _positions(case: Case, config: Any) -> int:
    """Tokens that a text may have: some rows of the table are before the first one."""
    before = {"Roberta": 1, "XLMRoberta": 1, "Camembert": 1, "MPNet": 1}.get(case.family)
    rows = int(config.max_position_embeddings)
    if before is None:
        return rows
    return rows - 1 - (1 if case.family == "MPNet" else int(config.pad_token_id))


def _raw(case: Case, model: Any, found: Any) -> Float32Array:
    with torch.no_grad():
        out = model(**found)
    if case.head in (TEXTS, TOKENS):
        return np.asarray(out.logits[0].numpy(), dtype=np.float32)
    return np.asarray(out.last_hidden_state[0].mean(dim=0).numpy(), dtype=np.float32)


def _scores(case: Case, model: Any, folder: Path, logits: Float32Array) -> Mapping[str, float]:
    """Each label's score: as a cross-encoder has it for pairs, else as pipelines have it."""
    names = [str(model.config.id2label[number]) for number in range(len(logits))]
    if case.pairs and len(names) == 1:
        from sentence_transformers import CrossEncoder

        activation = CrossEncoder(str(folder), device="cpu").activation_fn
        found = activation(torch.from_numpy(logits)).numpy()
    else:
        function = _pipeline_function(model.config)
        found = {"sigmoid": _sigmoid, "softmax": _softmax, "none": np.asarray}[function](logits)
    return dict(zip(names, map(float, found), strict=True))


def _pipeline_function(config: Any) -> str:
    """Which activation the pipeline ``text-classification`` takes."""
    if config.problem_type == "regression":
        return "none"
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return "sigmoid"
    return "softmax"


def _sigmoid(logits: Float32Array) -> Float32Array:
    return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float32)


def _softmax(logits: Float32Array) -> Float32Array:
    shares = np.exp(logits - logits.max())
    return np.asarray(shares / shares.sum(), dtype=np.float32)


def _embedded(folder: Path, texts: Sequence[Text]) -> Answers:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    prompt = model.prompts.get(model.default_prompt_name or "", "")
    ids = [model.preprocess([prompt + str(text)])["input_ids"][0].tolist() for text in texts]
    vectors = model.encode(list(texts), batch_size=1, convert_to_numpy=True)
    return Answers(tuple(ids), None, tuple(np.asarray(row, np.float32) for row in vectors), ())
