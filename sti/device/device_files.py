"""Profiles of other devices, read from files, to plan for and to simulate.

In: a file, or the name of one that ships, and the manifest to plan for. Out: a ``DeviceProfile``.
Two kinds of files are read:

- a profile: the JSON of ``DeviceProfile.to_json``, the output of ``sti calibrate PACK --json`` on
  the device, or a file from its cache. It holds for packs of the shapes it was measured with;
- a *board*: times of one layer of a reference model, scaled to any pack.

A board file has ``board`` (1), ``device``, ``note`` (where its times come from), ``threads``,
``contention`` (of compute beside the other lanes), ``jitter``, ``storage`` (``bytes_per_s``,
``request_s``) and ``layer``: the reference model's ``hidden`` width, ``slices``, ``shard_weights``
(of one slice of the layer, all blocks together) and ``tokens``, then ``compute_s``, seconds per
layer by slices in use, and ``decode_s``, seconds per shard at any fidelity. Boards of earlier
releases also had ``decoders``, which is refused: plans say now which threads decode.

How it scales (paper, "Planner", where times are per layer of BERT-base):

- Storage by bytes. Each token embedding is a request of its own.
- Decoding by weights, the same at every fidelity. The paper decompresses on the compute thread just
  before use; here threads share the work as the engine's may, whichever way is the fastest.
- Compute by multiply-adds. A line is fitted to seconds over slices in use. Its slope is the cost of
  a slice: its weights times the tokens, and its attention. Its offset is the cost of a layer at any
  width; it scales with the weights of the whole layer times the tokens. ``connect`` is part of
  both; embedding, head and tokenizer cannot be derived from times of layers and are left out.

Knows nothing of this machine. The paper does not state the token count of ``paper-board``: 128 is
assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sti.device.lane_profiles import (
    COMPUTE_TERMS,
    LEAST_S,
    MOST_BYTES_PER_S,
    MOST_FACTOR,
    MOST_S,
    ComputeProfile,
    DecodeProfile,
    RunProfile,
    StorageProfile,
)
from sti.device.lanes import COMPUTE, DECODE, MOST_THREADS, PIPELINED, SEQUENTIAL, STORAGE, shared
from sti.device.least_squares import fit_costs
from sti.device.profile import DeviceProfile
from sti.errors import ProfileError
from sti.json_fields import JsonFields
from sti.model.manifest import Manifest
from sti.storage.json_input import SMALL, parse_json
from sti.storage.plain_files import read_plain

BOARD_VERSION = 1
_MOST_SIZE = 10**6
"""Of a reference model, in any of its dimensions."""
_SHIPPED = Path(__file__).parent / "devices"


def shipped_devices() -> tuple[str, ...]:
    """The names of the devices that come with the package."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.json")))


def load_device(device: str | Path, manifest: Manifest) -> DeviceProfile:
    """The profile of a device, for planning with this manifest.

    Args:
        device: the name of a device that ships, else a file; ``./NAME`` is always a file.
        manifest: a board's times are scaled to it; a profile's times are used as they are.

    Raises:
        ProfileError: no such device, or a file that cannot be used; names the file and the field.
    """
    path = _SHIPPED / f"{device}.json" if str(device) in shipped_devices() else Path(device)
    value, where = _read(path, device), str(path)
    fields = JsonFields(value, where=where, error=ProfileError)
    if fields.has("board"):
        return _read_board(fields).profile(manifest)
    if fields.has("profile"):
        return DeviceProfile.from_json(value, where=where)
    if fields.has("value"):  # a file of the cache, as `sti calibrate` lists them
        return DeviceProfile.from_json(fields.raw("value"), where=f"{where}: value")
    if fields.has("threads"):  # what `sti calibrate PACK --json` prints
        threads = str(fields.integer("threads", least=1))
        profile = fields.object("profiles").raw(threads)
        return DeviceProfile.from_json(profile, where=f"{where}: profiles: {threads}")
    raise ProfileError(
        f"{where}: neither a board nor a device profile; `sti calibrate PACK --json` prints the "
        "profile of the machine it runs on"
    )


def _read(path: Path, asked: str | Path) -> object:
    try:
        return parse_json(read_plain(path, SMALL.most_bytes), SMALL)
    except FileNotFoundError as error:
        known = ", ".join(shipped_devices())
        raise ProfileError(f"{asked}: no such device file; devices that ship: {known}") from error
    except OSError as error:
        raise ProfileError(f"{path}: cannot read the device: {error.strerror}") from error
    except ValueError as error:
        raise ProfileError(f"{path}: not a device file: invalid JSON: {error}") from error


@dataclass(frozen=True, slots=True)
class _Layer:
    """Times of one layer of the reference model."""

    hidden: int
    slices: int
    shard_weights: int
    tokens: int
    compute_s: Mapping[int, float]
    decode_s: float


@dataclass(frozen=True, slots=True)
class _Board:
    device: str
    threads: int
    bytes_per_s: float
    request_s: float
    layer: _Layer
    contention: float
    jitter: float

    def profile(self, manifest: Manifest) -> DeviceProfile:
        """The board's times, scaled to the layers of a model."""
        decode_s = self.layer.decode_s / self.layer.shard_weights
        return DeviceProfile(
            device=self.device,
            threads=self.threads,
            lanes={
                STORAGE: StorageProfile(
                    direct=True,
                    request_s=self.request_s,
                    bytes_per_s=self.bytes_per_s,
                    row_s=self.request_s + manifest.embeddings.row_bytes / self.bytes_per_s,
                ),
                DECODE: DecodeProfile(0.0, dict.fromkeys(manifest.ladder, decode_s)),
                COMPUTE: ComputeProfile(_compute(self.layer, manifest)),
            },
            runs={
                SEQUENTIAL.name: self._run(1.0),
                PIPELINED.name: self._run(self.contention),
                shared(self.threads).name: self._run(self.contention),
            },
            tokenize_s=0.0,
        )

    def _run(self, contention: float) -> RunProfile:
        slower = {STORAGE: 1.0, DECODE: 1.0, COMPUTE: contention}
        return RunProfile(slower, step_s=0.0, fixed_s=0.0, jitter=self.jitter)


def _compute(layer: _Layer, manifest: Manifest) -> dict[str, tuple[float, ...]]:
    """Coefficients of ``sti.device.profile.COMPUTE_TERMS`` for every graph of the manifest."""
    widths = list(layer.compute_s)
    offset_s, slice_s = fit_costs([(1.0, m) for m in widths], list(layer.compute_s.values()))
    # Multiply-adds of the reference model: those of a slice, its products with keys and values
    # included, and those of the weights of a whole layer.
    attention = 2 * layer.tokens**2 * layer.hidden / layer.slices
    add_s = float(slice_s) / (layer.shard_weights * layer.tokens + attention)
    shared_s = float(offset_s) / (layer.shard_weights * layer.slices * layer.tokens)
    dims = manifest.dimensions
    free: tuple[float, ...] = (0.0,) * COMPUTE_TERMS
    # What a layer takes whatever its width is paid once a block, however many groups it has.
    shared = shared_s * dims.slices * sum(kind.shard_weights for kind in manifest.kinds)
    connect = (0.0, 0.0, shared / len(manifest.kinds), 0.0, 0.0)
    compute = {"embed": free, "connect": connect, "head": free}
    for kind in manifest.kinds:
        shard = kind.shard_weights
        mixing = 2 * dims.hidden / dims.slices if kind.input_kind == "sequence" else 0.0
        compute[kind.name] = (0.0, 0.0, 0.0, add_s * shard, add_s * mixing)
    return compute


def _read_board(fields: JsonFields) -> _Board:
    fields.require_version("board", BOARD_VERSION, remedy="write the board for this release")
    if fields.has("decoders"):
        raise ProfileError(
            f"{fields.where}: field 'decoders' is of an earlier release: plans now say which "
            "threads decode; remove it"
        )
    fields.only(*("board", "device", "note", "threads", "contention", "jitter", "storage", "layer"))
    storage = fields.object("storage").only("bytes_per_s", "request_s")
    return _Board(
        device=fields.text("device"),
        threads=fields.integer("threads", least=1, most=MOST_THREADS),
        bytes_per_s=storage.number("bytes_per_s", least=1.0, most=MOST_BYTES_PER_S),
        request_s=storage.number("request_s", least=0.0, most=MOST_S),
        layer=_read_layer(fields.object("layer")),
        contention=fields.number("contention", least=1.0, most=MOST_FACTOR),
        jitter=fields.number("jitter", least=1.0, most=MOST_FACTOR),
    )


def _read_layer(fields: JsonFields) -> _Layer:
    fields.only("hidden", "slices", "shard_weights", "tokens", "compute_s", "decode_s")
    slices = fields.integer("slices", least=1, most=_MOST_SIZE)
    times = fields.object("compute_s")
    for key in times.keys():
        if not (key.isascii() and key.isdigit() and len(key) < 10 and 1 <= int(key) <= slices):
            raise fields.fail("compute_s", f"keyed by slices in use, 1 to {slices}")
        if not LEAST_S <= times.number(key) <= MOST_S:
            raise times.fail(key, f"seconds between {LEAST_S:g} and {MOST_S:g}")
    if not times.keys():
        raise fields.fail("compute_s", "the seconds of at least one width")
    return _Layer(
        hidden=fields.integer("hidden", least=1, most=_MOST_SIZE),
        slices=slices,
        shard_weights=fields.integer("shard_weights", least=1, most=_MOST_SIZE**2),
        tokens=fields.integer("tokens", least=1, most=_MOST_SIZE),
        compute_s={int(key): times.number(key) for key in times.keys()},
        decode_s=fields.number("decode_s", least=0.0, most=MOST_S),
    )
