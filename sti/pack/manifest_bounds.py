"""Bounds of what a manifest may state: counts, numbers, names and texts.

In: a parsed ``Manifest`` without groups. Out: nothing, or what is wrong with it. What is bounded
here is what opening, planning and telling people take time and memory for: a stranger's numbers
must not choose how much. Knows nothing of files, or of how members fit one another
(``sti.pack.manifest_check``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sti.model.manifest import Manifest
from sti.model.quality import MOST_LOSS
from sti.text.control_characters import is_one_line

MOST_HIDDEN = 1 << 16
MOST_TOKENS = 1 << 16
MOST_KINDS = 16
MOST_GROUPS = 1 << 14
"""Slice groups of a pack: each takes some 2 KB of memory."""

MOST_PIECES = 1 << 19
"""Outlier lists and shards of planes of a pack: each takes some 60 bytes of memory."""

MOST_SUBMODELS = 256
"""Planning tries all of them."""

MOST_LABELS = 1 << 14

MOST_PROMPTS = 256
LONGEST_PROMPT = 1 << 14
"""Characters of all prompts of a pack."""

LONGEST_NAME = 64
LONGEST_TEXT = 1024
_NAME = re.compile(rf"[A-Za-z0-9_\-]{{1,{LONGEST_NAME}}}")


def odd_words(manifest: Manifest) -> str | None:
    """Which name or text of the manifest cannot be, in words; None where all can be."""
    return next(_odd_names(manifest), None) or next(_odd_texts(manifest), None)


def beyond_bounds(manifest: Manifest) -> str | None:
    """Which count or number is beyond its bounds, in words; None where none is."""
    return next(_beyond(manifest), None)


def _beyond(manifest: Manifest) -> Iterator[str]:
    dims, kinds = manifest.dimensions, manifest.kinds
    blocks = dims.layers * len(kinds)
    counts = (
        ("dimensions.hidden", dims.hidden, MOST_HIDDEN),
        ("dimensions.embedding", dims.embedding, MOST_HIDDEN),
        ("dimensions.max_tokens", dims.max_tokens, MOST_TOKENS),
        ("the number of block kinds", len(kinds), MOST_KINDS),
        ("the number of submodels", len(manifest.submodels), MOST_SUBMODELS),
        ("the number of labels", len(manifest.labels), MOST_LABELS),
        ("the number of prompts", len(manifest.prompts.texts), MOST_PROMPTS),
        (
            "the number of characters in prompts",
            sum(map(len, manifest.prompts.texts.values())),
            LONGEST_PROMPT,
        ),
        (
            "the number of slice groups",
            dims.layers * sum(len(kind.groups) for kind in kinds),
            MOST_GROUPS,
        ),
        (
            "the number of shards in planes",
            blocks * dims.slices * (len(manifest.ladder) + 1),
            MOST_PIECES,
        ),
    )
    for what, found, most in counts:
        if found > most:
            yield f"{what} is {_short(found)}, more than {most}"
    yield from _absurd_losses(manifest)


def _odd_names(manifest: Manifest) -> Iterator[str]:
    """Names that are parts of the names of tensors and graphs, or twice among a graph's inputs."""
    for kind in manifest.kinds:
        inputs = [operand.name for operand in kind.operands]
        inputs += [*kind.sliced, *kind.shared]
        inputs += [f"{side.name}_{part}" for side in kind.side for part in ("idx", "w")]
        for name in (kind.name, *inputs):
            if not _NAME.fullmatch(name):
                yield f"{name!r:.80} is no name of a block kind or of an input"
        if len(set(inputs)) != len(inputs):
            yield f"{kind.name}: an input is listed twice"


def _odd_texts(manifest: Manifest) -> Iterator[str]:
    """Texts that are shown to people."""
    told = {
        "name": (manifest.name,),
        "architecture": (manifest.architecture,),
        "licence": (manifest.licence,),
        "source": (manifest.source,),
        "generator": (manifest.generator,),
        "kinds.slice_unit": tuple(kind.slice_unit for kind in manifest.kinds),
        "labels": manifest.labels,
        "prompts": tuple(manifest.prompts.texts),
        "rejection.label": (manifest.rejection.label,) if manifest.rejection else (),
    }
    for member, texts in told.items():
        if max(map(len, texts), default=0) <= LONGEST_TEXT and is_one_line("".join(texts)):
            continue
        for text in texts:
            if len(text) > LONGEST_TEXT:
                yield f"{member}: a text of {len(text)} characters, more than {LONGEST_TEXT}"
            if not is_one_line(text):
                yield f"{member}: control characters in {text[:80]!a}"


def _absurd_losses(manifest: Manifest) -> Iterator[str]:
    """Losses that sums and products of would overflow."""
    curves = [
        (f"submodel {one.depth}x{one.width}", (one.loss, *one.missing, *one.losses))
        for one in manifest.submodels
    ]
    curves += [
        (name, part.losses)
        for name, part in (("quality", manifest.quality), ("rejection", manifest.rejection))
        if part is not None
    ]
    for name, losses in curves:
        if max(losses, default=0.0) > MOST_LOSS:
            yield f"{name}: a loss of more than {MOST_LOSS:g}"


def _short(number: int) -> str:
    return str(number) if number < 10**18 else "absurd"
