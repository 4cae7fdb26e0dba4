"""Faults of a pipeline that is only used, not trained: chapter 11.

A correct pipeline is seven steps, each a function. A fault puts a wrong
function in the place of a right one. Its signature is what PSNR and SSIM
then read.
"""

import copy
import functools
import io
import itertools
import sys
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn
from torch.nn import functional as F

from srgan_lib import data_lists, experiments, images, imresize, models
from srgan_lib.files import read_json, write_json
from srgan_lib.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    denormalize_sr,
    modcrop,
    normalize_lr,
    read_image,
    rgb_to_y,
    to_image,
    to_tensor,
    to_uint8,
)

TEST_SETS = ("Bundled5", "Set5")  # small, and enough to see a fault
NEAR = 1.0, 0.05  # dB and SSIM: as near as another network would be, at most
BORDER = 4  # pixels left out on each side, as wide as the scale
MEAN = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
STD = torch.tensor(IMAGENET_STD).view(3, 1, 1)

# --- making lr: uint8 (H, W, 3) -> uint8 (H / 4, W / 4, 3) -------------------


def by_imresize(hr):
    return imresize.imresize(hr, 1 / 4)


def by_pil(hr):
    height, width = hr.shape[:2]
    small = Image.fromarray(hr).resize((width // 4, height // 4), 3)
    return np.asarray(small)  # 3: bicubic, but Pillow's own


def by_torch(hr):
    """F.interpolate, which does not widen its kernel unless it is told."""
    small = F.interpolate(
        to_tensor(hr)[None].float(), scale_factor=1 / 4, mode="bicubic"
    )
    return to_image(to_uint8(small[0]))


def by_nearest(hr):
    """Every fourth pixel, from the first on: F.interpolate's default."""
    return hr[::4, ::4]


def by_jpeg(hr):
    """The right lr, saved as a JPEG of Pillow's usual quality on the way."""
    file = io.BytesIO()
    Image.fromarray(by_imresize(hr)).save(file, "JPEG")
    return np.asarray(Image.open(file))


# --- preparing lr: uint8 (h, w, 3) -> float (1, 3, h, w) ---------------------


def normalized(lr):
    return normalize_lr(to_tensor(lr))[None]


def unit_range(lr):
    """In [0, 1], and left so."""
    return to_tensor(lr)[None].float() / 255


def signed_range(lr):
    """In [-1, 1], as hr is."""
    return unit_range(lr) * 2 - 1


def byte_range(lr):
    """In [0, 255]."""
    return to_tensor(lr)[None].float()


def normalized_twice(lr):
    return (normalized(lr) - MEAN) / STD


def blue_first(lr):
    """As OpenCV reads it."""
    return normalized(lr[..., ::-1])


# --- the network: (generator, (1, 3, h, w)) -> (1, 3, H, W) ------------------


@torch.inference_mode()
def evaluated(generator, lr):
    return generator.eval()(lr)


@torch.inference_mode()
def left_training(generator, lr):
    """Batch norm normalizes by this one image."""
    return copy.deepcopy(generator).train()(lr)


@torch.inference_mode()
def statistics_lost(generator, lr):
    """Batch norm has forgotten means and variances, as in a new network."""
    forgetful = copy.deepcopy(generator).eval()
    for module in forgetful.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    return forgetful(lr)


# --- finishing: float (1, 3, H, W) in [-1, 1] -> uint8 (H, W, 3) -------------


def finished(sr):
    return to_image(denormalize_sr(sr[0]))


def read_as_unit(sr):
    """[-1, 1] read as [0, 1], clipped: the darker half turns black."""
    return to_image(to_uint8(sr[0] * 255))


def read_as_unit_wrapped(sr):
    """The same without clipping: a uint8 begins again at 255 below 0."""
    return to_image((sr[0] * 255).round().to(torch.int16).to(torch.uint8))


def read_as_imagenet(sr):
    """[-1, 1] read as ImageNet-normalized, as the lr is."""
    return to_image(to_uint8((sr[0] * STD + MEAN) * 255))


def truncated(sr):
    """The fraction cut off, where it should be rounded."""
    return to_image(((sr[0] + 1) * 127.5).clip(0, 255).to(torch.uint8))


def one_pixel_off(sr):
    return np.roll(finished(sr), (1, 1), axis=(0, 1))


# --- what sr is compared with: uint8 (H, W, 3) -> uint8 (H, W, 3) ------------


def unchanged(hr):
    return hr


def hr_read_as_unit(hr):
    """hr in [-1, 1] read as [0, 1]."""
    return to_uint8(hr * 2.0 - 255)


def hr_read_as_signed(hr):
    """hr in [0, 1] read as [-1, 1]."""
    return to_uint8(hr / 2 + 127.5)


# --- what is compared of both: uint8 (H, W, 3) -> float (h, w) or (h, w, 3) --


def luma(image):
    return rgb_to_y(image)[BORDER:-BORDER, BORDER:-BORDER]


def luma_with_border(image):
    return rgb_to_y(image)


def rgb(image):
    return image[BORDER:-BORDER, BORDER:-BORDER].astype(float)


def full_range_luma(image):
    """0 to 255 instead of 16 to 235."""
    return np.round(rgb(image) @ (0.299, 0.587, 0.114))


# --- which SSIM --------------------------------------------------------------


def wang(a, b, **options):
    """Wang et al. (2004), as `metrics.ssim`."""
    return structural_similarity(
        a,
        b,
        data_range=255,
        channel_axis=2 if a.ndim == 3 else None,
        **{
            "gaussian_weights": True,
            "sigma": 1.5,
            "use_sample_covariance": False,
        }
        | options,
    )


def skimage_default(a, b):
    """A plain window of 7 x 7 pixels."""
    return wang(a, b, gaussian_weights=False, use_sample_covariance=True)


# --- the pipeline, and what can be wrong with it -----------------------------


@dataclass(frozen=True)
class Pipeline:
    """From a photograph to two figures; every step is right to begin with."""

    shrink: callable = by_imresize
    prepare: callable = normalized
    run: callable = evaluated
    finish: callable = finished
    target: callable = unchanged
    view: callable = luma
    similarity: callable = wang


@dataclass(frozen=True)
class Fault:
    """A name, the step it spoils, and the wrong function for it."""

    name: str
    step: str
    function: callable = field(repr=False)


RIGHT = Pipeline()
FAULTS = (
    Fault("output in [-1, 1] read as [0, 1]", "finish", read_as_unit),
    Fault(
        "output read as [0, 1], wrapped around", "finish", read_as_unit_wrapped
    ),
    Fault("output read as ImageNet-normalized", "finish", read_as_imagenet),
    Fault("rounding skipped", "finish", truncated),
    Fault("one pixel off", "finish", one_pixel_off),
    Fault("LR in [0, 1], not normalized", "prepare", unit_range),
    Fault("LR in [-1, 1]", "prepare", signed_range),
    Fault("LR in [0, 255]", "prepare", byte_range),
    Fault("LR normalized twice", "prepare", normalized_twice),
    Fault("RGB and BGR swapped", "prepare", blue_first),
    Fault("batch norm in training mode", "run", left_training),
    Fault("running statistics reset", "run", statistics_lost),
    Fault("HR in [-1, 1] read as [0, 1]", "target", hr_read_as_unit),
    Fault("HR in [0, 1] read as [-1, 1]", "target", hr_read_as_signed),
    Fault("LR made by Pillow", "shrink", by_pil),
    Fault("LR made by torch, no antialiasing", "shrink", by_torch),
    Fault("LR made by nearest", "shrink", by_nearest),
    Fault("LR saved as JPEG", "shrink", by_jpeg),
    Fault("no border cropped", "view", luma_with_border),
    Fault("RGB instead of Y", "view", rgb),
    Fault("Y from 0 to 255", "view", full_range_luma),
    Fault("scikit-image's default SSIM", "similarity", skimage_default),
)


def faulty(*faults):
    """The right pipeline with one or more of its steps spoiled."""
    return replace(RIGHT, **{fault.step: fault.function for fault in faults})


def combinations(faults, most=2):
    """Up to `most` faults at a time, each of another step."""
    for count in range(most + 1):
        for chosen in itertools.combinations(faults, count):
            if len({fault.step for fault in chosen}) == count:
                yield chosen


def pictures(generator, hr):
    """picture(pipeline) -> sr, uint8 (H, W, 3); no step is done twice.

    hr: uint8 (H, W, 3), its sides multiples of 4.
    """

    @functools.cache
    def small(shrink):
        return shrink(hr)

    @functools.cache
    def output(shrink, prepare, run):
        return run(generator, prepare(small(shrink)))

    @functools.cache
    def picture(shrink, prepare, run, finish):
        return finish(output(shrink, prepare, run))

    return lambda p: picture(p.shrink, p.prepare, p.run, p.finish)


def figures(pipeline, sr, hr):
    """(PSNR in dB, SSIM) as this pipeline reads them."""
    seen, wanted = pipeline.view(sr), pipeline.view(pipeline.target(hr))
    return (
        peak_signal_noise_ratio(wanted, seen, data_range=255),
        pipeline.similarity(wanted, seen),
    )


def signatures(generator, paths, pipelines):
    """{name: (PSNR, SSIM)}, means over the hr images at `paths`.

    pipelines: {name: Pipeline}; `generator` enlarges by 4.
    """
    found = {name: [] for name in pipelines}
    for path in paths:
        hr = modcrop(read_image(path), 4)
        picture = pictures(generator, hr)
        for name, pipeline in pipelines.items():
            found[name].append(figures(pipeline, picture(pipeline), hr))
    return {
        name: tuple(float(v) for v in np.mean(values, axis=0))
        for name, values in found.items()
    }


def distance(a, b):
    """How far two (PSNR, SSIM) are apart; 1 is what still counts as near."""
    return max(abs(x - y) / t for x, y, t in zip(a, b, NEAR, strict=True))


def single_faults():
    """{name: Pipeline}: the right one, and each fault alone."""
    return {"no fault": RIGHT} | {f.name: faulty(f) for f in FAULTS}


def stored_signatures(config, run):
    """{test set: {fault: (PSNR, SSIM)}} of a finished run of the profile.

    What stands there is read, the rest is measured: under a minute in
    `quick`.
    """
    folder = experiments.runs_folder(config)
    result = experiments.read_result(folder / run)
    file = folder / "faults" / "signatures.json"
    stored, found = read_json(file), {}
    code = experiments.code_digest(
        (images, imresize, models, sys.modules[__name__])
    )
    for test_set in filter(data_lists.is_present, TEST_SETS):
        pairs = data_lists.data_list(test_set, config.scaling_factor)
        key = experiments.digest(
            result.config.key, experiments.pairs_digest(pairs), code
        )
        if stored.get(test_set, {}).get("key") != key:
            print(f"measuring faults on {test_set}", flush=True)
            measured = signatures(
                result.generator(), [hr for hr, _ in pairs], single_faults()
            )
            stored[test_set] = {"key": key, "figures": measured}
            write_json(file, stored)
        found[test_set] = stored[test_set]["figures"]
    return found
