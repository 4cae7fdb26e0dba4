"""A photograph as its file holds it: colors, alpha, color profile, EXIF.

Training and measuring want nothing but colors (`images.read_image`). Who
brings a photograph wants back all that came with it.
"""

import mimetypes
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from srgan_lib.errors import UserError
from srgan_lib.images import has_alpha, open_picture, save_picture, upright
from srgan_lib.imresize import imresize

GRAY_MODES = ("1", "L", "LA", "La")
COLOR_MODES = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX")

# What holds gray, alpha, profile, EXIF, and pictures of any size (but for
# JPEG and alpha).
JPEG = (".jpg", ".jpeg")
TIFF = (".tif", ".tiff")
SUFFIXES = (".png", *JPEG, *TIFF)
# What fits in: pixels a side and bytes of EXIF; bytes of pixels (a TIFF
# counts to 4 GiB; the rest is for profile and EXIF).
JPEG_SIDE, JPEG_EXIF = 65_500, 65_533
TIFF_BYTES = 2**32 - 2**24

# EXIF's tags for width and height: the picture's, and those of its table
# of camera settings.
SIZE_TAGS, CAMERA_SIZE_TAGS = (256, 257), (40962, 40963)
CAMERA_TABLE, PLACE_TABLE = 34665, 34853
FORMAT_TABLE = 40965  # within the camera's
# What is true of the file that was read, and not of the next one: its
# orientation, and how a TIFF stores bits, strips, tiles, palette, profile.
STORAGE_TAGS = (
    *(254, 255, 258, 259, 262, 263, 266, 273, 274, 277, 278, 279, 284, 317),
    *(320, 322, 323, 324, 325, 330, 338, 339, 347, 513, 514, 529, 530, 531),
    *(532, 700, 34675),
)


# --- which files ---------------------------------------------------------


def find_photographs(places):
    """The paths of files as they are, of folders their image files, sorted.

    What is an image is told by the name; what lies deeper is left.
    """
    paths = []
    for place in map(Path, places):
        paths += images_in(place) if is_folder(place) else [place]
    return list(dict.fromkeys(paths))


def images_in(folder):
    try:
        inside = sorted(filter(looks_like_image, folder.iterdir()))
    except OSError as error:
        raise cannot_reach(folder, error) from error
    if not inside:
        raise UserError(f"{folder} has no image files; name another.")
    return inside


def look_up(path):
    """What the system knows of a file; None if it is not there."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise cannot_reach(path, error) from error


def cannot_reach(path, error):
    return UserError(
        f"{path} cannot be reached ({error.strerror}); change its permissions "
        "or name another."
    )


def is_folder(path):
    found = look_up(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def identity(path):
    """What two paths share if they are one file."""
    # Names do not tell: some file systems take a.png and A.png for one.
    found = look_up(path)
    return (found.st_dev, found.st_ino) if found else path.resolve()


def named_as_image(path):
    """By the usual names too: .webp is not in Python's strict list."""
    kind, _ = mimetypes.guess_type(path.name, strict=False)
    return (kind or "").startswith("image/")


def looks_like_image(path):
    hidden = path.name.startswith(".")
    return named_as_image(path) and not hidden and path.is_file()


def plan_outputs(paths, out):
    """{input: output}; no two outputs alike, and none that is an input.

    out: a folder, for NAME.png of each input; or, for a single input, a
    file with one of SUFFIXES.
    """
    out = Path(out)
    if is_folder(out) or not named_as_image(out):
        return check_outputs({p: out / f"{p.stem}.png" for p in paths})
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{out}: such files do not keep all that photographs have; take "
            f"one of {' '.join(SUFFIXES)}."
        )
    if len(paths) != 1:
        raise UserError(
            f"{out} is one file, for {len(paths)} photographs; name a folder."
        )
    return check_outputs({paths[0]: out})


def check_outputs(outputs):
    """Refuse what would be lost: an input, or one of two outputs."""
    inputs, seen = {identity(path) for path in outputs}, {}
    for path, target in outputs.items():
        if identity(target) in inputs:
            raise UserError(
                f"{target} is itself a photograph to enlarge; name another "
                "folder with -o."
            )
        # Some file systems do not tell a.png from A.png.
        first = seen.setdefault(str(target).casefold(), path)
        if first is not path:
            raise UserError(
                f"{first} and {path} would both become {target}; enlarge "
                "them into two folders."
            )
    return outputs


# --- reading, enlarging, writing -----------------------------------------


@dataclass
class Photograph:
    """image: uint8 (H, W, 3), upright; alpha: uint8 (H, W), or None."""

    image: np.ndarray
    alpha: np.ndarray | None = None
    gray: bool = False  # one channel in the file; three equal ones here
    icc_profile: bytes | None = None
    exif: Image.Exif = field(default_factory=Image.Exif)


def read_photograph(path):
    """Read a photograph with all that is kept of it.

    More than 8 bits, several frames, inks (CMYK) and what is no whole
    picture are a UserError.
    """
    with open_picture(path) as picture:
        mode = picture.mode
        if mode not in GRAY_MODES + COLOR_MODES:
            raise UserError(
                f"{path} has colors of the kind {mode}; convert it to RGB "
                "first."
            )
        exif = kept_exif(picture.getexif())  # read while the file is open
        kind = "RGBA" if has_alpha(picture) else "RGB"
        pixels = np.asarray(upright(picture).convert(kind))
        return Photograph(
            image=np.ascontiguousarray(pixels[..., :3]),
            alpha=pixels[..., 3] if pixels.shape[2] == 4 else None,
            gray=mode in GRAY_MODES,
            icc_profile=picture.info.get("icc_profile"),
            exif=exif,
        )


def enlarge_photograph(photograph, enlarge):
    """Enlarge colors and alpha; the rest stays.

    enlarge: from uint8 (H, W, 3) to uint8 (sH, sW, 3). Alpha, which is no
    photograph, is enlarged by bicubic interpolation.
    """
    image, alpha = photograph.image, photograph.alpha
    if alpha is None:
        return replace(photograph, image=enlarge(image))
    sr = enlarge(bleed(image, alpha))
    alpha = imresize(alpha, sr.shape[0] // alpha.shape[0])
    return replace(photograph, image=sr, alpha=alpha)


def bleed(image, alpha):
    """Give the pixels that nobody sees the color of the nearest seen one.

    What a file holds there is often black, and would darken the rim.
    """
    hidden = alpha == 0
    if hidden.all() or not hidden.any():
        return image
    rows, columns = ndimage.distance_transform_edt(
        hidden, return_distances=False, return_indices=True
    )
    return image[rows, columns]


def check_fits(path, photograph, scale):
    """Refuse, before the work, what a file of that kind cannot hold.

    scale: how many times larger the photograph will be.
    """
    height, width = (scale * side for side in photograph.image.shape[:2])
    size = f"a picture of {width} x {height} pixels is too large"
    alpha, exif = photograph.alpha is not None, photograph.exif.tobytes()
    channels = (1 if photograph.gray else 3) + alpha
    kind, fault = path.suffix.lower(), None
    if kind in JPEG and alpha:
        fault = "JPEG holds no alpha"
    elif kind in JPEG and max(height, width) > JPEG_SIDE:
        fault = f"{size} for JPEG, which holds {JPEG_SIDE} a side"
    elif kind in JPEG and len(exif) > JPEG_EXIF:
        fault = (
            f"the EXIF of {len(exif)} bytes is too long for JPEG, which "
            f"holds {JPEG_EXIF}"
        )
    elif kind in TIFF and height * width * channels > TIFF_BYTES:
        fault = f"{size} for TIFF, which holds 4 GiB"
    if fault:
        raise UserError(f"{path}: {fault}; use .png.")


def write_photograph(path, photograph):
    """Write a photograph; the suffix tells the format."""
    picture = Image.fromarray(photograph.image)
    if photograph.gray:
        picture = picture.convert("L")
    if photograph.alpha is not None:
        picture.putalpha(Image.fromarray(photograph.alpha))
    extras = {}
    if photograph.exif:
        extras["exif"] = sized_exif(photograph.exif, picture.size).tobytes()
    if photograph.icc_profile:
        extras["icc_profile"] = photograph.icc_profile
    save_picture(path, picture, **extras)


def is_writable(tag, value):
    """Whether Pillow can write it: not a number that is stored as text."""
    lone = Image.Exif()
    lone[tag] = value
    try:
        lone.tobytes()
    except Exception:  # as many kinds as ways to be wrong
        return False
    return True


def drop_unwritable(exif):
    """Delete the tags of EXIF, and of its tables, that Pillow cannot write."""
    tables = {CAMERA_TABLE, PLACE_TABLE} & {*exif}
    for table in tables:
        inner = exif.get_ifd(table)
        for tag in list(inner):
            value = inner[tag]
            if tag == FORMAT_TABLE:
                value = exif.get_ifd(tag)
            if not is_writable(table, {tag: value}):
                del inner[tag]
    for tag in {*exif} - tables:
        if not is_writable(tag, exif[tag]):
            del exif[tag]


def kept_exif(exif):
    """A copy of a file's EXIF, without what is true of that file alone.

    What is damaged is dropped from both.
    """
    drop_unwritable(exif)
    kept = Image.Exif()
    kept.load(exif.tobytes())
    for tag in STORAGE_TAGS:
        kept.pop(tag, None)
    return kept


def sized_exif(exif, size):
    """A copy of EXIF, with (width, height) corrected where it has them."""
    sized = kept_exif(exif)
    tables = [(sized, SIZE_TAGS)]
    if CAMERA_TABLE in sized:
        tables.append((sized.get_ifd(CAMERA_TABLE), CAMERA_SIZE_TAGS))
    for table, tags in tables:
        for tag, pixels in zip(tags, size, strict=True):
            if tag in table:
                table[tag] = pixels
    return sized
