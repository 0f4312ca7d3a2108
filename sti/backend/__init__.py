"""ONNX Runtime, and the only package that imports it.

``graphs`` runs the blocks of a pack, ``decoding`` decodes their weights, ``session`` is one session
over one graph, ``whole`` a model that is no pack, to compare with.
"""

from sti.backend.decoding import ShardDecoder
from sti.backend.graphs import PADDING_MASK, Backend, GroupState, Residents
from sti.backend.session import ort_version

__all__ = [
    "PADDING_MASK",
    "Backend",
    "GroupState",
    "Residents",
    "ShardDecoder",
    "ort_version",
]
