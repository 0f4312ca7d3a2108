"""What a back end must provide, and what it gets from a pack: protocols and their values.

A back end computes what the blocks of a model compute, wherever it keeps its weights and hidden
states. To add one, implement ``Backend`` and ``SentenceState``, and construct it
where ``OrtBackend`` is constructed: ``sti.engine.core``, ``sti.cli.calibrate``, ``sti.cli.doctor``
and ``shard_tools.measuring.forward``; ``sti.pipeline`` sees the protocols alone.
``sti.backend.onnxruntime`` is the only one so far, ``tests/support/numpy_backend.py`` a minimal one
in plain NumPy for tests, and ``tests/support/graph_spec.py`` specifies what a block computes.
During a run:

    calling thread     embedding_buffer -> start      for each group of sentences; or
                       resume                         where another device computed what is before
    whoever decodes    decoder(variant).decode        for each slice group
    compute threads    state.step                     for each slice group, each group of sentences
                       state.connect                  after the steps of each block
    calling thread     state.finish                   for each group of sentences

The pipeline ensures that a working buffer is not decoded into while a step computes on it, that no
two threads compute under the same number, and that ``connect`` has its block to itself.
Failures are raised as ``BackendError``; after one, the next ``start`` must work again. Imports no
compute library.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from sti.arrays import Float32Array, Int64Array
from sti.backend.working_buffer import WorkingBuffer
from sti.codec.pieces import GroupDecoder
from sti.model.manifest import Manifest, SliceGroup
from sti.planning.lane_threads import WHOLE, Share
from sti.planning.plan import EXACT


class ResidentTensors(Protocol):
    """What graphs are made from: a pack, or copies of its resident tensors."""

    @property
    def manifest(self) -> Manifest:
        """What the pack says about itself."""

    def resident(self, name: str) -> NDArray[Any]:
        """A resident tensor; always the same memory for a name."""

    def has_resident(self, name: str) -> bool:
        """Whether there is one of this name."""

    def graph(self, name: str) -> bytes:
        """A serialized graph that was checked (``sti.graphs``)."""


class SentenceState(Protocol):
    """A group of B sentences of S tokens on its way through the blocks: hidden states and masks.

    ``Backend.start`` makes it. Used until the back end is closed, by one thread at a time except
    where ``step`` says otherwise.
    """

    def step(
        self,
        group: SliceGroup,
        width: int,
        *,
        variant: str = EXACT,
        buffer: int = 0,
        lane: int = 0,
        share: Share = WHOLE,
    ) -> None:
        """Compute a slice group on the hidden states, and keep its partial sum for ``connect``.

        The groups of a block may be computed in any order, and by several threads at once.

        Args:
            group: whose scales, biases and other resident tensors are used.
            width: slices of the group in use: 0 to ``width - 1``.
            variant: how products are computed (``sti.planning.plan``); the weights were decoded by
                the decoder for it.
            buffer: number of the working buffer that holds the weights; not written to by anybody
                meanwhile.
            lane: number of the compute lane, below ``Backend.lanes``; no other thread uses it
                meanwhile.
            share: for which tokens (``Share.tokens`` of S) the partial sum is computed; all shares
                of a group together must cover all tokens before ``connect``.

        Raises:
            BackendError: computing failed; the hidden states are lost.
        """

    def connect(self, layer: int, kind: str) -> None:
        """End a block: its partial sums, bias and residual together, normalized.

        The partial sums are added in the tree that ``sti.backend.partial_sums`` specifies, by the
        numbers of their groups, whoever computed them and when. Without a step since the last
        ``connect`` it is computed again on the same sum, which serves to measure how long it takes.

        Raises:
            BackendError: computing failed, and the hidden states are lost; or there was no step.
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

        Partial sums of a block that was not ended are forgotten.

        Raises:
            BackendError: they are of another shape.
        """


class BlocksGraph(Protocol):
    """All blocks of a plan, with its weights, as one graph. Not thread-safe."""

    @property
    def threads(self) -> int:
        """Threads that compute it."""

    @property
    def helper(self) -> int | None:
        """Native id of the thread that computes it beside the caller, where it is just one and
        known.
        """

    def run(self, state: SentenceState) -> None:
        """Compute all blocks on a state's hidden states, as its steps and connects would.

        Args:
            state: just started by the back end that the graph was made for.

        Raises:
            BackendError: computing failed, and the hidden states are lost; or it is the state of
                another back end.
            GraphError: what the graph was read from was changed; nothing computed with it is sound.
        """


class Backend(Protocol):
    """A pack ready to compute. Not thread-safe: one run at a time, on any threads."""

    @property
    def lanes(self) -> int:
        """How many threads may compute steps of a run at once."""

    @property
    def variants(self) -> Sequence[str]:
        """How products may be computed here: ``EXACT``, and ``NARROW`` where that is faster.

        ``step`` takes every variant everywhere.
        """

    def buffer(self, number: int) -> WorkingBuffer:
        """A working buffer, large enough for any slice group of the pack.

        Owned by the back end, always the same one until it is closed, made when first asked for.
        """

    def prepare(self, variants: Collection[str] = (EXACT,)) -> None:
        """Make now what every run needs, so that the first one is not late.

        Args:
            variants: of the steps that are expected.

        Raises:
            BackendError: this machine or library cannot compute the pack's graphs.
        """

    def decoder(self, variant: str) -> GroupDecoder:
        """What fills working buffers for a variant. Safe to share between threads."""

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

    def resume(
        self, hidden: Float32Array, lengths: Sequence[int], *, place: int | None = None
    ) -> SentenceState:
        """Go on with a group of B sentences padded to S tokens, embedded elsewhere.

        Args:
            hidden: hidden states in front of a block, ``[B, S, hidden]``; copied.
            lengths, place: as of ``start``; what lies beyond a sentence is finite.

        Raises:
            BackendError: computing failed.
        """

    def release_states(self) -> None:
        """Give back the memory of hidden states and token embeddings, which ``embedding_buffer``
        and ``start`` make anew: larger ones would lie beside it until they replace it.

        Called between runs. Idempotent.
        """

    def close(self) -> None:
        """Give back memory and sessions. Idempotent; what is asked for afterwards is made anew."""
