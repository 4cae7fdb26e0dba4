"""Downloads: going on after an interruption, unpacking nothing hostile."""

import os
import shutil
import stat
import tarfile
import zipfile
from contextlib import contextmanager
from functools import partial
from pathlib import PurePosixPath

import requests
from PIL import Image
from tqdm import tqdm

from srgan_lib.errors import UserError

# Far above what the true archives hold, far below what fills a disk.
MAX_FILES, MAX_BYTES = 10_000, 10 * 10**9


class DamagedArchive(Exception):
    """An archive that is broken, or that nobody should unpack."""


def download(url, part):
    """Fetch `url` into the file `part`, going on from what it holds.

    Whatever stops it, the part is kept. requests.RequestException if the
    server does not deliver all that it announced.
    """
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # bytes as they are
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(url, headers=headers, stream=True, timeout=60) as reply:
        if have and reply.status_code == 416:  # nothing beyond `have`
            if reply.headers.get("Content-Range") == f"bytes */{have}":
                return
            part.unlink()
            return download(url, part)
        reply.raise_for_status()
        if reply.status_code != 206:  # a server that starts over
            have = 0
        length = int(reply.headers.get("Content-Length", 0))
        # The rest of the archive, and the images unpacked from it.
        need = length + have + length
        free = shutil.disk_usage(part.parent).free
        if free < need:
            raise UserError(
                f"{url} needs {need / 1e9:.1f} GB in {part.parent}, where "
                f"{free / 1e9:.1f} GB are free; make room, or set SRGAN_DATA "
                "to another folder."
            )
        with (
            open(part, "ab" if have else "wb") as file,
            tqdm(
                desc=part.stem,
                initial=have,
                total=have + length or None,
                unit="B",
                unit_scale=True,
            ) as bar,
        ):
            for chunk in reply.iter_content(1 << 16):  # what a cut may lose
                file.write(chunk)
                bar.update(len(chunk))
    if length and part.stat().st_size != have + length:
        raise requests.ConnectionError(f"{url} ended early")


def unpack(path, top, root):
    """Unpack a zip or tar archive and move its folder `top` into `root`.

    All or nothing: it is unpacked into a hidden folder and every file is
    checked before anything is moved. DamagedArchive if it is broken, has
    members that would leave their folder or are no plain files, or too much.
    """
    temporary = root / f".unpacking-{path.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with open_archive(path) as members:
            bar = tqdm(members, f"Unpacking {path.name}", unit=" files")
            total = 0
            for count, (name, size, plain, open_member) in enumerate(bar, 1):
                total += size
                check_member(name, plain)
                if count > MAX_FILES or total > MAX_BYTES:
                    raise DamagedArchive("it holds far more than it should")
                if not open_member:
                    continue
                target = temporary / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with open_member() as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
                check_png(target)
        if not (temporary / top).is_dir():
            raise DamagedArchive(f"it holds no folder {top}")
        move_into(temporary / top, root / top)
    except (DamagedArchive, OSError):
        raise
    except Exception as error:  # zipfile and tarfile raise many kinds
        raise DamagedArchive(f"it is broken ({error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def open_archive(path):
    """Yield the members of a zip or tar: (name, bytes, plain, open).

    `plain` is False for links and devices, `open` is None for folders.
    """
    if ".zip" in path.name:
        with zipfile.ZipFile(path) as archive:
            yield (
                (
                    info.filename,
                    info.file_size,
                    stat.S_IFMT(info.external_attr >> 16)
                    in (0, stat.S_IFREG, stat.S_IFDIR),
                    None if info.is_dir() else partial(archive.open, info),
                )
                for info in archive.infolist()
            )
    else:
        with (
            open(path, "rb") as file,
            tarfile.open(fileobj=file, mode="r:") as archive,
        ):
            yield (
                (
                    info.name,
                    info.size,
                    info.isreg() or info.isdir(),
                    partial(archive.extractfile, info)
                    if info.isreg()
                    else None,
                )
                for info in archive
            )
            # tarfile takes a file cut between two members for a whole one.
            file.seek(-512, os.SEEK_END)
            if any(file.read()):
                raise DamagedArchive("it ends before its end mark")


def check_member(name, plain):
    """Refuse links, devices, and names that lead out of the folder."""
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts
    if outside or not plain or set("\\:\0") & set(name):
        raise DamagedArchive(f"its member {name!r} is not a file inside it")


def check_png(path):
    """Refuse a damaged PNG: it has checksums, which a tar has not."""
    if path.suffix.lower() == ".png" and not path.name.startswith("."):
        try:
            with Image.open(path) as image:
                image.verify()
        except Exception as error:  # Pillow raises many kinds
            raise DamagedArchive(f"{path.name} is broken") from error


def move_into(source, target):
    """Move a folder to `target`; whatever is there already stays."""
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()
    if not target.exists():
        os.replace(source, target)
    elif source.is_dir() and target.is_dir():
        for item in source.iterdir():
            move_into(item, target / item.name)
