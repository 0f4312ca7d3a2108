"""Keys of devices: what is made, what is read again, and what is refused."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq.auth

from sti.errors import InputError
from sti.exchange.zeromq.keys import CONTROLLER, Keys, make_keys


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = make_keys(tmp_path / "keys", ["phone", "board"])
    assert made.new == ("phone", "board")
    return tmp_path / "keys"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.key*")}


def test_every_device_gets_its_own_secret_and_everybodys_public_keys(folder: Path) -> None:
    public = {f"{name}.key" for name in (CONTROLLER, "phone", "board")}
    assert set(files(folder)) == {
        f"{CONTROLLER}.key_secret",
        *public,
        *(f"phone/{name}" for name in {*public, "phone.key_secret"}),
        *(f"board/{name}" for name in {*public, "board.key_secret"}),
    }
    loaded = [Keys.load(place) for place in (folder, folder / "phone", folder / "board")]
    assert [keys.name for keys in loaded] == [CONTROLLER, "phone", "board"]
    assert set(loaded[0].public) == {CONTROLLER, "phone", "board"}
    for keys in loaded:
        assert keys.public == loaded[0].public
        assert zmq.curve_public(keys.secret) == keys.public[keys.name]
        assert keys.secret.decode() not in repr(keys)


def test_nobody_else_can_read_what_is_made(folder: Path) -> None:
    for place in (folder, folder / "phone"):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        for path in place.glob("*.key*"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_zeromqs_own_reader_and_writer_agree(folder: Path, tmp_path: Path) -> None:
    public, secret = zmq.auth.load_certificate(folder / f"{CONTROLLER}.key_secret")
    keys = Keys.load(folder)
    assert (public, secret) == (keys.public[CONTROLLER], keys.secret)
    assert zmq.auth.load_certificate(folder / "phone.key") == (keys.public["phone"], None)
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    zmq.auth.create_certificates(other, "pc")
    (other / "pc.key_secret").chmod(0o600)
    made = Keys.load(other)
    assert (made.name, set(made.public)) == ("pc", {"pc"})


def test_made_again_with_more_names_keys_stay_and_all_are_copied_again(folder: Path) -> None:
    before = files(folder)
    made = make_keys(folder, ["phone", "tablet"])
    after = files(folder)
    assert made.new == ("tablet",)
    assert made.copy == {name: folder / name for name in ("board", "phone", "tablet")}
    assert {name: after[name] for name in before} == before
    assert {name for name in after if name not in before} == {
        "tablet.key",
        "phone/tablet.key",
        "board/tablet.key",
        *(f"tablet/{name}.key" for name in (CONTROLLER, "phone", "board", "tablet")),
        "tablet/tablet.key_secret",
    }
    again = make_keys(folder, ["phone"])
    assert again.new == () and again.copy == {} and files(folder) == after


def test_folders_that_were_moved_to_their_devices_are_completed_by_public_keys(
    folder: Path, tmp_path: Path
) -> None:
    shutil.move(folder / "phone", tmp_path / "phone")
    assert set(make_keys(folder, ["tablet"]).copy) == {"board", "phone", "tablet"}
    assert not list((folder / "phone").glob("*.key_secret"))
    shutil.copytree(folder / "phone", tmp_path / "phone", dirs_exist_ok=True)
    assert set(Keys.load(tmp_path / "phone").public) == {CONTROLLER, "phone", "board", "tablet"}


@pytest.mark.parametrize(
    "names", [["phone", "phone"], [CONTROLLER], ["a/b"], [".."], [""], ["x" * 64], ["ä"], ["a b"]]
)
def test_names_that_cannot_be_used_are_refused_before_anything_is_made(
    tmp_path: Path, names: list[str]
) -> None:
    with pytest.raises(InputError, match="name"):
        make_keys(tmp_path / "keys", names)
    assert not (tmp_path / "keys").exists()


def test_a_devices_folder_makes_no_keys_for_others(folder: Path) -> None:
    with pytest.raises(InputError, match="holds the keys of phone, not of controller"):
        make_keys(folder / "phone", ["tablet"])


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file.*cannot be written"):
        make_keys(tmp_path / "file", ["phone"])


def rewrite(old: str, new: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def linked(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("controller.key_secret", lambda path: path.chmod(0o640), "chmod 600 .*controller.key_sec"),
        ("controller.key_secret", lambda path: path.chmod(0o604), "others than the user may read"),
        ("controller.key_secret", Path.unlink, r"one secret key is needed.*none.*devices init"),
        ("controller.key_secret", rewrite("secret-key", "key"), "no secret and a public key"),
        ("controller.key_secret", rewrite("public-key", "key"), "no secret and a public key"),
        ("controller.key_secret", rewrite('secret-key = "', 'secret-key = "x'), "no secret"),
        ("controller.key_secret", lambda path: path.write_bytes(b"\xff" * 99), "no secret"),
        ("controller.key_secret", linked, "cannot be read"),
        ("phone.key", lambda path: path.chmod(0o620), "phone.key: cannot be read: others"),
        ("phone.key", lambda path: path.write_text(""), "phone.key: holds no public key"),
        ("phone.key", rewrite('"', "'"), ""),
        ("phone.key", rewrite('public-key = "', 'public-key = "~'), "phone.key: holds no public"),
        ("phone.key", lambda path: path.write_bytes(b" " * (1 << 20)), "phone.key: cannot be read"),
        ("phone.key", piped, "phone.key: cannot be read"),
        ("board.key", lambda path: shutil.copy(path.with_name("phone.key"), path), "same public"),
        ("controller.key", lambda path: shutil.copy(path.with_name("phone.key"), path), "is not"),
        (".", lambda path: path.chmod(0o770), "chmod 700"),
        (".", lambda path: path.chmod(0o702), "which devices are let in"),
        (".", shutil.rmtree, "name the folder that `sti devices init` made"),
    ],
    ids=range(19),
)
def test_files_that_cannot_be_trusted_are_refused_by_name(
    folder: Path, name: str, change: Callable[[Path], object], said: str
) -> None:
    change(folder / name)
    if not said:
        Keys.load(folder)
        return
    with pytest.raises(InputError, match=said):
        Keys.load(folder)


def test_two_secret_keys_in_a_folder_are_refused(folder: Path) -> None:
    shutil.copy(folder / "phone" / "phone.key_secret", folder)
    with pytest.raises(InputError, match=r"controller.key_secret, phone.key_secret found"):
        Keys.load(folder)


def test_keys_that_do_not_belong_together_are_refused(folder: Path) -> None:
    keys = Keys.load(folder)
    rewrite(keys.public[CONTROLLER].decode(), keys.public["phone"].decode())(
        folder / f"{CONTROLLER}.key_secret"
    )
    with pytest.raises(InputError, match="do not belong together"):
        Keys.load(folder)
