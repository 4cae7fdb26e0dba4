"""MATLAB's imresize, byte for byte.

Benchmarks make their low-resolution images with it, so whoever measures
against published figures has to resize as it does. The kernels are those of
Keys, "Cubic convolution interpolation", 1981 (a = -0.5), and below.
"""

import math
from numbers import Real

import numpy as np

# --- kernels: x is the distance in pixels -----------------------------------


def box(x):
    """1 for -1/2 <= x < 1/2: the nearest neighbor."""
    return ((-0.5 <= x) & (x < 0.5)).astype(float)


def linear(x):
    """A triangle over [-1, 1]."""
    return np.maximum(1 - np.abs(x), 0)


def cubic(x):
    """Keys' cubic over [-2, 2], a = -0.5."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return near * (x <= 1) + far * ((1 < x) & (x <= 2))


KERNELS = {"nearest": (box, 1), "bilinear": (linear, 2), "bicubic": (cubic, 4)}
BORDERS = ("symmetric", "replicate")


# --- which input pixels make an output pixel --------------------------------


def contributions(
    in_size,
    out_size,
    scale,
    kernel="bicubic",
    antialias=True,
    border="symmetric",
):
    """Weights and indices (out_size, taps): out = sum(weights * in[indices]).

    When shrinking with `antialias` the kernel is widened by 1 / scale, so
    that every input pixel counts; `nearest` never is. Beyond the border the
    image is mirrored with its edge repeated (`symmetric`, MATLAB today) or
    the edge goes on (`replicate`, older MATLAB).
    """
    function, support = KERNELS[kernel]
    stretch = 1.0
    if scale < 1 and antialias and kernel != "nearest":
        stretch, support = scale, support / scale
    # Output pixel centers in input coordinates; MATLAB counts from 1.
    center = np.arange(1, out_size + 1) / scale + 0.5 * (1 - 1 / scale)
    first = np.floor(center - support / 2)
    indices = first[:, None] + np.arange(math.ceil(support) + 2)
    weights = stretch * function(stretch * (center[:, None] - indices))
    weights /= weights.sum(axis=1, keepdims=True)

    used = weights.any(axis=0)
    weights, indices = weights[:, used], indices[:, used].astype(int) - 1
    if border == "replicate":
        return weights, indices.clip(0, in_size - 1)
    indices = indices % (2 * in_size)
    return weights, np.minimum(indices, 2 * in_size - 1 - indices)


# --- the image --------------------------------------------------------------


def imresize(
    image, scale, kernel="bicubic", antialias=True, border="symmetric"
):
    """Resize (H, W) or (H, W, C), uint8 or float, to ceil(H s) x ceil(W s).

    Kernels: nearest, bilinear, bicubic; for `antialias` and `border`
    (symmetric, replicate) see `contributions`. Height first, then width.
    uint8 is rounded after both passes, halves away from zero, as MATLAB
    does; float stays unrounded and is not clipped. (At scales like 1.1,
    whose weights no float holds exactly, the last bit of a sum decides
    which way a half goes: about one pixel in a thousand, by one level.)
    """
    image = np.asarray(image)
    _check(image, scale, kernel, border)
    options = scale, kernel, antialias, border
    if image.ndim == 3 and image.shape[2] > 4:  # blocks grow as C squared
        planes = image.transpose(2, 0, 1)
        return np.stack([imresize(p, *options) for p in planes], axis=2)
    if image.ndim == 3:
        height, width, channels = image.shape
    else:
        (height, width), channels = image.shape, 1
    out_height, out_width = math.ceil(height * scale), math.ceil(width * scale)
    rows = contributions(height, out_height, *options)
    columns = contributions(width, out_width, *options)

    rounds = image.dtype == np.uint8
    work = np.float32 if rounds and _exact(rows, columns) else np.float64

    def finish(values):
        if rounds:
            values += 0.5
            np.clip(values, 0, 255.5, out=values)
            np.floor(values, out=values)
        return values

    # Only a band around the diagonal of the resizing matrices is not zero:
    # multiply with blocks along it, one strip of output rows at a time.
    block = min(max(int(64 * scale), 1), 32)
    source = image.reshape(height, width * channels)
    result = np.empty((out_height, out_width * channels), image.dtype)
    across = [
        (outs, ins, np.ascontiguousarray(matrix.T))
        for outs, ins, matrix in band_blocks(*columns, channels, block, work)
    ]
    middle = np.empty((block, source.shape[1]), work)
    strip = np.empty((block, result.shape[1]), work)
    for out_rows, in_rows, matrix in band_blocks(*rows, 1, block, work):
        middle, strip = middle[: len(matrix)], strip[: len(matrix)]
        small_product(matrix, source[in_rows].astype(work), middle)
        finish(middle)
        for out_columns, in_columns, matrix in across:
            small_product(middle[:, in_columns], matrix, strip[:, out_columns])
        result[out_rows] = finish(strip)
    return result.reshape(out_height, out_width, *image.shape[2:])


def _check(image, scale, kernel, border):
    floating = np.issubdtype(image.dtype, np.floating)
    if image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(
            f"imresize: image must be (H, W) or (H, W, C), not {image.shape}"
        )
    if image.dtype != np.uint8 and not floating:
        raise ValueError(
            f"imresize: image must be uint8 or float, not {image.dtype}"
        )
    if floating and not np.isfinite(image).all():
        raise ValueError("imresize: image holds NaN or infinite values")
    if not isinstance(scale, Real) or not 0 < scale < math.inf:
        raise ValueError(
            f"imresize: scale must be a positive number, not {scale!r}"
        )
    if kernel not in KERNELS:
        raise ValueError(
            f"imresize: unknown kernel {kernel!r}; one of {list(KERNELS)}"
        )
    if border not in BORDERS:
        raise ValueError(
            f"imresize: unknown border {border!r}; one of {list(BORDERS)}"
        )


def _exact(*contributions):
    """Whether float32 adds up whole numbers to 255 without any error.

    If all weights are multiples of 2**-14, as at scales 2, 4, 8, 1/2, 1/4,
    so is every sum; below 512 it needs 9 + 14 of the 24 bits of float32.
    """
    return all(
        (weights * 2**14 % 1 == 0).all()
        and (255 * np.abs(weights).sum(axis=1) < 512).all()
        for weights, _ in contributions
    )


def band_blocks(weights, indices, channels, block, dtype):
    """Cut the banded resizing matrix into dense blocks of `block` outputs.

    Yields (output slice, input slice, matrix); a pixel has `channels`
    interleaved values.
    """
    channel = np.arange(channels)
    for start in range(0, len(weights), block):
        part = weights[start : start + block, :, None]
        taps = indices[start : start + block, :, None]
        low, high, size = taps.min(), taps.max() + 1, len(part)
        matrix = np.zeros((size, channels, high - low, channels), dtype)
        row = np.arange(size)[:, None, None]
        # Mirrored at the border, a pixel comes twice: add, do not assign.
        np.add.at(matrix, (row, channel, taps - low, channel), part)
        yield (
            slice(start * channels, (start + size) * channels),
            slice(low * channels, high * channels),
            matrix.reshape(size * channels, -1),
        )


def small_product(a, b, out):
    """out = a @ b, in pieces for which BLAS starts no threads.

    For products this small, waking threads takes longer than the work; on
    a busy machine ten times as long.
    """
    rows, columns = out.shape
    if a.size * columns <= 2**18 or out.size == 1:
        np.matmul(a, b, out=out)
    elif rows > columns:
        half = rows // 2
        small_product(a[:half], b, out[:half])
        small_product(a[half:], b, out[half:])
    else:
        half = columns // 2
        small_product(a, b[:, :half], out[:, :half])
        small_product(a, b[:, half:], out[:, half:])
