"""llama.cpp, a system under test: ``python -m benchmarks.systems.llama_cpp``.

The spec's file is a GGUF file by `gguf_model`. All texts go through the model as one batch of token
ids, a sequence each; llama.cpp pools them. The file is mapped, as is its default. Without a number
of threads it is given all cores. Option of the spec: ``repack``, whether weights are laid out anew
for the processor when the model is opened, as is the default; else they are used as mapped.

Needs the package `llama-cpp-python`, which may be installed in an interpreter of its own: nothing
here imports ONNX Runtime. On processors with AMX, some compilers, GCC 12.2 among them, build
repacked products that crash: they drop the tiles' configuration as unused. There, install it with

    CFLAGS="-fno-tree-dse -fno-dse" CXXFLAGS="-fno-tree-dse -fno-dse" pip install llama-cpp-python

or give ``repack`` as false. What llama.cpp says goes to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp as api  # type: ignore[import-not-found]
import numpy as np

from sti.arrays import Float32Array
from sti.benchmark.system_process import Opened, Opener, Spec, serve
from sti.device import host


class Embedder:
    """A model and a context that takes one batch whole. Not thread-safe.

    Raises:
        ValueError: llama.cpp refuses the file; it says why on standard error.
    """

    def __init__(
        self, path: str, *, tokens: int, sequences: int, threads: int, repack: bool
    ) -> None:
        given = api.llama_model_default_params()
        given.use_extra_bufts = repack
        self._model = api.llama_model_load_from_file(path.encode(), given)
        if not self._model:
            raise ValueError(f"{path}: refused by llama.cpp; write it again with gguf_model")
        settings = api.llama_context_default_params()
        # A multiple of the sequences: else it aborts where it sizes its memory for pooling.
        size = -(-tokens // sequences) * sequences
        settings.n_ctx = settings.n_batch = settings.n_ubatch = size
        settings.n_seq_max, settings.kv_unified = sequences, True
        settings.n_threads = settings.n_threads_batch = threads
        settings.embeddings = True
        self._context = api.llama_init_from_model(self._model, settings)
        if not self._context:
            raise ValueError(f"{path}: llama.cpp makes no context of {tokens} tokens for it")
        self._sequences, self._width = sequences, api.llama_model_n_embd(self._model)

    def answer(self, batch: Any) -> Float32Array:
        """The embeddings of a batch's sequences, of length 1: a new array ``[n, d]``."""
        failed = api.llama_encode(self._context, batch)
        if failed:
            raise ValueError(f"llama.cpp failed to encode a batch: {failed}")
        rows = [
            api.llama_get_embeddings_seq(self._context, number) for number in range(self._sequences)
        ]
        found = np.stack([np.ctypeslib.as_array(row, (self._width,)) for row in rows])
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        return found

    def close(self) -> None:
        """Give back context and model."""
        api.llama_free(self._context)
        api.llama_model_free(self._model)


class _System:
    """An embedder that is asked one batch."""

    def __init__(self, embedder: Embedder, batch: Any) -> None:
        self._embedder, self._batch = embedder, batch

    def run(self) -> Float32Array:
        """As ``Opened.run``."""
        return self._embedder.answer(self._batch)

    def settle(self) -> None:
        """Nothing to wait for."""

    def close(self) -> None:
        """Give everything back."""
        api.llama_batch_free(self._batch)
        self._embedder.close()


def batch_of(rows: Sequence[Sequence[int]]) -> Any:
    """Token ids as a batch of llama.cpp, to be freed."""
    batch = api.llama_batch_init(sum(map(len, rows)), 0, 1)
    batch.n_tokens = place = 0
    for number, row in enumerate(rows):
        for position, token in enumerate(row):
            batch.token[place], batch.pos[place] = token, position
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, number
            batch.logits[place] = 1
            place += 1
    batch.n_tokens = place
    return batch


def prepare(spec: Spec) -> Opener:
    """The batch is made beforehand.

    Raises:
        ValueError: there is no such file, or there are too many texts for one batch.
    """
    most = api.llama_max_parallel_sequences()
    if len(spec.ids) > most:
        raise ValueError(f"{len(spec.ids)} texts: llama.cpp takes {most} in a batch")
    if not Path(spec.file).is_file():
        raise ValueError(f"{spec.file}: no such file; write it with gguf_model")
    batch = batch_of(spec.ids)
    api.llama_backend_init()

    def opener() -> Opened:
        embedder = Embedder(
            spec.file,
            tokens=int(batch.n_tokens),
            sequences=len(spec.ids),
            threads=spec.threads or host.core_count(),
            repack=bool(spec.options.get("repack", True)),
        )
        return _System(embedder, batch)

    return opener


if __name__ == "__main__":
    sys.exit(serve(prepare))
