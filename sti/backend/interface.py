"""What a back end must provide, and what it gets from a pack: protocols and their values.

A back end computes what the blocks of a model compute, wherever it keeps its weights and hidden
states. To add one, implement ``Backend`` and ``SentenceState``, and construct it
where ``OrtBackend`` is constructed: ``sti.engine.core``, ``sti.cli.calibrate``, ``sti.cli.doctor``
and ``shard_tools.measuring.forward``; ``sti.pipeline`` sees the protocols alone.
``sti.backend.onnxruntime`` is the only one so far, ``tests/support/numpy_backend.py`` a minimal one
in plain NumPy for tests, and ``tests/support/graph_spec.py`` specifies what a block computes.
During a run:

    compute thread    embedding_buffer -> start       for each group of sentences
                      state.step                      for each slice group, each group of sentences
                      state.finish                    for each group of sentences
    decode threads    decoder.decode                  for each slice group, each its share

The pipeline ensures that a working buffer is not decoded into while a step computes on it.
Failures are raised as ``BackendError``; after one, the next ``start`` must work again. Imports no
compute library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from sti.arrays import Float32Array, Int64Array
from sti.backend.working_buffer import WorkingBuffer
from sti.codec.pieces import GroupDecoder
from sti.model.manifest import Manifest, SliceGroup


class ResidentTensors(Protocol):
    """What graphs are made from: a pack, or copies of its resident tensors."""

    @property
    def manifest(self) -> Manifest:
        """What the pack says about itself."""

    def resident(self, name: str) -> NDArray[Any]:
        """A resident tensor; always the same memory for a name."""

    def has_resident(self, name: str) -> bool:
        """Whether there is one of this name."""


class SentenceState(Protocol):
    """A group of B sentences of S tokens on its way through the blocks: hidden states and masks.

    ``Backend.start`` makes it. Used by the thread that computes, one call at a time, and only until
    the back end is closed.
    """

    def step(self, group: SliceGroup, width: int, *, connects: bool, buffer: int = 0) -> None:
        """Compute a slice group on the hidden states, and add it to the groups of its block so far.

        The groups of a block come in their order; the first one begins a new sum, whatever became
        of an earlier one. Their partial sums are added in the tree that
        ``sti.backend.partial_sums`` specifies.

        Args:
            group: whose scales, biases and other resident tensors are used.
            width: slices of the group in use: 0 to ``width - 1``.
            connects: whether it is the last of its block: ``connect`` is computed too.
            buffer: number of the working buffer of that kind that holds the weights; not written
                to by anybody meanwhile.

        Raises:
            BackendError: computing failed; the hidden states are lost.
        """

    def connect(self, layer: int, kind: str) -> None:
        """Compute a block's ``connect`` again: the sum that its steps left, bias, residual, norm.

        A block's last ``step`` does this itself; alone, it serves to measure how long it takes.

        Raises:
            BackendError: computing failed; the hidden states are lost.
        """

    def finish(self) -> Float32Array:
        """The head's answer, float32 ``[B, ...]``, in a new array; hidden states stay as they are.

        Raises:
            BackendError: computing failed.
        """

    def hidden(self) -> Float32Array:
        """The hidden states, float32 ``[B, S, hidden]``, in a new array."""

    def set_hidden(self, values: Float32Array) -> None:
        """Go on from other hidden states, float32 ``[B, S, hidden]``; copied.

        Raises:
            BackendError: they are of another shape.
        """


class Backend(Protocol):
    """A pack ready to compute. Not thread-safe: one run at a time, on any thread."""

    @property
    def threads(self) -> int:
        """Threads that compute a block, the caller's included."""

    @property
    def buffers(self) -> Mapping[str, Sequence[WorkingBuffer]]:
        """Working buffers by block kind (``sti.backend.working_buffer.make_buffers``).

        Owned by the back end, always the same ones until it is closed, and of the type of weights
        that its decoders write. Made when first asked for.
        """

    def prepare(self) -> None:
        """Make now what every run needs, so that the first one is not late.

        Raises:
            BackendError: this machine or library cannot compute the pack's graphs.
        """

    @property
    def decoder(self) -> GroupDecoder:
        """What fills ``buffers`` and buffers like them. Safe to share between threads."""

    def embedding_buffer(self, batch: int, tokens: int) -> Float32Array:
        """Where the token embeddings of a group go for ``start``, ``[batch, tokens, hidden]``.

        All groups share this memory: fill it and call ``start`` before asking for the next one's.
        A larger buffer replaces it; states that were started on the old one keep that.
        """

    def start(
        self,
        embeddings: Float32Array,
        types: Int64Array,
        lengths: Sequence[int],
        *,
        place: int | None = None,
    ) -> SentenceState:
        """Embed a group of B sentences padded to S tokens.

        Args:
            embeddings: token embeddings, ``[B, S, hidden]``, in the memory that
                ``embedding_buffer`` gave, which is overwritten from now on.
            types: token type of each token, ``[B, S]``.
            lengths: tokens of each sentence, B of them; what lies beyond is padding, and does not
                count whatever it holds.
            place: number of the group among those of a run: each number has its own memory for
                hidden states, which the next ``start`` with it takes over, so that runs allocate
                nothing. None: new memory, for states that are to be kept.

        Raises:
            BackendError: computing failed.
        """

    def close(self) -> None:
        """Give back memory and sessions. Idempotent; what is asked for afterwards is made anew."""
