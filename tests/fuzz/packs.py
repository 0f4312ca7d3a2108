"""Readers of packs: header and tensor table, manifest, index and residents, staircases.

Checksums are made good, as whoever means harm would.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache

from sti.errors import PackFormatError
from sti.model.workload import Workload
from sti.pack.header import CHECKSUM_DIGITS, HEADER_START, VOCABULARY, header_checksum
from sti.pack.manifest_reader import HEADER_LIMITS, read_manifest
from sti.pack.pack_reader import PackReader
from sti.pack.safetensors_table import parse_table
from sti.pack.tokenizer import pack_tokenizer, table_name
from sti.planning.plan import PlanRequest
from sti.planning.plan import Target as Aim
from sti.planning.planner import make_plan
from sti.planning.staircase_making import make_staircases
from sti.planning.staircases import Staircases
from sti.planning.step_jobs import prepare
from sti.text.kinds import BY_HASH
from tests.fuzz import sources
from tests.fuzz.target import Target, must
from tests.support.packs import PROFILE

_ALIGNED = 16384
_TEXTS = ("the dog runs", "a r\u00e9d house [SEP] \ud800 \u4e00\u4e01", "unknownwordhere" * 20)
_INDEX = ("index.outlier_bytes", "index.checksums", "index.gains", "index.orders")
_HEAD_BYTES = 20
"""Of staircases."""
_CRC_AT = 16


def _with_header(header: bytes) -> bytes:
    """A pack of this header, sealed, with the bytes of the sound one behind it."""
    whole = sources.pack_bytes()
    data = whole[8 + int.from_bytes(whole[:8], "little") :]
    space = -(-(8 + len(header)) // _ALIGNED) * _ALIGNED - 8
    header = header.ljust(space)
    start = len(HEADER_START)
    if header.startswith(HEADER_START):
        digits = b"%08x" % header_checksum(header)
        header = header[:start] + digits + header[start + CHECKSUM_DIGITS :]
    return space.to_bytes(8, "little") + header + data


def _used(data: bytes) -> None:
    """Open a pack, and use what opening vouches for."""
    with PackReader.open(sources.written("pack", data)) as reader:
        tokenizer = pack_tokenizer(reader)
        for text in _TEXTS:
            encoding = tokenizer.encode(text)
            must(int(encoding.ids.min()) >= 0, "ids from 0 on")
            must(int(encoding.ids.max()) < tokenizer.vocab_size, "ids inside the vocabulary")
            must(len(encoding.ids) <= tokenizer.spec.max_tokens, "no more tokens than allowed")
        manifest = reader.manifest
        reader.check_graphs()
        request = PlanRequest(manifest, reader.pack_id, Workload(1, 16), Aim())
        plan = make_plan(request, PROFILE)
        prepare(plan, manifest, reader.group_offset)


def _header(data: bytes) -> None:
    parse_table(data, HEADER_LIMITS, where="header", error=PackFormatError)
    _used(_with_header(data))


def _manifest(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    read_manifest(text, where="manifest")
    table = {"__metadata__": {"format": "sti", "crc32": "0" * 8, "sti": text}, **_tensors()}
    _used(_with_header(sources.dumped(table)))


def _tensors() -> dict[str, object]:
    return {name: item for name, item in sources.table().items() if name != "__metadata__"}


@cache
def _parts() -> tuple[tuple[str, int, int], ...]:
    """Residents that are changed, by name, and where their bytes lie in the file."""
    base = 8 + int.from_bytes(sources.pack_bytes()[:8], "little")
    names = (*_INDEX, *map(table_name, BY_HASH.arrays), VOCABULARY)
    spans = [(name, *sources.table()[name]["data_offsets"]) for name in names]
    return tuple((name, base + begin, end - begin) for name, begin, end in spans)


def _residents(data: bytes) -> None:
    """Lay the bytes over index and vocabulary, one tensor after the other."""
    whole, at = bytearray(sources.pack_bytes()), 0
    for _, begin, size in _parts():
        part = data[at : at + size]
        whole[begin : begin + len(part)] = part
        at += size
    base = 8 + int.from_bytes(whole[:8], "little")
    body = dict(sources.manifest_json())
    length = body["resident"]["length"]
    checksum = zlib.crc32(whole[base : base + length])
    body["resident"] = {**body["resident"], "checksum": checksum}
    text = sources.dumped(body).decode()
    table = {"__metadata__": {"format": "sti", "crc32": "0" * 8, "sti": text}, **_tensors()}
    sealed = _with_header(sources.dumped(table))
    _used(sealed[:base] + bytes(whole[base:]))


def _sound_residents() -> list[bytes]:
    whole = sources.pack_bytes()
    return [b"".join(whole[begin : begin + size] for _, begin, size in _parts())]


def _staircases(data: bytes) -> None:
    if len(data) >= _HEAD_BYTES:  # sealed
        head = bytearray(data[:_HEAD_BYTES])
        head[_CRC_AT : _CRC_AT + 4] = bytes(4)
        crc = zlib.crc32(data[_HEAD_BYTES:], zlib.crc32(head))
        data = data[:_CRC_AT] + crc.to_bytes(4, "little") + data[_CRC_AT + 4 :]
    manifest = sources.manifest()
    found = Staircases.from_bytes(data, manifest, where="staircases")
    must(found.to_bytes(manifest) == data, "staircases read back the same")
    for number in range(min(len(found), 8)):
        must(len(found.counts_of(number)) > 0, "staircases run something")


def _sound_staircases() -> list[bytes]:
    manifest = sources.manifest()
    made = make_staircases(manifest)
    few = Staircases(made.submodel[:3], made.counts[:3], made.loss[:3], made.narrow_loss[:3])
    return [few.to_bytes(manifest)]


def _sound_header() -> list[bytes]:
    whole = sources.pack_bytes()
    return [whole[8 : 8 + int.from_bytes(whole[:8], "little")].rstrip()]


def targets() -> Sequence[Target]:
    """The targets of this module."""
    words = sources.names_in(sources.manifest_json())
    return (
        Target("header", _header, _sound_header, "json", (*words, *_tensors())),
        Target(
            "manifest", _manifest, lambda: [sources.dumped(sources.manifest_json())], "json", words
        ),
        Target("residents", _residents, _sound_residents, "bytes"),
        Target(
            "staircases",
            _staircases,
            _sound_staircases,
            "bytes",
        ),
    )
