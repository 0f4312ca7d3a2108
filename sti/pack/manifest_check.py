"""Checking a manifest: refuses one whose members contradict one another.

In: a parsed ``Manifest``. Out: nothing, or an error that names the member. Knows nothing of files
or JSON; the slice groups are checked by ``sti.pack.index``.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from operator import le, lt

from sti.codec.codebook import WEIGHTS_MULTIPLE, Codebook
from sti.codec.word_rows import row_bytes
from sti.errors import PackFormatError
from sti.graphs.interfaces import SEQUENCE
from sti.model.manifest import SIGMOID, Manifest, Submodel
from sti.model.quality import METRICS, Quality, Rejection, least_of
from sti.pack.index import MOST_SLICES
from sti.pack.manifest_bounds import beyond_bounds, odd_words
from sti.pack.safetensors_table import MOST_AXES

TASKS = ("embedding", "classification", "multi_label", "regression", "tagging")

INPUT_KINDS = (SEQUENCE, "tokens")
"""What the blocks of a kind read: all tokens of a sentence, or each token alone."""

MOST_EXTENT = 1 << 31
"""Of an operand in one direction."""

_DIGITS, _ID_DIGITS = 64, 16


def check_manifest(manifest: Manifest, where: str) -> None:
    """Check every member but the slice groups.

    Raises:
        PackFormatError: two members contradict each other; names ``where`` and what it is about.
    """
    _Check(manifest, where).all()


def check_words(manifest: Manifest, where: str) -> None:
    """Check the names and the texts for people of a manifest, which may be a draft.

    Raises:
        PackFormatError: one is too long, or of other characters than it may be.
    """
    odd = odd_words(manifest)
    if odd is not None:
        raise PackFormatError(f"{where}: manifest: {odd}; rebuild or fetch the pack again")


class _Check:
    """Refuses members of a manifest that contradict one another, part by part."""

    def __init__(self, manifest: Manifest, where: str) -> None:
        self._manifest, self._where = manifest, where

    def all(self) -> None:
        """Check every part.

        Raises:
            PackFormatError: a part is contradictory; names it.
        """
        check_words(self._manifest, self._where)  # first, as messages name them
        self._model()
        self._words()
        self._kinds()
        self._hashes()
        self._part()
        for submodel in self._manifest.submodels:
            self._submodel(submodel)
        self._submodels()
        if self._manifest.quality is not None:
            self._quality(self._manifest.quality)
        if self._manifest.rejection is not None:
            self._rejection(self._manifest.rejection)
        self._labels()
        self._prompts()
        beyond = beyond_bounds(self._manifest)
        self._require(beyond is None, beyond or "")

    def _require(self, condition: bool, message: str) -> None:
        if not condition:
            raise PackFormatError(
                f"{self._where}: manifest: {message}; rebuild or fetch the pack again"
            )

    def _model(self) -> None:
        task, ladder = self._manifest.task, self._manifest.ladder
        self._require(task in TASKS, f"task {task!r:.40} is not one of {', '.join(TASKS)}")
        good = bool(ladder) and _rises(ladder) and ladder[0] >= 2 and ladder[-1] <= 8
        self._require(good, "the ladder must increase within 2..8 bits")
        try:
            book = Codebook.from_json(self._manifest.codebook)
        except PackFormatError as error:
            raise PackFormatError(
                f"{self._where}: manifest: book: {error}; rebuild or fetch the pack again"
            ) from error
        self._require(book.ladder == ladder, "the codebook is for another ladder than the pack's")
        there = bool(self._manifest.kinds) and bool(self._manifest.submodels)
        self._require(there, "block kinds or submodels are missing")

    def _kinds(self) -> None:
        kinds, slices = self._manifest.kinds, self._manifest.dimensions.slices
        fits = slices <= MOST_SLICES
        self._require(fits, f"blocks have {slices} slices, more than {MOST_SLICES}")
        names = [kind.name for kind in kinds]
        self._require(len(set(names)) == len(names), "a block kind is listed twice")
        for kind in kinds:
            known = kind.input_kind in INPUT_KINDS
            listed = ", ".join(INPUT_KINDS)
            self._require(known, f"{kind.name}: input_kind must be one of {listed}")
            self._require(bool(kind.operands), f"block kind {kind.name!r} has no operands")
            for operand in kind.operands:
                fits = 2 <= len(operand.shape) <= MOST_AXES
                fits = fits and max(operand.shape) <= MOST_EXTENT
                self._require(fits, f"{kind.name} operand {operand.name!r} has an odd shape")
                whole = prod(operand.shape) % WEIGHTS_MULTIPLE == 0
                wanted = f"must have a multiple of {WEIGHTS_MULTIPLE} weights per slice"
                self._require(whole, f"{kind.name} operand {operand.name!r} {wanted}")
            fits = sum(kind.groups) == slices
            self._require(fits, f"{kind.name}: its groups do not add up to {slices} slices")

    def _hashes(self) -> None:
        hashes = self._manifest.sha256
        self._hexadecimal("sha256.content", hashes.content, _DIGITS)
        self._hexadecimal("sha256.index", hashes.of_index, _DIGITS)

    def _hexadecimal(self, name: str, digits: str, count: int) -> None:
        good = len(digits) == count and not set(digits) - set("0123456789abcdef")
        self._require(good, f"{name} must be {count} lower-case hexadecimal digits")

    def _part(self) -> None:
        part, layers = self._manifest.part, self._manifest.dimensions.layers
        if part is not None:
            self._hexadecimal("part.parent", part.parent, _DIGITS)
            self._hexadecimal("part.pack_id", part.pack_id, _ID_DIGITS)
            fits = part.first <= part.last < layers
            self._require(fits, f"part: its layers are none of the {layers} that the model has")

    def _labels(self) -> None:
        labels, task = self._manifest.labels, self._manifest.task
        fits = (task == "embedding") == (not labels)
        self._require(fits, f"{len(labels)} labels do not fit the task {task!r:.40}")
        distinct = len(set(labels)) == len(labels) and "" not in labels
        self._require(distinct, "a label is empty, or listed twice")
        fits = task == "embedding" or not self._manifest.dimensions.embedding
        self._require(fits, "dimensions.embedding is only for the task embedding")
        activation = self._manifest.activation
        fits = not activation or (task == "regression" and activation == SIGMOID)
        self._require(fits, f"activation {activation!r:.40} does not fit the task {task!r:.40}")

    def _prompts(self) -> None:
        prompts, task = self._manifest.prompts, self._manifest.task
        fits = not prompts.default or prompts.default in prompts.texts
        self._require(fits, "prompts.default is none of prompts.texts")
        fits = task != "tagging" or not prompts.texts
        self._require(fits, "prompts do not fit the task 'tagging'")

    def _words(self) -> None:
        words = self._manifest.embeddings
        fits = words.hidden == self._manifest.dimensions.hidden
        self._require(fits, "token embeddings do not have the hidden size")
        grouped = words.hidden % 2 == 0 and words.hidden % words.group == 0
        self._require(
            grouped, "token embeddings cannot be divided into halves, and groups that share a scale"
        )
        size = row_bytes(words.hidden, words.group)
        self._require(words.row_bytes == size, f"a token embedding takes {size} bytes")

    def _submodel(self, submodel: Submodel) -> None:
        dims = self._manifest.dimensions
        tag = f"submodel {submodel.depth}x{submodel.width}"
        layers = submodel.layers
        fits = submodel.depth <= dims.layers and submodel.width <= dims.slices
        fits = fits and len(layers) == submodel.depth and _rises(layers)
        self._require(fits and layers[-1] < dims.layers, f"{tag} does not fit")
        missing, losses = submodel.missing, submodel.losses
        self._require(len(missing) == len(losses), f"{tag}: missing and losses differ in length")
        if missing:
            starts = (missing[0], losses[0]) == (0.0, submodel.loss)
            curved = starts and _rises(missing) and _never_falls(losses)
            self._require(curved, f"{tag}: missing and losses do not rise from 0 and its loss")

    def _submodels(self) -> None:
        dims, submodels = self._manifest.dimensions, self._manifest.submodels
        sizes = [(submodel.depth, submodel.width) for submodel in submodels]
        self._require(len(set(sizes)) == len(sizes), "a submodel is listed twice")
        full = sizes[0] == (dims.layers, dims.slices)
        self._require(full, "the first submodel must be the full model")

    def _quality(self, quality: Quality) -> None:
        metric = quality.metric
        known = metric in METRICS
        self._require(known, f"quality.metric {metric!r:.40} is not one of {', '.join(METRICS)}")
        self._require(quality.examples < 2**53, "quality.examples must be below 2**53")
        spread = quality.residual <= 2.0
        self._require(spread, "quality.residual must be at most 2")
        self._along("quality", quality.losses, "values", quality.values)
        values = quality.values
        self._require(_never_falls(values[::-1]), "quality.values must not rise")
        least = least_of(metric)
        inside = least <= values[-1] and values[0] <= 1.0
        self._require(inside, f"quality.values must lie between {least:g} and 1")

    def _rejection(self, rejection: Rejection) -> None:
        fits = self._manifest.task == "classification"
        self._require(fits, "rejection is only for classification")
        another = bool(rejection.label) and rejection.label not in self._manifest.labels
        self._require(another, "rejection.label is empty, or one of the labels")
        self._require(rejection.accepted <= 1.0, "rejection.accepted must be a share, at most 1")
        self._along("rejection", rejection.losses, "thresholds", rejection.thresholds)
        inside = min(rejection.thresholds) >= 0.0 and max(rejection.thresholds) <= 1.0
        self._require(inside, "rejection.thresholds must lie between 0 and 1")

    def _along(
        self, name: str, losses: Sequence[float], member: str, values: Sequence[float]
    ) -> None:
        """A curve over losses: at least one point, the losses rising from 0 or above."""
        paired = 0 < len(losses) == len(values)
        self._require(paired, f"{name}.losses and {name}.{member} must pair up")
        self._require(losses[0] >= 0.0 and _rises(losses), f"{name}.losses must rise")


def _rises(values: Sequence[float]) -> bool:
    return all(map(lt, values, values[1:]))


def _never_falls(values: Sequence[float]) -> bool:
    return all(map(le, values, values[1:]))
