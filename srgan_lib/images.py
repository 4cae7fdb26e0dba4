"""Images: reading, writing, value ranges; each conversion in one place.

An image is a uint8 array (H, W, 3), RGB, 0 to 255; a network sees tensors
(..., 3, H, W). The ranges between the two are made here.
"""

import io
import struct
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from srgan_lib.errors import UserError
from srgan_lib.files import atomic_write

FORMATS = {
    "": "PNG",
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
SAVE_OPTIONS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
}
# The kinds that are read: of each it is known where it tells its bits.
KINDS = (
    *("PNG", "JPEG", "MPO", "WEBP", "AVIF", "TIFF", "JPEG2000"),
    *("BMP", "GIF", "PPM", "PSD", "TGA"),
)

# Mean and standard deviation of ImageNet's RGB values, scaled to [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


# --- files ---------------------------------------------------------------


def read_image(path):
    """Read a picture as uint8 (H, W, 3) RGB, upright.

    Palette, grayscale, 1-bit and CMYK become RGB, an EXIF rotation is
    applied. What would lose information in silence (alpha, 16 bits, several
    frames) and what is no whole picture is a UserError.
    """
    with open_picture(path) as picture:
        if has_alpha(picture):
            raise UserError(
                f"{path} has an alpha channel; flatten it onto a background "
                "first."
            )
        return np.array(upright(picture).convert("RGB"))


def upright(picture):
    """An opened picture, turned as its EXIF says."""
    picture.getexif()
    # Else it is written anew, which fails where one tag is out of order.
    picture.info.pop("exif", None)
    return ImageOps.exif_transpose(picture)


def read_original(path, sr):
    """The hr image of a test set that sr is compared with, cut to its size.

    hr may exceed sr by up to scale - 1 pixels, which lr never saw.
    """
    return read_image(path)[: sr.shape[0], : sr.shape[1]]


@contextmanager
def open_picture(path):
    """Open an image file with Pillow, for as long as it is read.

    What is no whole picture of one frame and 8 bits is a UserError, also
    where Pillow finds out only when it decodes the pixels.
    """
    path = Path(path)
    try:
        with Image.open(path) as picture:
            if fault := _fault(picture):
                raise UserError(f"{path} {fault}.")
            yield picture
        return
    except UserError:
        raise
    except FileNotFoundError:
        reason = "is no such file; check the path"
    except IsADirectoryError:
        reason = "is a folder; name an image file in it"
    except UnidentifiedImageError:
        reason = "is not an image that can be read; convert it to PNG"
        if path.stat().st_size == 0:
            reason = "is an empty file; fetch or save it again"
    except Image.DecompressionBombError:
        reason = "has too many pixels; cut it into smaller pictures"
    except PermissionError:
        reason = "may not be read; change its permissions"
    except MemoryError:
        reason = "needs more memory than there is; cut it into smaller ones"
    except Exception as error:  # Pillow's decoders raise many kinds
        reason = f"is damaged or cut short ({error}); fetch it again"
        if getattr(error, "errno", None):  # of the system, not of Pillow
            reason = f"cannot be read ({error.strerror}); check the path"
    raise UserError(f"{path} {reason}.")


def has_alpha(picture):
    """Whether an opened picture has alpha, or a transparent color."""
    return "transparency" in picture.info or picture.mode[-1] in "Aa"


def _fault(picture):
    """Why an opened picture is refused, and the cure; None if it is fine."""
    if picture.format not in KINDS:
        kind = picture.format
        return f"is of the kind {kind}, which is not read; convert it to PNG"
    if _is_deep(picture):
        return "has more than 8 bits a channel; convert it to 8 bits first"
    # An MPO is a phone's JPEG with previews behind it: no animation.
    if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
        return "is animated or has pages or layers; save one picture of it"
    return None


def _is_deep(picture):
    """Whether a channel has more than 8 bits in the file.

    Pillow narrows colors to 8 in silence; each kind says it elsewhere.
    """
    if picture.mode[0] in "IF":
        return True
    match picture.format:
        case "PNG":
            return ";16" in str(picture.tile)
        case "TIFF":  # BitsPerSample
            return max(picture.tag_v2.get(258, (1,))) > 8
        case "PPM":  # the largest value, where it is not 255
            arguments = picture.tile[0][3]
            return not isinstance(arguments, str) and arguments[1] > 255
        case "AVIF":  # the flag high_bitdepth of AV1's configuration
            data = Path(picture.filename).read_bytes()
            return bool(data[data.index(b"av1C") + 6] & 64)
        case "JPEG2000":  # of each band: bits - 1, and 128 if signed
            data = Path(picture.filename).read_bytes()
            first = data.index(b"\xff\x4f\xff\x51") + 42
            depths = data[first : first + 3 * len(picture.getbands()) : 3]
            return any(depth % 128 > 7 for depth in depths)
    return False


def write_image(path, image):
    """Write uint8 (H, W, 3) or (H, W), whole or not at all.

    The suffix tells the format (FORMATS), PNG if there is none.
    """
    image = np.asarray(image)
    gray = image.ndim == 2
    color = image.ndim == 3 and image.shape[2] == 3
    if image.dtype != np.uint8 or not (gray or color) or image.size == 0:
        raise ValueError(
            "write_image takes uint8 (H, W, 3) or (H, W), "
            f"not {image.dtype} {image.shape}"
        )
    save_picture(path, Image.fromarray(image))


def save_picture(path, picture, **extras):
    """Write a picture of Pillow; extras: what to put in beside its pixels."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        known = " ".join(filter(None, FORMATS))
        raise UserError(f"{path}: unknown kind of image; use one of {known}.")
    kind = FORMATS[path.suffix.lower()]
    # In memory first: Pillow, writing a file, overlooks that a disk is full.
    encoded = io.BytesIO()
    options = SAVE_OPTIONS.get(kind, {}) | extras
    try:
        picture.save(encoded, kind, **options)
    except (OSError, ValueError, struct.error) as error:
        size = f"{picture.width} x {picture.height}"
        raise UserError(
            f"{path}: {kind} cannot hold {size} pixels of the kind "
            f"{picture.mode}; use {'.tif' if kind == 'PNG' else '.png'}."
        ) from error
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())


# --- arrays --------------------------------------------------------------


def modcrop(image, scale):
    """Crop (H, W, ...) at bottom and right to multiples of `scale`."""
    height, width = image.shape[:2]
    if min(height, width) < scale:
        raise ValueError(
            f"an image of {height} x {width} is too small for scale {scale}"
        )
    return image[: height - height % scale, : width - width % scale]


def to_uint8(x):
    """Clip to [0, 255], round half away from zero; array or tensor."""
    if (x != x).any():
        raise ValueError("to_uint8 met a value that is not a number (NaN)")
    x = x.clip(0, 255)
    # Exact where floor(x + 0.5) is not: just below a half.
    whole = x // 1
    whole = whole + (x - whole >= 0.5)
    if isinstance(x, torch.Tensor):
        return whole.to(torch.uint8)
    return whole.astype(np.uint8)


def rgb_to_y(image, quantize=True):
    """Luma of uint8 (H, W, 3) as float64 (H, W), 16 to 235 (BT.601).

    As MATLAB's rgb2ycbcr, which rounds to whole levels on uint8;
    `quantize=False` keeps the fraction.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"rgb_to_y takes uint8 (H, W, 3), not {image.dtype} {image.shape}"
        )
    # Whole coefficients make the sum exact, and so the rounding. A strip at
    # a time stays in the cache, which is three times as fast.
    coefficients = np.array([65481.0, 128553.0, 24966.0])
    y = np.empty(image.shape[:2])
    for top in range(0, len(y), 16):
        strip = image[top : top + 16].reshape(-1, 3) @ coefficients
        strip /= 255000
        strip += 16.5 if quantize else 16
        y[top : top + 16] = strip.reshape(-1, y.shape[1])
    return np.floor(y, out=y) if quantize else y


# --- tensors -------------------------------------------------------------


def to_tensor(image):
    """uint8 array (H, W, 3) -> uint8 tensor (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def to_image(tensor):
    """uint8 tensor (3, H, W) -> uint8 array (H, W, 3)."""
    return np.ascontiguousarray(tensor.cpu().numpy().transpose(1, 2, 0))


def _per_channel(values, like):
    return torch.tensor(values, device=like.device).reshape(3, 1, 1)


def normalize_lr(lr):
    """uint8 (..., 3, H, W) -> ImageNet-normalized float32."""
    _require_uint8(lr)
    mean, std = _per_channel(IMAGENET_MEAN, lr), _per_channel(IMAGENET_STD, lr)
    return (lr.float() / 255 - mean) / std


def normalize_hr(hr):
    """uint8 (..., 3, H, W) -> float32 in [-1, 1]."""
    _require_uint8(hr)
    return hr.float() / 127.5 - 1


def denormalize_sr(sr):
    """Float (..., 3, H, W) in [-1, 1] -> uint8, clipped and rounded."""
    return to_uint8((sr.detach().float() + 1) * 127.5)


def _require_uint8(tensor):
    if tensor.dtype != torch.uint8:
        raise ValueError(f"expected a uint8 tensor, not {tensor.dtype}")
