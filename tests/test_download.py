"""Downloads against a server that misbehaves in every way we know of."""

import contextlib
import hashlib
import io
import json
import re
import stat
import tarfile
import zipfile
from collections import namedtuple
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from srgan_lib import data_lists, downloads
from srgan_lib.data_lists import SETS, data_list, fetch, is_present
from srgan_lib.errors import UserError

# --- a server and its archives -------------------------------------------


class Server(BaseHTTPRequestHandler):
    """Serves `files`; `cut` ends each answer after so many bytes."""

    def __init__(self, shop, *args):
        self.shop = shop
        super().__init__(*args)

    def do_GET(self):
        shop, name = self.shop, self.path.strip("/")
        wanted = self.headers.get("Range")
        shop.asked.append((name, wanted))
        if name not in shop.files:
            self.send_error(404)
            return
        content, start = shop.files[name], 0
        if wanted and shop.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content[start:][: shop.cut])

    def log_message(self, *args):
        """Say nothing."""


class Shop:
    """What the server sells, how well, and what it was asked for."""

    def __init__(self):
        self.files, self.asked = {}, []
        self.ranges, self.cut = True, None


def png(seed=0, height=16, width=16):
    """The bytes of a random picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def make_zip(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def make_tar(members):
    """members: name -> bytes, or a TarInfo of no content."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


DIV2K_HR = {f"DIV2K_train_HR/000{n}.png": png(n) for n in (1, 2)}
DIV2K_LR = {
    f"DIV2K_train_LR_bicubic/X4/000{n}x4.png": png(n, 4, 4) for n in (1, 2)
}
BENCHMARK = {
    "benchmark/Set5/HR/baby.png": png(1),
    "benchmark/Set5/LR_bicubic/X4/babyx4.png": png(1, 4, 4),
    "benchmark/B100/HR/101085.png": png(2),
    "benchmark/B100/LR_bicubic/X4/101085x4.png": png(2, 4, 4),
}
HR_ZIP, LR_ZIP = "DIV2K_train_HR.zip", "DIV2K_train_LR_bicubic_X4.zip"
CHUNK = 1 << 16  # downloads are written in pieces of this size


@pytest.fixture
def shop(monkeypatch):
    """A server of good archives, in the place of the true homes."""
    shop = Shop()
    shop.files = {
        HR_ZIP: make_zip(DIV2K_HR),
        LR_ZIP: make_zip(DIV2K_LR),
        "benchmark.tar": make_tar(BENCHMARK),
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, shop))
    Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    shop.url = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(data_lists, "DIV2K_HOME", shop.url)
    monkeypatch.setattr(data_lists, "BENCHMARK_HOME", shop.url)
    for name, count in (("DIV2K", 2), ("Set5", 1), ("B100", 1)):
        monkeypatch.setitem(SETS, name, replace(SETS[name], count=count))
    yield shop
    server.shutdown()
    server.server_close()


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SRGAN_DATA", str(tmp_path / "root"))
    return tmp_path / "root"


def left_in(root):
    """Everything in the root, hidden or not, but the record."""
    return {p.name for p in root.iterdir()} - {"checksums.json"}


# --- all is well ---------------------------------------------------------


def test_zip_archives_become_a_set(shop, root, capsys):
    fetch("DIV2K")
    assert left_in(root) == {"DIV2K_train_HR", "DIV2K_train_LR_bicubic"}
    for name, content in (DIV2K_HR | DIV2K_LR).items():
        assert (root / name).read_bytes() == content
    assert len(data_list("DIV2K")) == 2
    assert "DIV2K is there: 2 images" in capsys.readouterr().out


def test_the_benchmark_archive_brings_all_its_sets(shop, root):
    fetch("Set5")
    fetch("B100")
    assert shop.asked == [("benchmark.tar", None)]
    for name, content in BENCHMARK.items():
        assert (root / name).read_bytes() == content
    assert left_in(root) == {"benchmark"}


def test_what_is_there_is_not_fetched_again(shop, root):
    fetch("DIV2K")
    shop.asked.clear()
    fetch("DIV2K")
    assert shop.asked == []


def test_only_the_missing_part_is_fetched(shop, root):
    (root / "DIV2K_train_HR").mkdir(parents=True)
    for name, content in DIV2K_HR.items():
        (root / name).write_bytes(content)
    fetch("DIV2K")
    assert shop.asked == [(LR_ZIP, None)]


def test_unpacking_leaves_what_is_there(shop, root):
    own = root / "benchmark/Set5/HR/notes.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    fetch("Set5")
    assert own.read_text() == "mine"
    assert is_present("Set5") and is_present("B100")


def test_an_archive_placed_by_hand_is_taken(shop, root):
    root.mkdir()
    (root / "benchmark.tar").write_bytes(shop.files.pop("benchmark.tar"))
    fetch("Set5")
    assert shop.asked == []
    assert left_in(root) == {"benchmark.tar", "benchmark"}


def test_the_checksum_of_the_first_good_download_is_recorded(shop, root):
    fetch("DIV2K")
    assert json.loads((root / "checksums.json").read_text()) == {
        name: hashlib.sha256(shop.files[name]).hexdigest()
        for name in (HR_ZIP, LR_ZIP)
    }


def test_sets_that_cannot_be_fetched(shop, root):
    fetch("Photos")  # is there
    with pytest.raises(UserError, match="unpack BSR_bsds500"):
        fetch("BSDS")
    with pytest.raises(UserError, match="no image set 'Set6'"):
        fetch("Set6")


# --- interruptions -------------------------------------------------------


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_is_resumed(shop, root, ranges):
    large = DIV2K_HR | {"DIV2K_train_HR/notes.txt": bytes(3 * CHUNK)}
    shop.files[HR_ZIP] = make_zip(large)
    shop.cut, shop.ranges = 2 * CHUNK + 99, ranges
    with pytest.raises(UserError, match="goes on where it stopped"):
        fetch("DIV2K")
    assert left_in(root) == {f"{HR_ZIP}.part"}
    assert (root / f"{HR_ZIP}.part").stat().st_size == 2 * CHUNK
    shop.cut = None
    fetch("DIV2K")
    assert shop.asked[1] == (HR_ZIP, f"bytes={2 * CHUNK}-")
    for name, content in large.items():
        assert (root / name).read_bytes() == content


def test_a_part_that_is_complete_is_not_fetched_again(shop, root):
    root.mkdir()
    (root / f"{HR_ZIP}.part").write_bytes(shop.files[HR_ZIP])
    fetch("DIV2K")
    assert [name for name, _ in shop.asked] == [HR_ZIP, LR_ZIP]
    assert left_in(root) == {"DIV2K_train_HR", "DIV2K_train_LR_bicubic"}


def test_a_part_longer_than_the_file_starts_over(shop, root):
    root.mkdir()
    (root / f"{HR_ZIP}.part").write_bytes(bytes(10**6))
    fetch("DIV2K")
    assert data_list("DIV2K")


def test_ctrl_c_keeps_the_part(shop, root, monkeypatch):
    shop.files[HR_ZIP] = make_zip(DIV2K_HR | {"big": bytes(3 * CHUNK)})
    update, seen = downloads.tqdm.update, []

    def interrupted(self, n):
        seen.append(n)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return update(self, n)

    monkeypatch.setattr(downloads.tqdm, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch("DIV2K")
    monkeypatch.undo()
    assert (root / f"{HR_ZIP}.part").stat().st_size == 2 * CHUNK


def test_ctrl_c_while_unpacking_leaves_nothing_to_trust(
    shop, root, monkeypatch
):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(downloads, "check_png", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch("DIV2K")
    assert left_in(root) == {f"{HR_ZIP}.part"}
    assert not (root / "checksums.json").exists()


# --- homes that fail -----------------------------------------------------


def refused(name, root, shop, *words):
    """fetch is refused in one line that has the words; nothing is left."""
    with pytest.raises(UserError) as caught:
        fetch(name)
    message = str(caught.value)
    for word in (*words, shop.url, str(root)):
        assert word in message
    assert "\n" not in message
    assert left_in(root) == set()
    assert not is_present(name)


def test_a_missing_file_says_how_to_place_it_by_hand(shop, root):
    del shop.files["benchmark.tar"]
    refused(
        *("Set5", root, shop, "HTTP status 404", "benchmark.tar could not"),
        "put it, packed or unpacked, into",
    )


def test_a_home_that_is_down(shop, root, monkeypatch):
    monkeypatch.setattr(shop, "url", "http://127.0.0.1:9/")
    monkeypatch.setattr(data_lists, "BENCHMARK_HOME", shop.url)
    refused("Set5", root, shop, "ConnectionError", "put it,")


def test_a_page_instead_of_the_archive(shop, root):
    shop.files[HR_ZIP] = b"<html>Log in to this network</html>"
    refused("DIV2K", root, shop, "it is broken")


@pytest.mark.parametrize("size", [0, 600, -400, -30])
def test_a_truncated_zip(shop, root, size):
    shop.files[HR_ZIP] = shop.files[HR_ZIP][:size]
    refused("DIV2K", root, shop, "it is broken")


@pytest.mark.parametrize("size", [0, 700, 1536, -1024])
def test_a_truncated_tar(shop, root, size):
    whole = make_tar(BENCHMARK)
    end = whole.rstrip(b"\0")
    shop.files["benchmark.tar"] = (end + bytes(-len(end) % 512))[:size]
    refused("Set5", root, shop, "it ")


def test_a_tar_cut_between_two_members(shop, root):
    whole = make_tar({"benchmark/Set5/HR/baby.png": png()})
    members = whole[: 512 + len(png()) + -len(png()) % 512]
    shop.files["benchmark.tar"] = members
    refused("Set5", root, shop, "ends before its end mark")


def flip(content, inside):
    """Flip a bit in the middle of the bytes `inside`."""
    at = content.index(inside) + len(inside) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_a_flipped_bit_in_a_zip(shop, root):
    inside = DIV2K_HR["DIV2K_train_HR/0002.png"]
    shop.files[HR_ZIP] = flip(shop.files[HR_ZIP], inside)
    refused("DIV2K", root, shop, "it is broken")


def test_a_flipped_bit_in_a_tar(shop, root):
    inside = BENCHMARK["benchmark/B100/HR/101085.png"]
    shop.files["benchmark.tar"] = flip(shop.files["benchmark.tar"], inside)
    refused("Set5", root, shop, "101085.png is broken")


def test_a_broken_archive_placed_by_hand_is_kept(shop, root):
    root.mkdir()
    (root / "benchmark.tar").write_bytes(b"no tar")
    with pytest.raises(UserError, match=r"benchmark\.tar is refused.*replace"):
        fetch("Set5")
    assert left_in(root) == {"benchmark.tar"}


def test_a_file_changed_after_the_first_download(shop, root):
    fetch("Set5")
    record = (root / "checksums.json").read_text()
    (root / "benchmark").rename(root / "away")
    (root / "away" / "Set5").rename(root / "Set5.old")
    changed = BENCHMARK | {"benchmark/Set5/HR/baby.png": png(9)}
    shop.files["benchmark.tar"] = make_tar(changed)
    with pytest.raises(UserError, match="not the file of the first download"):
        fetch("Set5")
    assert (root / "checksums.json").read_text() == record
    assert not is_present("Set5")


def test_an_archive_without_the_set(shop, root):
    shop.files["benchmark.tar"] = make_tar({"other/a.png": png()})
    refused("Set5", root, shop, "holds no folder benchmark")


def test_a_set_that_came_incomplete(shop, root, monkeypatch):
    monkeypatch.setitem(SETS, "DIV2K", replace(SETS["DIV2K"], count=800))
    with pytest.raises(UserError, match="has 2 of its 800 images"):
        fetch("DIV2K")


# --- hostile archives ----------------------------------------------------


def link(name, kind, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return {name: info}


def zip_link(name, target):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, target)
    return file.getvalue()


OUTSIDE = ["/tmp/evil.png", "../evil.png", "benchmark/../../evil.png"]


@pytest.mark.parametrize("name", [*OUTSIDE, "..\\evil.png", "C:evil.png"])
def test_members_that_would_leave_their_folder(shop, root, name):
    shop.files["benchmark.tar"] = make_tar(BENCHMARK | {name: b"evil"})
    refused("Set5", root, shop, "is not a file inside it")
    shop.files[HR_ZIP] = make_zip(DIV2K_HR | {name: b"evil"})
    refused("DIV2K", root, shop, "is not a file inside it")
    assert not list(root.parent.rglob("*evil*"))


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.SYMTYPE, "Set5"),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.CHRTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_links_and_devices(shop, root, kind, target):
    evil = link("benchmark/evil", kind, target)
    shop.files["benchmark.tar"] = make_tar(BENCHMARK | evil)
    refused("Set5", root, shop, "'benchmark/evil' is not a file")


def test_a_link_in_a_zip(shop, root):
    shop.files[HR_ZIP] = zip_link("DIV2K_train_HR/evil", "/etc")
    refused("DIV2K", root, shop, "'DIV2K_train_HR/evil' is not a file")


def test_a_bomb_of_many_files(shop, root, monkeypatch):
    monkeypatch.setattr(downloads, "MAX_FILES", 3)
    refused("Set5", root, shop, "far more than it should")
    shop.files[HR_ZIP] = make_zip({f"DIV2K_train_HR/{n}": b"" for n in "abcd"})
    refused("DIV2K", root, shop, "far more than it should")


def test_a_bomb_of_many_bytes(shop, root, monkeypatch):
    monkeypatch.setattr(downloads, "MAX_BYTES", 10**6)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("DIV2K_train_HR/bomb", bytes(10**7))
    shop.files[HR_ZIP] = file.getvalue()
    assert len(shop.files[HR_ZIP]) < 10**5
    refused("DIV2K", root, shop, "far more than it should")


def test_a_member_that_is_larger_than_it_says(shop, root):
    content = make_zip({"DIV2K_train_HR/bomb": bytes(range(256)) * 40})
    size = (256 * 40).to_bytes(4, "little")
    shop.files[HR_ZIP] = content.replace(size, (9).to_bytes(4, "little"))
    refused("DIV2K", root, shop, "it is broken")


def test_other_folders_of_an_archive_are_left_behind(shop, root):
    stowaway = {"checksums.json": b"{}", "BSDS500/train/1.png": png()}
    shop.files["benchmark.tar"] = make_tar(BENCHMARK | stowaway)
    fetch("Set5")
    assert left_in(root) == {"benchmark"}
    assert "benchmark.tar" in (root / "checksums.json").read_text()


# --- the disk ------------------------------------------------------------


def test_a_full_disk_is_noticed_before_the_download(shop, root, monkeypatch):
    usage = namedtuple("usage", "total used free")(10, 9, 1)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage)
    refused("Set5", root, shop, "GB are free; make room")


def test_a_disk_that_fills_up_while_unpacking(shop, root, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloads.shutil, "copyfileobj", full)
    with pytest.raises(UserError, match=r"No space left on device.*make room"):
        fetch("Set5")
    assert left_in(root) == {"benchmark.tar.part"}


def test_a_root_that_cannot_be_written(shop, root):
    root.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot be stored"):
        fetch("Set5")
