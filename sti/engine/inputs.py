"""What callers give an engine, checked before anything runs: texts, task, batch size.

In: texts as given, and their tokens. Out: a ``Batch``, or ``InputError``. Knows nothing of plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sti.device.memory_limit import check_memory
from sti.errors import InputError
from sti.model.manifest import MULTI_LABEL
from sti.text.encoding import Encoding, Text

METHODS = {
    "embedding": "embed",
    "classification": "classify",
    "multi_label": "classify",
    "regression": "regress",
    "tagging": "tag",
}
"""The method of ``Engine`` that answers each task; ``run`` answers all."""

SMALL_BATCH_BYTES = 1 << 26
"""What a batch may take without a look at the memory that is free."""
_STATE_BYTES = 8
"""A token's hidden state and token embedding, for each of its numbers."""


class Batch(NamedTuple):
    """Texts that are run together, in the caller's order, and the tokens of each."""

    texts: Sequence[Text]
    encodings: Sequence[Encoding]
    prompt: str = ""
    """What was put in front of each text."""

    @property
    def tokens(self) -> int:
        """Tokens of all texts, without padding."""
        return sum(len(item.ids) for item in self.encodings)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(item.ids) for item in self.encodings]

    @property
    def mean_tokens(self) -> int:
        """Tokens of a text on average, rounded up."""
        return -(-self.tokens // len(self.encodings))

    @property
    def truncated(self) -> int:
        """How many texts were cut to the model's token limit."""
        return sum(item.truncated for item in self.encodings)


def check_texts(texts: Sequence[Text], *, pairs: bool) -> None:
    """Refuse what is not a batch of texts.

    Args:
        pairs: whether a text may be a pair.

    Raises:
        InputError: no texts, an empty text, one that is not valid Unicode, or not a sequence.
    """
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise InputError("texts must be a list of texts (or of pairs); wrap a single text in [...]")
    if not texts:
        raise InputError("no texts were given")
    for index, text in enumerate(texts):
        check_text(index, text, pairs=pairs)


def check_text(index: int, text: Text, *, pairs: bool) -> None:
    """Refuse what is no text, or cannot be used as one; names it by its ``index``.

    Raises:
        InputError: as ``check_texts``.
    """
    parts = text if isinstance(text, tuple) else (text, text)
    if len(parts) != 2 or not all(isinstance(part, str) for part in parts):
        raise InputError(f"text {index} must be a text or a pair of texts, found {text!r:.60}")
    if isinstance(text, tuple) and not pairs:
        raise InputError(
            f"text {index} is a pair; this pack takes single texts: it labels places in them, or "
            "has but one type of tokens, by which texts of a pair would be told apart"
        )
    if not all(part.strip() for part in parts):
        raise InputError(f"text {index} is empty; leave it out")
    try:
        "".join(parts).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"text {index} is not valid Unicode: it contains a lone surrogate"
        ) from error


def check_task(path: Path, task: str, method: str) -> None:
    """Refuse a method of ``Engine`` that answers another task than the pack's.

    Raises:
        InputError: it does; names the method to use instead.
    """
    if METHODS[task] != method:
        raise InputError(
            f"{path}: this pack is for {task}, and `{method}` is not; use `{METHODS[task]}`"
        )


def check_threshold(task: str, threshold: float | None) -> None:
    """Refuse a threshold that is beyond 0 and 1, or of a task whose labels have none.

    Raises:
        InputError: it is.
    """
    if threshold is None:
        return
    if task != MULTI_LABEL:
        raise InputError(f"a threshold is for packs of the task {MULTI_LABEL}; this one is {task}")
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not number or not 0.0 <= threshold <= 1.0:
        raise InputError(f"a threshold must be a number from 0 to 1, found {threshold!r:.40}")


def check_room(batch: Batch, hidden: int, *, unchecked_bytes: int = SMALL_BATCH_BYTES) -> None:
    """Refuse a batch whose hidden states would not fit into memory.

    Args:
        hidden: numbers in the hidden state of one token.
        unchecked_bytes: a batch that takes no more than this is never refused.

    Raises:
        InfeasibleError: it would not; says how much memory would have to be free.
    """
    needed = batch.tokens * hidden * _STATE_BYTES
    if needed > unchecked_bytes:
        what = f"{len(batch.texts)} texts of {batch.tokens} tokens take at once"
        check_memory(needed, what=what, remedy="give fewer at a time", limit="memory")
