"""What a device says of itself when devices meet, and what keeps two of them apart.

In: an opened pack and how this process runs it, or JSON of a peer. Out: ``Facts``; the reason why
two devices cannot answer together, which names both. Devices must give the same bits, so they must
have the same pack, STI and ONNX Runtime; their processors may differ (variants are the plan's).
Knows nothing of networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sti.backend.onnxruntime.release import ort_version
from sti.device import host
from sti.device.lanes import MOST_THREADS
from sti.device.profile import DeviceProfile
from sti.errors import PeerError
from sti.json_fields import JsonFields
from sti.pack.pack_reader import PackReader
from sti.version import __version__

PROTOCOL = 1
"""Of what devices tell each other; raised with every change that the other side must know."""
_MOST_ROOM = 1 << 50
_MOST_LAYERS = 1 << 16


class Facts(NamedTuple):
    """A device, as it shows itself to others."""

    sti: str
    """Version."""
    onnxruntime: str
    """Version."""
    pack: str
    """``pack_id`` of the whole pack."""
    content: str
    """SHA-256 of the whole pack's content, which its parts name."""
    first: int
    """The first layer that it has."""
    last: int
    """The last layer that it has."""
    room_bytes: int
    """Memory for weights that are held and read ahead."""
    preload_bytes: int
    """Of which so much is held between runs."""
    threads: int
    """That compute."""
    machine: str
    """A line for people: processor, cores, memory."""
    profile: DeviceProfile
    """How fast it is."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``from_json`` reads back."""
        return {**self._asdict(), "protocol": PROTOCOL, "profile": self.profile.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, where: str) -> Facts:
        """What a peer says.

        Raises:
            PeerError: it speaks another protocol, or says what no device says; names ``where``.
            ProfileError: its profile cannot be read.
        """
        fields = JsonFields(value, where=where, error=PeerError)
        check_protocol(fields)
        fields.only("protocol", *cls._fields)
        return cls(
            sti=fields.text("sti")[:80],
            onnxruntime=fields.text("onnxruntime")[:80],
            pack=fields.text("pack")[:80],
            content=fields.text("content")[:80],
            first=fields.integer("first", most=_MOST_LAYERS),
            last=fields.integer("last", most=_MOST_LAYERS),
            room_bytes=fields.integer("room_bytes", most=_MOST_ROOM),
            preload_bytes=fields.integer("preload_bytes", most=_MOST_ROOM),
            threads=fields.integer("threads", least=1, most=MOST_THREADS),
            machine=fields.text("machine")[:200],
            profile=DeviceProfile.from_json(fields.raw("profile"), where=f"{where}: profile"),
        )


def own_facts(
    reader: PackReader,
    profile: DeviceProfile,
    *,
    threads: int,
    room_bytes: int,
    preload_bytes: int,
) -> Facts:
    """What this device is.

    Args:
        reader: the open pack, or a part of one.
        profile: how fast it is.
        threads: that compute.
        room_bytes, preload_bytes: as of ``Facts``.
    """
    return Facts(
        sti=__version__,
        onnxruntime=ort_version(),
        pack=plans_pack_id(reader),
        content=reader.content,
        first=reader.manifest.held_layers[0],
        last=reader.manifest.held_layers[-1],
        room_bytes=room_bytes,
        preload_bytes=preload_bytes,
        threads=threads,
        machine=host.describe(),
        profile=profile,
    )


def plans_pack_id(reader: PackReader) -> str:
    """The ``pack_id`` of plans that a pack, or a part of one, takes."""
    return reader.pack_id if reader.part is None else reader.part.pack_id


def check_protocol(fields: JsonFields) -> None:
    """Refuse a peer that speaks another protocol.

    Raises:
        PeerError: says which, and what to do.
    """
    fields.require_version(
        "protocol", PROTOCOL, remedy="install the same release of STI on all devices"
    )


def mismatch(mine: Facts, theirs: Facts, *, name: str) -> str | None:
    """Why a device cannot answer together with this one; None where it can.

    Args:
        name: of the other device.
    """
    for what, own, other, remedy in (
        ("STI", mine.sti, theirs.sti, "install the same release on both"),
        (
            "ONNX Runtime",
            mine.onnxruntime,
            theirs.onnxruntime,
            "install the same release on both, as answers must be the same to the bit",
        ),
        (
            "a pack of the content",
            mine.content,
            theirs.content,
            "copy this machine's pack, or a part of it (`sti-shard share`), to it",
        ),
        (
            "a pack of the ranking",
            mine.pack,
            theirs.pack,
            "copy this machine's pack, or a part of it (`sti-shard share`), to it",
        ),
    ):
        if own != other:
            return f"{name} has {what} {other:.16}, this machine has {own:.16}; {remedy}"
    return None
