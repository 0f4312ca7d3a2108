"""The prompts of a checkpoint, as sentence-transformers keeps them.

In: ``config_sentence_transformers.json``. Out: the prompts that a pack holds, and what similarity
its embeddings are meant for. Knows nothing of tokens.
"""

from __future__ import annotations

from shard_tools.checkpoint.reader import Checkpoint
from sti.errors import CheckpointError
from sti.json_fields import JsonFields
from sti.model.manifest import Prompts
from sti.pack.manifest_bounds import LONGEST_PROMPT, LONGEST_TEXT, MOST_PROMPTS
from sti.text.control_characters import is_one_line

SENTENCE_FILE = "config_sentence_transformers.json"
_SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")


def read_prompts(checkpoint: Checkpoint) -> Prompts:
    """The prompts by name, and the default one; none without the file.

    Raises:
        CheckpointError: they are malformed, too many or too long, or the default is none of them.
    """
    fields = _fields(checkpoint)
    texts: dict[str, str] = {}
    if fields is not None and fields.has("prompts"):
        table = fields.object("prompts")
        texts = {name: table.text(name) if table.has(name) else "" for name in table.keys()}
    if len(texts) > MOST_PROMPTS or sum(map(len, texts.values())) > LONGEST_PROMPT:
        raise CheckpointError(
            f"{_where(checkpoint)}: more than {MOST_PROMPTS} prompts, or more than "
            f"{LONGEST_PROMPT} characters in them"
        )
    for name in texts:
        if not name or len(name) > LONGEST_TEXT or not is_one_line(name):
            raise CheckpointError(f"{_where(checkpoint)}: {name[:60]!a} is no name of a prompt")
    default = ""
    if fields is not None and fields.has("default_prompt_name"):
        default = fields.text("default_prompt_name")
        if default not in texts:
            raise fields.fail("default_prompt_name", f"one of {', '.join(texts) or 'no prompts'}")
    return Prompts(texts, default)


def read_similarity(checkpoint: Checkpoint) -> str:
    """What embeddings are compared by: ``cosine`` where the checkpoint does not say.

    Raises:
        CheckpointError: by something that is not known; names it.
    """
    fields = _fields(checkpoint)
    if fields is None or not fields.has("similarity_fn_name"):
        return _SIMILARITIES[0]
    name = fields.text("similarity_fn_name")
    if name not in _SIMILARITIES:
        raise fields.fail("similarity_fn_name", f"one of {', '.join(_SIMILARITIES)}")
    return name


def _fields(checkpoint: Checkpoint) -> JsonFields | None:
    found = checkpoint.json(SENTENCE_FILE)
    if found is None:
        return None
    return JsonFields(found, where=_where(checkpoint), error=CheckpointError)


def _where(checkpoint: Checkpoint) -> str:
    return str(checkpoint.directory / SENTENCE_FILE)
