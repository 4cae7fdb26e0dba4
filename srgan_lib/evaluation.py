"""A generator against the test sets: figures for each image, and means."""

import time

from srgan_lib.images import read_image, write_image
from srgan_lib.metrics import (
    perceptual_distance,
    psnr,
    spectrum_distance,
    ssim,
)

# The figures of every table: key, heading, and which end is better.
# The protocol is the paper's: Y, 4 pixels cropped, means over images.
METRICS = {
    "psnr": ("PSNR (dB)", "higher"),
    "ssim": ("SSIM (Wang)", "higher"),
    "ssim_daala": ("SSIM (daala)", "higher"),
    "perceptual": ("perceptual distance", "lower"),
    "spectrum": ("spectrum distance", "lower"),
}


def measure(sr, hr, features):
    """Every figure of one image; sr, hr: uint8 (H, W, 3) of equal shape."""
    return {
        "psnr": psnr(sr, hr),
        "ssim": ssim(sr, hr),
        "ssim_daala": ssim(sr, hr, variant="daala"),
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
        begin = time.perf_counter()
        sr = enlarge(read_image(lr_path))
        seconds += time.perf_counter() - begin
        # hr may exceed sr by up to scale - 1 pixels, which lr never saw.
        hr = read_image(hr_path)[: sr.shape[0], : sr.shape[1]]
        images[hr_path.stem] = measure(sr, hr, features)
        if folder is not None:
            write_image(folder / f"{hr_path.stem}.png", sr)
    return {
        "judge": features.name,
        "seconds": seconds,
        "mean": mean_of(images.values()),
        "images": images,
    }
