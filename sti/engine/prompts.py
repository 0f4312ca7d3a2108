"""Which prompt is put in front of texts.

In: the prompts of a pack, and what a caller chose. Out: a prompt, or ``InputError``; and texts
behind it, as tokens. As sentence-transformers has it: a prompt stands in front of a text, or of the
first of a pair, with nothing between.
"""

from __future__ import annotations

from collections.abc import Sequence

from sti.errors import InputError
from sti.model.manifest import Manifest
from sti.text.encoding import Encoding, Text
from sti.text.tokenizer import Tokenizer


def chosen_prompt(manifest: Manifest, *, prompt: str | None, name: str | None) -> str:
    """The prompt to use: the one given, the one named, or the pack's default.

    Raises:
        InputError: both are given, there is none of this name, it is no text, or answers of the
            pack's task are places in texts, which a prompt would move.
    """
    prompts = manifest.prompts
    if prompt is not None and name is not None:
        raise InputError("give a prompt or the name of one, not both")
    if name is not None and not (isinstance(name, str) and name in prompts.texts):
        names = ", ".join(prompts.texts) or "none"
        raise InputError(
            f"the pack {manifest.name!r:.80} has no prompt {name!r:.60}; it has: {names:.400}"
        )
    if prompt is None:
        prompt = prompts.texts.get(prompts.default if name is None else name, "")
    if not isinstance(prompt, str):
        raise InputError(f"a prompt must be a text, found {prompt!r:.60}")
    if prompt and manifest.task == "tagging":
        raise InputError("this pack labels places in texts, which take no prompt; leave it out")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise InputError("the prompt is not valid Unicode: it has a lone surrogate") from error
    return prompt


class PromptingTokenizer:
    """Encodes texts behind a prompt. Not thread-safe.

    Args:
        tokenizer: the pack's.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._fitting = ""
        """The last prompt that was found to leave room."""

    def encode(self, texts: Sequence[Text], prompt: str) -> list[Encoding]:
        """The tokens of each text behind a prompt.

        Raises:
            InputError: the prompt leaves no room for a text, or nothing of a text is a token.
        """
        if prompt and prompt != self._fitting:
            self._check(prompt)
        found = [self._tokenizer.encode_text(prompted(text, prompt)) for text in texts]
        for text, encoding in zip(texts, found, strict=True):
            if not len(encoding.ids):  # where nothing is put around texts
                raise InputError(f"nothing of the text {str(text)[:40]!r} is a token; leave it out")
        return found

    def _check(self, prompt: str) -> None:
        if not leaves_room(self._tokenizer, prompt):
            raise InputError(
                f"the prompt {prompt[:40]!r} fills all of the {self._tokenizer.spec.max_tokens} "
                "tokens that the model takes; choose a shorter one"
            )
        self._fitting = prompt


def leaves_room(tokenizer: Tokenizer, prompt: str) -> bool:
    """Whether anything of a text behind a prompt is read."""
    found = tokenizer.encode(prompt)
    return not found.truncated and len(found.ids) < tokenizer.spec.max_tokens


def prompted(text: Text, prompt: str) -> Text:
    """A text or pair behind a prompt."""
    return prompt + text if isinstance(text, str) else (prompt + text[0], text[1])
