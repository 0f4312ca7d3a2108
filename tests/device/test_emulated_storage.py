"""Storage that is slower than this machine's."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from sti.device.emulated_storage import DEVICES, SlowReader, parse_storage, with_storage
from sti.device.lane_profiles import StorageProfile
from sti.engine.engine import Engine
from sti.errors import InputError, StorageError
from sti.storage.byte_ranges import SECTOR, ByteRange
from sti.storage.file_reader import FileReader
from sti.storage.reader import aligned_buffer
from tests.support.paths import MODELS
from tests.support.synthetic import make_profile

SIZE = 64 * SECTOR
PROFILE = make_profile()


def slow(request_s: float, bytes_per_s: float, row_s: float = 0.0) -> StorageProfile:
    return StorageProfile(True, request_s=request_s, bytes_per_s=bytes_per_s, row_s=row_s)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "data"
    file.write_bytes(np.random.default_rng(0).bytes(SIZE))
    return file


def test_reads_give_the_same_bytes_and_end_no_sooner_than_the_device_would(path: Path) -> None:
    content, buffer = path.read_bytes(), aligned_buffer(SIZE)
    device = slow(2e-3, 100e6)
    reader = SlowReader(FileReader(path), device)
    begin = perf_counter()
    for start, sectors in ((0, 8), (8, 56), (3, 1)):
        reader.read(ByteRange(start * SECTOR, sectors * SECTOR), buffer)
        assert buffer[: sectors * SECTOR].tobytes() == content[start * SECTOR :][: sectors * SECTOR]
    least = device.read_s(3, 65 * SECTOR)
    assert perf_counter() - begin >= least
    reader.close()


def test_rows_take_their_time_each(path: Path) -> None:
    rows = np.array([1, 5, 40], dtype=np.int64)
    wanted, found = np.empty((2, 3, 300), dtype=np.uint8)
    with FileReader(path) as plain:
        plain.read_rows(7, rows, wanted)
    reader = SlowReader(FileReader(path), slow(0.0, 1e9, row_s=3e-3))
    begin = perf_counter()
    reader.read_rows(7, rows, found)
    assert (found == wanted).all()
    assert perf_counter() - begin >= 9e-3
    reader.close()


class Clock:
    """A clock that moves when someone sleeps or reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, read_s: float) -> None:
        self.now, self.read_s = 100.0, read_s
        monkeypatch.setattr("sti.device.emulated_storage.perf_counter", lambda: self.now)
        monkeypatch.setattr("sti.device.emulated_storage.sleep", self.wait)

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def read(self, item: ByteRange, out: object) -> None:
        self.wait(self.read_s)

    def reads(self, device: StorageProfile, gaps: list[float]) -> list[float]:
        """When reads of 1 MB end, begun so long after the one before."""
        reader, ends = SlowReader(self, device), []  # type: ignore[arg-type]
        for gap in gaps:
            self.wait(gap)
            reader.read(ByteRange(0, 1_000_000), aligned_buffer(SECTOR))
            ends.append(round(self.now - 100.0, 6))
        return ends


def test_reads_take_what_the_device_takes_and_follow_without_a_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = slow(1e-3, 100e6)  # 11 ms for each
    clock = Clock(monkeypatch, read_s=2e-3)
    # A sleeper who wakes up .1 ms late does not slow the device; one who comes 5 ms late does.
    assert clock.reads(device, [0.0, 1e-4, 1e-4, 5e-3]) == [0.011, 0.022, 0.033, 0.049]


def test_nothing_is_added_where_the_real_read_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, read_s=20e-3)
    assert clock.reads(slow(1e-3, 100e6), [0.0, 1e-3]) == [0.02, 0.041]


def test_a_failure_of_the_real_storage_comes_through(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: FileReader, *args: object) -> None:
        raise StorageError("the card was pulled out")

    reader = SlowReader(FileReader(path), slow(0.0, 1e9))
    with monkeypatch.context() as patched:
        patched.setattr(FileReader, "read", fail)
        with pytest.raises(StorageError, match="pulled out"):
            reader.read(ByteRange(0, SECTOR), aligned_buffer(SECTOR))
    reader.read(ByteRange(0, SECTOR), aligned_buffer(SECTOR))  # usable again
    reader.close()


def test_devices_have_names_or_numbers() -> None:
    assert parse_storage("MicroSD").bytes_per_s == DEVICES["microsd"].bytes_per_s
    found = parse_storage("300MB/s:0.2ms")
    assert (found.bytes_per_s, found.request_s) == (300e6, 2e-4)
    assert parse_storage("2GB/s").request_s == 0.0
    assert all(parse_storage(name).row_s > 0.0 for name in DEVICES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("floppy", "must be one of microsd, emmc, ufs3, ufs4, or a rate such as 100MB/s"),
        ("", "or a rate such as"),
        ("100MB", "or a rate such as"),
        ("100MB/h", "or a rate such as"),
        ("fast/s", "the rate of --storage must be a size"),
        ("1B/s", "must be at least 1.00 MB/s"),
        ("1/s", "the rate of --storage must be a size.*no unit; write .1B."),
        ("100MB/s:", "the latency of --storage must be a time"),
        ("100MB/s:slow", "the latency of --storage must be a time"),
    ],
)
def test_what_is_no_device_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_storage(text)


def test_a_profile_takes_the_slower_of_both() -> None:
    own = PROFILE.storage
    found = with_storage(PROFILE, slow(own.request_s * 2, own.bytes_per_s * 2, own.row_s * 2))
    assert found.storage.request_s == own.request_s * 2
    assert found.storage.bytes_per_s == own.bytes_per_s
    assert found.storage.row_s == own.row_s * 2


def test_an_engine_on_slow_storage_answers_alike_and_later() -> None:
    pack = MODELS / "clinc150-intents.sti.safetensors"
    device = slow(1e-3, 100e6, row_s=1e-4)
    with Engine.open(pack, fidelity=2, threads=1) as engine:
        wanted = engine.run(["what is the weather like"])
    reader = SlowReader(FileReader(pack), device)
    profile = with_storage(PROFILE, device)
    with Engine.open(pack, fidelity=2, threads=1, profile=profile, storage=reader) as engine:
        found = engine.run(["what is the weather like"])
    assert (found.logits == wanted.logits).all()
    assert found.timing.busy_s["storage"] >= found.bytes_read / device.bytes_per_s * 0.9
