"""Which image sets exist, how they are fetched, and the lists of them.

A set is two folders: HR images, and their LR twins at a quarter of the size.
A list is a CSV file of their paths (the case's `create_data_lists`); LR
twins that are missing are made with MATLAB's imresize.
"""

import csv
import hashlib
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import requests
import skimage
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from srgan_lib.config import workspace
from srgan_lib.downloads import DamagedArchive, download, unpack
from srgan_lib.errors import UserError
from srgan_lib.files import atomic_write, read_json, write_json
from srgan_lib.images import modcrop, read_image, write_image
from srgan_lib.imresize import imresize

PHOTOS = Path(__file__).parent / "photos"
SKIMAGE = Path(skimage.__file__).parent / "data"
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}

# --- the sets ------------------------------------------------------------


@dataclass(frozen=True)
class ImageSet:
    """What a set is for, how many images it has, and where they lie.

    `folders` are relative to the data root, or absolute for what comes with
    a package; `files` picks some of them, by default all but those that
    `held_back` names. `lr` is the folder of the LR twins, where the set has
    its own.
    """

    role: str  # "train", "val" for choosing, or "test"
    count: int
    folders: tuple
    files: tuple = ()
    held_back: tuple = ()
    lr: str = ""
    archives: tuple = ()  # what fetch downloads
    by_hand: str = ""  # for a set that fetch cannot download


def _benchmark(name, count):
    return ImageSet(
        "test",
        count,
        (f"benchmark/{name}/HR",),
        lr=f"benchmark/{name}/LR_bicubic/X{{scale}}",
        archives=("benchmark.tar",),
    )


def _div2k(role, part, count):
    return ImageSet(
        role,
        count,
        (f"DIV2K_{part}_HR",),
        lr=f"DIV2K_{part}_LR_bicubic/X{{scale}}",
        archives=(
            f"DIV2K_{part}_HR.zip",
            f"DIV2K_{part}_LR_bicubic_X4.zip",
        ),
    )


# Two photographs are held back from training, to choose by: one man-made
# and full of edges, one of nature.
TRAIN_PHOTOS = (
    *("bird.webp", "bridge.webp", "brushes.webp", "clock.webp"),
    *("dandelion.webp", "dogs.webp", "dragonfly.webp", "fig.webp"),
    *("galaxy.webp", "lamp.webp", "mountain.webp", "plaster.webp"),
    *("stream.webp", "sunset.webp"),
)
VAL_PHOTOS = ("meadow.webp", "room.webp")
# Of the Berkeley images, every twentieth.
VAL_BSDS = tuple(
    f"{number}.jpg"
    for number in (
        *(12074, 65010, 69000, 100007, 100075, 108069, 141012),
        *(151087, 163096, 176035, 196088, 198023, 226043, 232038),
        *(259060, 268002, 317043, 317080, 376020, 388006),
    )
)
BSDS_FOLDERS = ("BSDS500/train", "BSDS500/test")
BSDS_BY_HAND = (
    "unpack BSR_bsds500.tgz (www2.eecs.berkeley.edu/Research/Projects/CS/"
    "vision/grouping/resources.html) and copy the folders train and test of "
    "its images into {root}/BSDS500"
)
BUNDLED5 = (
    *("astronaut.png", "chelsea.png", "coffee.png"),
    *("rocket.jpg", "motorcycle_left.png"),
)
SETS = {
    "Photos": ImageSet("train", 14, (PHOTOS,), TRAIN_PHOTOS),
    "PhotosVal": ImageSet("val", 2, (PHOTOS,), VAL_PHOTOS),
    "Bundled5": ImageSet("test", 5, (SKIMAGE,), BUNDLED5),
    "Set5": _benchmark("Set5", 5),
    "Set14": _benchmark("Set14", 14),
    "B100": _benchmark("B100", 100),
    "Urban100": _benchmark("Urban100", 100),
    "DIV2K-valid": _div2k("test", "valid", 100),
    "DIV2K": _div2k("train", "train", 800),
    "BSDS": ImageSet(
        "train",
        380,
        BSDS_FOLDERS,
        held_back=VAL_BSDS,
        by_hand=BSDS_BY_HAND,
    ),
    "BSDSVal": ImageSet(
        "val", 20, BSDS_FOLDERS, VAL_BSDS, by_hand=BSDS_BY_HAND
    ),
}


def get_set(name):
    """The ImageSet called `name`; an unknown name is a UserError."""
    if name not in SETS:
        raise UserError(
            f"There is no image set '{name}'; take one of {', '.join(SETS)}."
        )
    return SETS[name]


# --- where they are ------------------------------------------------------


def data_root():
    """The folder of the downloaded sets: SRGAN_DATA, else data/."""
    given = os.environ.get("SRGAN_DATA")
    if not given:
        return workspace() / "data"
    if not Path(given).is_absolute():
        raise UserError(
            f"SRGAN_DATA is the relative path '{given}'; give an absolute "
            "one (make does so by itself), since chapters run elsewhere."
        )
    return Path(given)


def _images_in(folder):
    """The image files of a folder, sorted; notes and hidden files are not."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )


def _find_folder(folder):
    """Where `folder` of the data root is: there, or one folder deeper.

    An archive unpacked by hand often lies one folder too deep, as in
    benchmark/benchmark/Set5. None if no such folder holds images.
    """
    root = data_root()
    deeper = sorted(p / folder for p in root.glob("[!.]*") if p.is_dir())
    for place in (root / folder, *deeper):
        if _images_in(place):
            return place.absolute()
    return None


def _hr_images(name):
    """All HR images of a set; empty if a part of it is not there."""
    image_set, found = get_set(name), []
    for folder in image_set.folders:
        place = _find_folder(folder)
        images = _images_in(place) if place else []
        if image_set.files:
            images = [p for p in images if p.name in image_set.files]
        images = [p for p in images if p.name not in image_set.held_back]
        if not images:
            return []
        found += images
    return found


def is_present(name):
    """Whether the HR images of the set are there."""
    return bool(_hr_images(name))


def how_to_get(name):
    """One line that says how to get the set."""
    image_set, root = get_set(name), data_root()
    if image_set.by_hand:
        return image_set.by_hand.format(root=root)
    if image_set.files:
        return "it comes with the packages: install them again"
    return f"`srgan data {name}` downloads it into {root}"


def status():
    """Of every set: name, role, images there, images it should have, and
    how to get it (None if it is there)."""
    return [
        {
            "name": name,
            "role": image_set.role,
            "images": (images := len(_hr_images(name))),
            "count": image_set.count,
            "how_to_get": None if images else how_to_get(name),
        }
        for name, image_set in SETS.items()
    ]


def find_images(name, scale=4):
    """Pairs (HR path, LR path) of a set, in order of their names.

    The LR path is None throughout where the set has no LR images of its own
    at this scale. UserError: set missing or empty, LR images that are not
    one for one those of the HR images.
    """
    image_set, hr_paths = get_set(name), _hr_images(name)
    if not hr_paths:
        raise UserError(f"{name} is not there; {how_to_get(name)}.")
    if len(hr_paths) != image_set.count:
        warnings.warn(
            f"{name} has {len(hr_paths)} images here, not the "
            f"{image_set.count} that were published.",
            stacklevel=2,
        )
    folder = image_set.lr and _find_folder(image_set.lr.format(scale=scale))
    if not folder:
        return [(hr, None) for hr in hr_paths]
    lr_paths = {path.stem: path for path in _images_in(folder)}
    wanted = [f"{hr.stem}x{scale}" for hr in hr_paths]
    if len(lr_paths) != len(hr_paths):
        raise UserError(
            f"{name} has {len(hr_paths)} HR images in {hr_paths[0].parent} "
            f"but {len(lr_paths)} LR images in {folder}; complete both, or "
            "remove the LR folder to have its images made."
        )
    for stem in wanted:
        if stem not in lr_paths:
            raise UserError(
                f"{name} lacks the LR image {stem}.png in {folder}; add it, "
                "or remove the LR folder to have its images made."
            )
    return [
        (hr, lr_paths[stem]) for hr, stem in zip(hr_paths, wanted, strict=True)
    ]


# --- the lists -----------------------------------------------------------


def data_list(name, scale=4):
    """Pairs (HR path, LR path) of a set, all there and of fitting sizes."""
    return read_data_list(create_data_list(name, scale))


def create_data_list(name, scale=4):
    """Write the CSV list of a set, `hr,lr`, and return its path.

    Missing LR twins are made first. Both lie in data/lists of the
    workspace, for the data root may be read-only.
    """
    lists = workspace().absolute() / "data" / "lists"
    pairs = find_images(name, scale)
    if pairs[0][1] is None:
        hr_paths = [hr for hr, _ in pairs]
        twins = make_twins(hr_paths, lists / name / f"X{scale}", scale)
        pairs = list(zip(hr_paths, twins, strict=True))
    for hr, lr in pairs:
        check_sizes(hr, lr, scale)
    path = lists / f"{name}_X{scale}.csv"
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", newline="", **TEXT) as file,
    ):
        csv.writer(file).writerows([("hr", "lr"), *pairs])
    return path


def read_data_list(path):
    """Read a CSV list: pairs (HR path, LR path), every file checked."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such list; make it first.")
    pairs = []
    with open(path, newline="", **TEXT) as file:
        rows = csv.reader(file)
        if next(rows, None) != ["hr", "lr"]:
            raise UserError(f"{path} must begin with the line 'hr,lr'.")
        for row in rows:
            if len(row) != 2:
                raise UserError(
                    f"{path}, line {rows.line_num}: there must be two "
                    f"paths, HR and LR, not {len(row)}."
                )
            for name in row:
                if not Path(name).is_file():
                    raise UserError(
                        f"{path}, line {rows.line_num}: the file {name} is "
                        "missing; put it back or make the list again."
                    )
            pairs.append((Path(row[0]), Path(row[1])))
    if not pairs:
        raise UserError(f"{path} lists no images; make the list again.")
    return pairs


# A file name may hold bytes that are no UTF-8.
TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}


def make_twins(hr_paths, folder, scale=4):
    """Make the LR images of `hr_paths` in `folder`; return their paths.

    A twin is made again when its HR file has changed since.
    """
    record = folder / "made_from.json"
    before = read_json(record)
    made_from = {}
    try:
        for hr in tqdm(hr_paths, "LR images", delay=2):
            lr = folder / f"{hr.stem}x{scale}.png"
            if lr in made_from:
                raise UserError(
                    f"Two HR images are called {hr.stem}, one of them {hr}; "
                    "rename one, for their LR images would be one file."
                )
            state = [str(hr), hr.stat().st_size, hr.stat().st_mtime_ns]
            if before.get(lr.name) != state or not lr.exists():
                write_image(lr, shrink(hr, scale))
            made_from[lr] = state
    finally:  # what is made need not be made again after an interruption
        before |= {lr.name: state for lr, state in made_from.items()}
        write_json(record, before)
    return list(made_from)


def shrink(hr, scale=4):
    """The LR image of an HR file, as MATLAB makes it; uint8 (H, W, 3)."""
    image = read_image(hr)
    if min(image.shape[:2]) < scale:
        raise UserError(f"{hr} is smaller than {scale} pixels; take it out.")
    return imresize(modcrop(image, scale), 1 / scale)


def image_size(path):
    """(height, width) of an image file, upright; reads its header only."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            sideways = image.getexif().get(0x0112) in (5, 6, 7, 8)
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
    ) as error:
        raise UserError(
            f"{path} is not an image that can be read; replace or remove it."
        ) from error
    return (width, height) if sideways else (height, width)


def check_sizes(hr, lr, scale=4):
    """UserError unless the LR image is the HR image divided by `scale`."""
    hr_size, lr_size = image_size(hr), image_size(lr)
    if lr_size != tuple(n // scale for n in hr_size):
        raise UserError(
            f"{lr} is {lr_size[1]} x {lr_size[0]} pixels, which is not "
            f"{hr} ({hr_size[1]} x {hr_size[0]}) divided by {scale}; "
            "replace it, or remove its folder to have it made."
        )


# --- fetching ------------------------------------------------------------

DIV2K_HOME = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"
BENCHMARK_HOME = "https://cv.snu.ac.kr/research/EDSR/"


def fetch(name):
    """Download what is missing of a set, check it, and unpack it.

    Goes on where an interrupted download stopped. An archive that was put
    into the data root by hand is taken instead of downloading it. UserError
    if the set cannot be had, with what to do by hand.
    """
    image_set, root = get_set(name), data_root()
    folders = (*image_set.folders, image_set.lr.format(scale=4))
    # benchmark.tar holds HR and LR; of DIV2K each has its own archive.
    for archive, folder in zip(image_set.archives, folders, strict=False):
        if not _find_folder(folder):
            fetch_archive(archive, folder, root)
    hr_paths = _hr_images(name)
    if not hr_paths:
        places = " and ".join(str(root / f) for f in image_set.folders)
        cure = f"put its images into {places} by hand"
        if image_set.by_hand or image_set.files:
            cure = how_to_get(name)
        raise UserError(f"{name} cannot be fetched; {cure}.")
    if len(hr_paths) != image_set.count:
        raise UserError(
            f"{name} has {len(hr_paths)} of its {image_set.count} images in "
            f"{hr_paths[0].parent}; remove that folder and fetch it again."
        )
    print(f"{name} is there: {len(hr_paths)} images.")


def fetch_archive(archive, folder, root):
    """Bring `folder` from an archive into `root`; UserError if it fails.

    The SHA-256 of the first good download is kept in checksums.json; from
    then on no other archive of that name is accepted.
    """
    home = BENCHMARK_HOME if archive == "benchmark.tar" else DIV2K_HOME
    placed, part = root / archive, root / f"{archive}.part"
    by_hand = (
        f"get {archive} elsewhere and put it, packed or unpacked, into {root}"
    )
    try:
        root.mkdir(parents=True, exist_ok=True)
        if placed.exists():
            check_and_unpack(placed, archive, folder, root)
            return
        print(f"Fetching {home}{archive} into {root}")
        download(home + archive, part)
        check_and_unpack(part, archive, folder, root)
        part.unlink()
    except requests.RequestException as error:
        reason = type(error).__name__
        if error.response is not None:
            reason = f"HTTP status {error.response.status_code}"
        raise UserError(
            f"{home}{archive} could not be fetched ({reason}); try again, "
            f"which goes on where it stopped, or {by_hand}."
        ) from error
    except DamagedArchive as error:
        if placed.exists():
            raise UserError(
                f"{placed} is refused, for {error}; replace it."
            ) from error
        part.unlink()  # no use in resuming it
        raise UserError(
            f"{home}{archive} is refused, for {error}; try again, or "
            f"{by_hand}."
        ) from error
    except OSError as error:
        raise UserError(
            f"{archive} cannot be stored in {root} ({error}); make room "
            "there, or set SRGAN_DATA to another folder."
        ) from error


def check_and_unpack(path, archive, folder, root):
    """Unpack a file that is the one known by the name `archive`."""
    record = root / "checksums.json"
    known = json.loads(record.read_text()) if record.exists() else {}
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if known.get(archive, digest) != digest:
        raise DamagedArchive(
            "it is not the file of the first download (if its home changed "
            f"it on purpose, take its line out of {record})"
        )
    unpack(path, Path(folder).parts[0], root)
    write_json(record, known | {archive: digest})
