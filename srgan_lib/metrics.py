"""How near a picture is to its original: PSNR, two SSIMs, two distances.

Papers measure on luma and leave out a border as wide as the scale: crop=4,
channel="y" for x4. sr and hr are uint8 (H, W, 3) of equal shape.
"""

import itertools
import math

import numpy as np
import torch

from srgan_lib.images import normalize_hr, rgb_to_y, to_tensor
from srgan_lib.imresize import band_blocks, small_product

PEAK, MIDDLE = 255, 128
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


def _require_pair(sr, hr):
    for name, image in (("sr", sr), ("hr", hr)):
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            kind = getattr(image, "dtype", type(image).__name__)
            raise ValueError(f"{name} must be a uint8 array, not {kind}")
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"{name} must be (H, W, 3), not {image.shape}")
    if sr.shape != hr.shape:
        raise ValueError(
            f"sr {sr.shape} and hr {hr.shape} differ in shape; "
            "crop hr to a multiple of the scale (modcrop) before shrinking"
        )


def _planes(sr, hr, crop, channel, quantize, least):
    """Pairs of float64 (H, W) to compare: one of luma, or three of RGB."""
    _require_pair(sr, hr)
    if crop < 0 or min(hr.shape[:2]) - 2 * crop < least:
        raise ValueError(
            f"{hr.shape[0]} x {hr.shape[1]} with a border of {crop} left out "
            f"is too small: at least {least} x {least} must remain"
        )
    inner = slice(crop, -crop or None)
    sr, hr = sr[inner, inner], hr[inner, inner]
    if channel == "y":
        return [(rgb_to_y(sr, quantize), rgb_to_y(hr, quantize))]
    if channel == "rgb":
        return [(sr[..., c] * 1.0, hr[..., c] * 1.0) for c in range(3)]
    raise ValueError(f'unknown channel {channel!r}; one of "y", "rgb"')


def psnr(sr, hr, crop=4, channel="y", quantize=True):
    """Peak signal-to-noise ratio in dB; inf for identical images.

    channel: "y", BT.601 luma, rounded to whole levels if `quantize`, or
    "rgb", the mean over all three. A set's PSNR is the mean of its images'.
    """
    errors = []
    for a, b in _planes(sr, hr, crop, channel, quantize, least=1):
        a -= b  # in place: fresh memory takes as long as the sums
        errors.append(np.square(a, out=a).mean())
    error = np.mean(errors)
    return 10 * math.log10(PEAK**2 / error) if error else math.inf


# --- structural similarity ---------------------------------------------------


def _gaussian_window(size):
    """Wang's: 11 Gaussian weights, sigma 1.5, only where all of them fit."""
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    weights = np.tile(taps / taps.sum(), (size - 10, 1))
    return weights, np.arange(size - 10)[:, None] + np.arange(11)


def _daala_window(size, height, longest):
    """Daala's: whole weights of sum 256, sigma 1.5 H / 256, cut at borders."""
    sigma = 1.5 * height / 256
    smallest = math.sqrt(math.pi / 2) * sigma / 256
    reach = sigma * math.sqrt(-2 * math.log(smallest)) if smallest < 1 else 0
    offset = np.arange(1, min(int(reach), longest - 1) + 1)
    scale = 256 / (math.sqrt(2 * math.pi) * sigma)
    side = np.floor(scale * np.exp(-0.5 * (offset / sigma) ** 2) + 0.5)
    taps = np.concatenate([side[::-1], [256 - 2 * side.sum()], side])
    indices = np.arange(size)[:, None] + np.arange(len(taps)) - len(side)
    inside = (indices >= 0) & (indices < size)
    return taps * inside, indices.clip(0, size - 1)


def ssim(sr, hr, crop=4, channel="y", variant="wang", quantize=True):
    """Structural similarity, 1.0 for identical images.

    variant "wang" is that of Wang et al. 2004, MATLAB and most papers: an
    11 x 11 Gaussian window, where it fits. "daala" is what Ledig et al.
    2017 report: Xiph Daala's dump_ssim, a window that grows with the
    height, cut at the borders. Say which. channel, quantize: see psnr.
    """
    if variant not in ("wang", "daala"):
        raise ValueError(
            f'unknown SSIM variant {variant!r}; one of "wang", "daala"'
        )
    least = 11 if variant == "wang" else 1
    planes = _planes(sr, hr, crop, channel, quantize, least)
    height, width = planes[0][0].shape
    if variant == "wang":
        rows, columns = _gaussian_window(height), _gaussian_window(width)
    else:
        window = height, min(height, width)
        rows = _daala_window(height, *window)
        columns = _daala_window(width, *window)
    return float(np.mean([_ssim(a, b, rows, columns) for a, b in planes]))


def _ssim(x, y, rows, columns):
    """Mean of the local similarity, weighted by how much window there is.

    rows, columns: the window as (weights, indices), see band_blocks.
    """
    (row_weights, row_indices), (weights, indices) = rows, columns
    row_mass, mass = row_weights.sum(axis=1), weights.sum(axis=1)
    rows = row_weights / row_mass[:, None], row_indices
    columns = weights / mass[:, None], indices
    across = [
        (outs, ins, np.ascontiguousarray(matrix.T))
        for outs, ins, matrix in band_blocks(*columns, 1, 32, np.float32)
    ]
    total = 0.0
    # Single precision suffices about the middle of the scale.
    single = {"dtype": np.float32, "casting": "same_kind"}  # in one pass
    x, y = (np.subtract(image, MIDDLE, **single) for image in (x, y))
    # Strip by strip, so that the moments never leave the cache.
    for outs, ins, matrix in band_blocks(*rows, 1, 24, np.float32):
        a, b = x[ins], y[ins]
        s, d = a + b, a - b
        middle = np.empty((4, len(matrix), x.shape[1]), np.float32)
        for image, out in zip((s, d, s * s, d * d), middle, strict=True):
            small_product(matrix, image, out)
        middle = middle.reshape(-1, x.shape[1])
        moments = np.empty((len(middle), len(mass)), np.float32)
        for out_columns, in_columns, matrix_across in across:
            small_product(
                middle[:, in_columns], matrix_across, moments[:, out_columns]
            )
        # The formula in s and d: 4 a b = s^2 - d^2, 2 (a^2 + b^2) = s^2 + d^2.
        s, d, s_variance, d_variance = moments.reshape(4, -1, len(mass))
        s_variance -= s * s  # E[s^2] - E[s]^2
        d_variance -= d * d
        ss, dd = np.square(s + 2 * MIDDLE), np.square(d)
        similarity = (ss - dd + 2 * C1) * (s_variance - d_variance + 2 * C2)
        similarity /= (ss + dd + 2 * C1) * (s_variance + d_variance + 2 * C2)
        total += row_mass[outs] @ similarity @ mass
    return total / (row_mass.sum() * mass.sum())


# --- sharpness and perception ------------------------------------------------


def radial_spectrum(image):
    """Mean log10 power of luma per radial frequency.

    Returns frequencies in cycles per pixel, up to 0.5, and the mean log10 of
    power in squared levels: of white noise of variance v, 0.25 below log10 v.
    A Hann window keeps the image's borders out of it; what lies below the
    noise of rounding to whole levels, 1/12, does not count.
    """
    y = rgb_to_y(image, quantize=False)
    height, width = y.shape
    if min(y.shape) < 16:
        raise ValueError(
            f"radial_spectrum needs 16 x 16 pixels, not {height} x {width}"
        )
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in y.shape))
    wave = np.fft.rfft2((y - np.average(y, weights=window)) * window)
    power = np.log10(np.abs(wave) ** 2 / np.square(window).sum() + 1 / 12)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    bins = min(y.shape) // 2
    ring = (radius * 2 * bins).astype(int).ravel()
    mean = np.bincount(ring, power.ravel()) / np.bincount(ring)
    # Without the innermost ring, which holds the mean.
    return (np.arange(1, bins) + 0.5) / (2 * bins), mean[1:bins]


def spectrum_distance(sr, hr):
    """Root mean square difference of the radial log power spectra.

    In decades: 1 means that power is off by a factor of 10 on average. Too
    blurred and too noisy both count; 0 does not mean the same image.
    """
    _require_pair(sr, hr)
    (_, a), (_, b) = radial_spectrum(sr), radial_spectrum(hr)
    return float(np.sqrt(np.mean((a - b) ** 2)))


def perceptual_distance(sr, hr, features):
    """Distance in the features of a frozen network, features.name.

    features: module, (N, 3, H, W) in [-1, 1] -> a tensor (N, C, h, w), a
    list or a dictionary of them. At each place both feature vectors are
    scaled to length 1; the squared distance is averaged over places, then
    layers: LPIPS (Zhang et al. 2018) without its linear heads. From 0 to at
    most 4. Figures of different networks cannot be compared.
    """
    _require_pair(sr, hr)
    parameter = next(features.parameters(), torch.empty(0))
    with torch.inference_mode():
        images = torch.stack([to_tensor(sr), to_tensor(hr)])
        layers = features(normalize_hr(images.to(parameter.device)))
        if isinstance(layers, torch.Tensor):
            layers = [layers]
        elif isinstance(layers, dict):
            layers = layers.values()
        distances = []
        for layer in layers:
            a, b = torch.nn.functional.normalize(layer.float(), dim=1)
            distances.append((a - b).square().sum(dim=0).mean())
        return torch.stack(distances).mean().item()


# --- what an adversarial stage can do wrong ----------------------------------


def grid_amplitude(sr, hr, period=4):
    """How strong a pattern of period x period pixels lies over sr, in levels.

    The standard deviation of the mean error of luma at each place of a cell.
    """
    _require_pair(sr, hr)
    error = rgb_to_y(sr, quantize=False) - rgb_to_y(hr, quantize=False)
    rows, columns = (size // period for size in error.shape)
    if min(rows, columns) == 0:
        raise ValueError(f"{error.shape} pixels hold no cell of {period}")
    error = error[: rows * period, : columns * period]
    cells = error.reshape(rows, period, columns, period)
    return float(cells.mean(axis=(0, 2)).std())


def mesh_share(image, period=4, window=32, factor=10, least=0.5):
    """Share of an image's windows that have a pattern of `period` pixels.

    Windows of window x window pixels of luma, overlapping by half. A window
    has a pattern where a wave of period or period / 2, across, down or both,
    is `least` gray levels high and its power `factor` times the mean of those
    around it. By chance some of a noisy image's windows have one, too.
    """
    y = rgb_to_y(image, quantize=False)
    if min(y.shape) < window:
        raise ValueError(f"{y.shape} pixels hold no window of {window}")
    windows = np.lib.stride_tricks.sliding_window_view(y, (window, window))
    windows = windows[:: window // 2, :: window // 2]
    windows = windows.reshape(-1, window, window)
    taper = np.outer(np.hanning(window), np.hanning(window))
    windows = (windows - windows.mean(axis=(1, 2), keepdims=True)) * taper
    power = np.abs(np.fft.fft2(windows)) ** 2
    visible = (least * taper.sum() / 2) ** 2  # of a wave of that height

    meshed = np.zeros(len(power), dtype=bool)
    frequencies = range(0, window, window // period)
    around = (-3, -2, 0, 2, 3)  # the taper spreads a wave to those between
    for v, u in itertools.product(frequencies, frequencies):
        if v or u:
            others = [
                power[:, (v + dv) % window, (u + du) % window]
                for dv in (around if v else (0,))  # on an axis along it only,
                for du in (around if u else (0,))  # for beside it is more
                if dv or du
            ]
            wave = power[:, v, u]
            mean = np.mean(others, axis=0)
            meshed |= (wave > visible) & (wave > factor * mean)
    return float(meshed.mean())


def color_shift(sr, reference):
    """How far the mean of a channel is off, in levels, where it is most."""
    _require_pair(sr, reference)
    means = (image.mean(axis=(0, 1)) for image in (sr, reference))
    return float(np.abs(np.subtract(*means)).max())
