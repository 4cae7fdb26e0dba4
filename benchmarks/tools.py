"""Resizing, measuring, upscaling, cropping, beside other libraries."""

import functools
import itertools
import time

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from skimage.transform import resize
from torch.nn import functional as F

from benchmarks import tutorial
from benchmarks.steps import configuration, decode, worker_counts
from benchmarks.timing import by_turns, summary
from srgan_lib import training
from srgan_lib.data_lists import PHOTOS, data_list, is_present
from srgan_lib.datasets import EpochBatches, SRDataset
from srgan_lib.images import (
    read_image,
    rgb_to_y,
    to_image,
    to_tensor,
    to_uint8,
)
from srgan_lib.imresize import imresize
from srgan_lib.inference import upscale
from srgan_lib.metrics import psnr, ssim
from srgan_lib.models import Generator


def photograph():
    """Two megapixels, 980 x 2048: a bundled photograph and its mirror."""
    image = read_image(PHOTOS / "mountain.webp")[:, :1024]
    return np.concatenate([image, image[:, ::-1]], axis=1)


# --- resizing ----------------------------------------------------------------


def by_pillow(image, scale):
    height, width = (round(size * scale) for size in image.shape[:2])
    picture = Image.fromarray(image)
    return np.asarray(picture.resize((width, height), Image.BICUBIC))


def by_torch(image, scale):
    size = [round(size * scale) for size in image.shape[:2]]
    options = {"mode": "bicubic", "antialias": True}
    return to_image(F.interpolate(to_tensor(image)[None], size, **options)[0])


def by_scikit_image(image, scale):
    height, width = (round(size * scale) for size in image.shape[:2])
    options = {"order": 3, "anti_aliasing": scale < 1, "preserve_range": True}
    return to_uint8(resize(image, (height, width), **options))


def by_resize_right(image, scale, kind):
    import resize_right

    x = image.astype(np.float32)
    if kind is torch:
        x = torch.from_numpy(x).permute(2, 0, 1)  # in torch, channels first
    x = resize_right.resize(x, scale_factors=scale)
    if kind is torch:
        x = x.permute(1, 2, 0).numpy()
    return to_uint8(x)


RESIZERS = {
    "ours": imresize,
    "Pillow": by_pillow,
    "PyTorch": by_torch,
    "scikit-image": by_scikit_image,
    "resize-right, NumPy": functools.partial(by_resize_right, kind=np),
    "resize-right, PyTorch": functools.partial(by_resize_right, kind=torch),
}


def resizing(image, rounds=5, patience=8):
    """Seconds, and the share of bytes that differ from MATLAB's.

    Ours is MATLAB's, byte for byte: the tests compare it with 219 of its
    images. So what differs from ours differs from MATLAB's.
    """
    results = {}
    for name, scale in (("1/4", 1 / 4), ("4", 4)):
        made = {}

        def make(label, scale=scale, made=made):
            made[label] = RESIZERS[label](image, scale)

        tasks = {label: functools.partial(make, label) for label in RESIZERS}
        results[name] = by_turns(tasks, rounds, patience)
        for label, output in made.items():
            differing = np.mean(output != made["ours"])
            results[name][label]["differing"] = float(differing)
    return results


# --- measuring ---------------------------------------------------------------


def lumas(sr, hr):
    """What the other libraries are given: luma, without its border."""
    return [rgb_to_y(image)[4:-4, 4:-4] for image in (sr, hr)]


def ours(sr, hr):
    return psnr(sr, hr), ssim(sr, hr)


def scikit_image(sr, hr):
    a, b = lumas(sr, hr)
    similarity = structural_similarity(
        a,
        b,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
    )
    return peak_signal_noise_ratio(b, a, data_range=255), similarity


def tensors(sr, hr):
    return [torch.from_numpy(y)[None, None].float() for y in lumas(sr, hr)]


def torchmetrics(sr, hr):
    import torchmetrics.functional.image as metrics

    a, b = tensors(sr, hr)
    options = {"sigma": 1.5, "kernel_size": 11, "data_range": 255.0}
    similarity = metrics.structural_similarity_index_measure(a, b, **options)
    ratio = metrics.peak_signal_noise_ratio(a, b, data_range=255.0)
    return ratio.item(), similarity.item()


def piq(sr, hr):
    import piq

    a, b = tensors(sr, hr)
    similarity = piq.ssim(a, b, data_range=255.0, downsample=False)
    return piq.psnr(a, b, data_range=255.0).item(), similarity.item()


def measuring(hr, rounds=9):
    """Seconds, and how far the values are from scikit-image's."""
    hr = hr[:768, :1024]
    sr = imresize(imresize(hr, 1 / 4), 4)
    libraries = {
        "ours": ours,
        "scikit-image": scikit_image,
        "torchmetrics": torchmetrics,
        "piq": piq,
    }
    times = by_turns(
        {n: functools.partial(f, sr, hr) for n, f in libraries.items()},
        rounds,
        patience=10,
    )
    expected = scikit_image(sr, hr)
    for name, function in libraries.items():
        for key, value, other in zip(
            ("psnr", "ssim"), function(sr, hr), expected, strict=True
        ):
            times[name][key] = float(value)
            times[name][f"{key}_off"] = abs(float(value - other))
    return times


# --- upscaling ---------------------------------------------------------------


def upscaling(image, profile="reference", rounds=3):
    """One megapixel of output, whole and in tiles."""
    generator = Generator(configuration(profile)).eval()
    generator = generator.to(memory_format=torch.channels_last)
    lr = imresize(image, 1 / 4)[:256, :256]
    tasks = {"whole": None, "tiles of 128": 128, "tiles of 64": 64}
    return by_turns(
        {
            name: functools.partial(upscale, generator, lr, tile)
            for name, tile in tasks.items()
        },
        rounds,
    )


# --- crops -------------------------------------------------------------------


MORE_THAN_DRAWN = 4000


def seconds_per_crop(batches, batch_size, warm, seconds):
    """Draw `warm` batches, then more for so long."""
    batches = iter(batches)
    for _ in range(warm):
        next(batches)
    begin, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - begin) < seconds:
        next(batches)
        count += batch_size
    # Workers hand out their batches in gusts, so the mean counts here.
    return spent / count


def data_path(profile="reference", rounds=5, seconds=2.0):
    """Crops made ready, nothing being trained: {set: {way: summary}}.

    Seconds a crop, by turns; each turn begins anew.
    """
    config = configuration(profile)
    stage, scale = config.srresnet, config.scaling_factor
    size = stage.batch_size
    results = {}
    for name in ("BSDS", "Photos"):
        if not is_present(name):
            continue
        pairs = data_list(name)
        paths = [hr for hr, _ in pairs]
        dataset = SRDataset(pairs, config, stage.crop_size)
        decode(dataset)

        def ours(dataset=dataset):
            steps = len(dataset) // size
            numbers = itertools.chain.from_iterable(
                EpochBatches(dataset, size, epoch, steps)
                for epoch in itertools.count()
            )
            return training.load_batches(PartialState(), dataset, numbers, [])

        ways = {"ours": ours} | {
            f"{processes} workers": functools.partial(
                tutorial.loader,
                *(paths, stage.crop_size, scale, size),
                batches=MORE_THAN_DRAWN,
                workers=processes,
            )
            for processes in worker_counts()
        }
        times = {way: [] for way in ways}
        for _ in range(rounds):
            for way, batches in ways.items():
                times[way].append(
                    seconds_per_crop(batches(), size, 4, seconds)
                )
        results[name] = {way: summary(found) for way, found in times.items()}
    return results
