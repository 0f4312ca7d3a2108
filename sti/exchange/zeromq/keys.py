"""Keys of devices: who may talk to whom, and who is who.

In: a folder, names. Out: in the folder this machine's own secret key and the public keys of all,
and a folder for each other device, to be copied to it. Files are written and read as ``zmq.auth``
does, except that nobody else can read a secret key at any time. Whoever can write into such a
folder decides who is let in, so folders and files of others are refused. Knows nothing of sockets.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import zmq
from zmq.utils import z85

from sti.errors import InputError
from sti.exchange.names import check_name
from sti.exchange.zeromq.library import check_library
from sti.storage.atomic_file import replacing
from sti.storage.own_files import check_private, make_directory, open_own
from sti.storage.plain_files import read_all

CONTROLLER = "controller"
"""The name of the machine that makes the keys."""
_PUBLIC, _SECRET = ".key", ".key_secret"
_MOST_BYTES = 1 << 14
"""Of a file with a key: they are written with some 400."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_LINE = re.compile(rb"""^[ \t]*(public|secret)-key[ \t]*=[ \t]*["']([^"'\s]*)["'][ \t]*$""", re.M)
_BANNER = "#   ZeroMQ CURVE {} key of the device {}, made by STI.\n{}\nmetadata\ncurve\n"
_WARNING = "#   Whoever has this file is that device: show it to nobody, keep its rights.\n"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that a device has; its secret key shows in no text."""

    name: str
    """Of this device."""
    public: Mapping[str, bytes]
    """Of every device, by name, this one included; each 40 characters in Z85."""
    secret: bytes = field(repr=False)
    """Of this device, in Z85."""

    @classmethod
    def load(cls, folder: Path) -> Keys:
        """The keys in a folder that ``make_keys`` made.

        Raises:
            InputError: it is not the user's alone to write, a secret key is readable by others, a
                file is missing, malformed or belongs to another key; names file and remedy.
            RunError: this libzmq knows no keys.
        """
        check_library()
        _check_folder(folder)
        secrets = sorted(folder.glob(f"*{_SECRET}"))
        if len(secrets) != 1:
            found = ", ".join(path.name for path in secrets) or "none"
            raise InputError(
                f"{folder}: one secret key is needed, of this device ({found} found); make keys "
                "with `sti devices init --keys DIR NAME...`, or copy this device's folder here"
            )
        name = secrets[0].name.removesuffix(_SECRET)
        public, secret = _read_secret(secrets[0])
        every = {
            path.name.removesuffix(_PUBLIC): _read_public(path)
            for path in sorted(folder.glob(f"*{_PUBLIC}"))
        }
        for other in every:
            check_name(other)
        if every.setdefault(name, public) != public:
            raise InputError(
                f"{folder / (name + _PUBLIC)}: is not the public key of {secrets[0].name}; copy "
                "this device's folder anew"
            )
        if len(set(every.values())) < len(every):
            raise InputError(f"{folder}: two devices have the same public key; make keys anew")
        return cls(name, every, secret)


class MadeKeys(NamedTuple):
    """What ``make_keys`` has done."""

    new: tuple[str, ...]
    """Devices that had no keys before."""
    copy: Mapping[str, Path]
    """Folders that have to be copied, for the first time or again, by the device they are for."""


def make_keys(folder: Path, names: Sequence[str], *, own: str = CONTROLLER) -> MadeKeys:
    """Make the keys of devices, and of this one, where there are none yet.

    Keys that exist stay as they are; when devices are added, every device needs its folder again,
    for the public keys of the new ones.

    Args:
        folder: made if need be, the user's alone.
        names: the other devices.
        own: the name of this one.

    Raises:
        InputError: a name cannot be used, or files there cannot be used or written.
        RunError: this libzmq makes no keys.
    """
    check_library()
    for name in (own, *names):
        check_name(name)
    if len({own, *names}) <= len(names):
        raise InputError(
            f"{', '.join(names)}: each device needs a name of its own, and {own!r} is this one's"
        )
    try:
        return _make_keys(folder, names, own)
    except OSError as error:
        raise InputError(
            f"{error.filename or folder}: keys cannot be written: {error.strerror}"
        ) from error


def _make_keys(folder: Path, names: Sequence[str], own: str) -> MadeKeys:
    make_directory(folder)
    if not any(folder.glob(f"*{_SECRET}")):
        _write_pair(folder, own, zmq.curve_keypair())
    here = Keys.load(folder)
    if here.name != own:
        raise InputError(f"{folder}: holds the keys of {here.name}, not of {own}; name another")
    public = dict(here.public)
    new = tuple(name for name in names if name not in public)
    for name in new:
        place = folder / name
        make_directory(place)
        pair = zmq.curve_keypair()
        _write_pair(place, name, pair)
        # Last: only what is whole counts as made when this is run again.
        _write_public(folder, name, pair[0])
        public[name] = pair[0]
    copy: dict[str, Path] = {}
    for name in public.keys() - {own}:
        place = folder / name  # of a device that has copied it, it may have been removed
        make_directory(place)
        missing = [other for other in public if not (place / f"{other}{_PUBLIC}").exists()]
        for other in missing:
            _write_public(place, other, public[other])
        if missing:
            copy[name] = place
    return MadeKeys(new, dict(sorted(copy.items())))


def _write_pair(folder: Path, name: str, pair: tuple[bytes, bytes]) -> None:
    public, secret = pair
    _write_public(folder, name, public)
    text = _BANNER.format("secret", name, _WARNING) + _assigned("public", public)
    _write(folder / f"{name}{_SECRET}", text + _assigned("secret", secret))


def _write_public(folder: Path, name: str, key: bytes) -> None:
    text = _BANNER.format("public", name, "") + _assigned("public", key)
    _write(folder / f"{name}{_PUBLIC}", text)


def _assigned(kind: str, key: bytes) -> str:
    return f'    {kind}-key = "{key.decode("ascii")}"\n'


def _write(path: Path, text: str) -> None:
    with replacing(path, private=True, durable=True) as stream:
        stream.write(text.encode("ascii"))


def _check_folder(folder: Path) -> None:
    try:
        check_private(folder)
    except PermissionError as error:
        raise InputError(
            f"{folder}: {error.strerror}, and whoever may do that decides which devices are let "
            f"in; `chmod 700 {folder}`, owned by the user"
        ) from error
    except OSError as error:
        raise InputError(
            f"{folder}: {error.strerror}; name the folder that `sti devices init` made, or the "
            "copy of it for this device"
        ) from error


def _read_secret(path: Path) -> tuple[bytes, bytes]:
    """The public and the secret key of a file."""
    found = _read(path, private=True)
    if "secret" not in found or "public" not in found:
        raise _malformed(path)
    if zmq.curve_public(found["secret"]) != found["public"]:
        raise InputError(f"{path}: its two keys do not belong together; make keys anew")
    return found["public"], found["secret"]


def _read_public(path: Path) -> bytes:
    found = _read(path)
    if set(found) != {"public"}:
        raise _malformed(path)
    return found["public"]


def _read(path: Path, *, private: bool = False) -> dict[str, bytes]:
    try:
        descriptor = open_own(path)
        try:
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            raw = read_all(descriptor, _MOST_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if private and mode & _OTHERS:
        raise InputError(
            f"{path}: others than the user may read this secret key; `chmod 600 {path}`, and make "
            "new keys if somebody could have read it"
        )
    found: dict[str, bytes] = {}
    for kind, key in _LINE.findall(raw):
        name = kind.decode()
        if name in found or not _is_key(key):
            raise _malformed(path)
        found[name] = key
    return found


def _is_key(key: bytes) -> bool:
    if len(key) != 40:
        return False
    try:
        return len(z85.decode(key)) == 32
    except (ValueError, KeyError, struct.error):
        return False


def _malformed(path: Path) -> InputError:
    kind = "secret and a public" if path.name.endswith(_SECRET) else "public"
    return InputError(f"{path}: holds no {kind} key; copy it anew, or remove it and make keys anew")
