"""A generator against the test sets: figures for each image, and means."""

import time

from srgan_lib.images import read_image, read_original, write_image
from srgan_lib.metrics import (
    perceptual_distance,
    psnr,
    spectrum_distance,
    ssim,
)

# The figures of every table: key, heading, and which end is better.
# The protocol is the paper's: Y, as many pixels cropped as the scale, means
# over images.
METRICS = {
    "psnr": ("PSNR (dB)", "higher"),
    "ssim": ("SSIM (Wang)", "higher"),
    "ssim_daala": ("SSIM (daala)", "higher"),
    "perceptual": ("perceptual distance", "lower"),
    "spectrum": ("spectrum distance", "lower"),
}


def measure(sr, hr, features, crop=4):
    """Every figure of one image; sr, hr: uint8 (H, W, 3) of equal shape.

    crop: the pixels at each border that PSNR and SSIM leave out.
    """
    return {
        "psnr": psnr(sr, hr, crop),
        "ssim": ssim(sr, hr, crop),
        "ssim_daala": ssim(sr, hr, crop, variant="daala"),
        "perceptual": perceptual_distance(sr, hr, features),
        "spectrum": spectrum_distance(sr, hr),
    }


def mean_of(images):
    """The mean of each figure over images: of dB too, as the field does."""
    images = list(images)
    return {key: sum(i[key] for i in images) / len(images) for key in METRICS}


def evaluate(enlarge, pairs, features, folder=None):
    """Measure `enlarge`, a function from lr to sr, on a test set.

    pairs: (hr path, lr path); features: the content network that judges.
    folder: where the pictures go, if anywhere.
    Returns {"images": {name: figures}, "mean": figures, "judge": name,
    "seconds": spent enlarging}.
    """
    images, seconds = {}, 0.0
    for hr_path, lr_path in pairs:
        lr, begin = read_image(lr_path), time.perf_counter()
        sr = enlarge(lr)
        seconds += time.perf_counter() - begin
        hr, scale = read_original(hr_path, sr), len(sr) // len(lr)
        images[hr_path.stem] = measure(sr, hr, features, crop=scale)
        if folder is not None:
            write_image(folder / f"{hr_path.stem}.png", sr)
    return {
        "judge": features.name,
        "seconds": seconds,
        "mean": mean_of(images.values()),
        "images": images,
    }
