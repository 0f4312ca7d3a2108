"""Writing a plan's graph: every step is read, checked, decoded and added to it.

In: an open pack, a plan, an empty directory. Out: the files that ``PlanSession`` opens. Holds the
weights of one layer at a time. Meant for a process of its own, because what ONNX Runtime needs to
pack weights stays with the process. Knows nothing of caches.
"""

from __future__ import annotations

from pathlib import Path

from sti.backend.onnxruntime.graph_sessions import weight_forms
from sti.backend.onnxruntime.joined_graph import JoinedGraph
from sti.backend.working_buffer import WorkingBuffer
from sti.codec.codebook import Codebook
from sti.codec.decoders import make_decoder
from sti.model.decoded_size import largest_group_bytes
from sti.pack.pack_reader import PackReader
from sti.pipeline.decoding import DecodePolicy, DecodeTask, decode, decode_again
from sti.pipeline.preload_buffer import Preload, StepBytes, load_step
from sti.planning.plan import Plan
from sti.planning.step_jobs import prepare
from sti.storage.file_reader import FileReader
from sti.storage.reader import aligned_buffer


def write_plan_graph(reader: PackReader, plan: Plan, directory: Path, *, saturates: bool) -> int:
    """Write the graph of a plan of this pack.

    Args:
        directory: empty; what is in it after an error is of no use.
        saturates: as ``OrtBackend.saturates``.

    Returns:
        Bytes of packed weights.

    Raises:
        PackCorruptError: what was read does not match its checksum; nothing is left out.
        StorageError: reading failed.
        BackendError: ONNX Runtime cannot make such a graph.
        OSError: a file cannot be written.
    """
    manifest = reader.manifest
    jobs = prepare(plan, manifest, reader.group_offset)
    forms = weight_forms(saturates=saturates)
    codebook = Codebook.from_json(manifest.codebook)
    decoders = {
        variant: make_decoder(codebook, weights=forms[variant])
        for variant in {job.variant for job in jobs}
    }
    policy = DecodePolicy(decoders.__getitem__, str(reader.path), check=True, adapt=False)
    kinds = {kind.name: kind for kind in manifest.kinds}
    slot = aligned_buffer(max(job.slot_bytes for job in jobs))
    buffer = WorkingBuffer(largest_group_bytes(manifest))
    storage, nothing = FileReader(reader.path, descriptor=reader.descriptor), Preload()
    try:
        with JoinedGraph(reader, forms, directory) as graph:
            for job in jobs:
                load_step(job, nothing, storage, slot)
                data = StepBytes(slot, job.slot_starts, from_ring=True)
                task = DecodeTask(job, data, buffer, kinds[job.group.kind])
                if decode(task, policy) is not None:
                    decode_again(task, policy)
                rooms = buffer.operands(task.kind, job.used, decoders[job.variant].dtype)
                graph.add(job, [room.matrix for room in rooms])
            graph.finish()
            return graph.packed_bytes
    finally:
        storage.close()
