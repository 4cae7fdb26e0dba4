"""Looks for the faults of chapter 11 in somebody's own code.

Four things can be examined: a function that enlarges, one that measures,
one that makes lr, and a step of training. Each answers with findings; none
means healthy, as far as these tests can see. Faults that look the same from
outside are named together.
"""

import functools
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from skimage.registration import phase_cross_correlation
from torch import nn
from torch.nn import functional as F

from srgan_lib import fault_runs, faults
from srgan_lib.data_lists import SKIMAGE
from srgan_lib.errors import UserError
from srgan_lib.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    read_image,
    rgb_to_y,
)
from srgan_lib.imresize import imresize
from srgan_lib.inference import load_generator, upscale
from srgan_lib.metrics import psnr, ssim

MEAN, STD = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
NAMES = {fault.function: fault.name for fault in faults.FAULTS}
RUN_NAMES = {fault.name: fault.what for fault in fault_runs.FAULT_RUNS}
# Parts of Bundled5, as (top, left): they have color, edges and shadows.
PHOTOS = {
    "astronaut.png": (0, 64),
    "coffee.png": (8, 120),
    "motorcycle_left.png": (100, 340),
}
SIZE = 384  # of a part, in pixels of hr
# Levels, root mean square, between lr and sr made small again: of healthy
# functions, of those that can be explained.
TONE_LIMIT, KNOWN_LIMIT = 20, 35
SHIFT_LIMIT = 0.3  # pixels of hr
CHANGE_LIMIT = 0.5  # levels, mean absolute, where nothing should change
COLOR_LIMIT = 0.05  # dB, on every photograph
PSNR_LIMIT = 2.5  # dB below bicubic, more than adversarial training costs


@dataclass(frozen=True)
class Finding:
    """Something that is wrong. faults: what it can be, one or several."""

    faults: tuple
    seen: str
    why: str
    cure: str

    def __str__(self):
        return (
            f"{' or '.join(self.faults)}\n  seen: {self.seen}\n"
            f"  why it matters: {self.why}\n  cure: {self.cure}"
        )


@functools.cache
def photographs(scale):
    """The (lr, hr) that functions are tried on."""
    pairs = []
    for name, (top, left) in PHOTOS.items():
        hr = read_image(SKIMAGE / name)
        hr = hr[top : top + SIZE, left : left + SIZE]
        pairs.append((imresize(hr, 1 / scale), hr))
    return pairs


# --- a function that enlarges ------------------------------------------------


def examine(enlarge, scale=4):
    """Findings on `enlarge`: uint8 lr (h, w, 3) -> uint8 sr, `scale` x."""
    lr, _ = photographs(scale)[0]
    if finding := look_at_result(enlarge(lr.copy()), lr, scale):
        return [finding]  # nothing else can be measured
    pairs = [(lr, enlarge(lr.copy()), hr) for lr, hr in photographs(scale)]
    findings = [
        look_at_repetition(enlarge, pairs),
        # One at a time: where colors are wrong, place cannot be judged.
        look_far_away(enlarge, scale)
        or look_at_tones(pairs, scale)
        or look_at_place(pairs)
        or look_at_color_order(enlarge, pairs),
    ]
    if not any(findings):
        findings.append(look_for_a_grid(enlarge, scale))
    findings = [finding for finding in findings if finding]
    return findings or [f for f in [look_at_psnr(pairs, scale)] if f]


def look_at_result(sr, lr, scale):
    """Is it an image of the right kind and size?"""
    wanted = (lr.shape[0] * scale, lr.shape[1] * scale, 3)
    kind = getattr(sr, "dtype", type(sr).__name__)
    shape = tuple(getattr(sr, "shape", ()))
    if isinstance(sr, np.ndarray) and kind == np.uint8 and shape == wanted:
        return None
    values = ""
    if isinstance(sr, np.ndarray) and sr.size and sr.dtype.kind == "f":
        values = f", values from {sr.min():.3g} to {sr.max():.3g}"
    return Finding(
        ("not a uint8 image of the right size",),
        f"{kind} {shape}{values} came back for uint8 {lr.shape}; uint8 "
        f"{wanted} was expected",
        "whoever reads it must guess range, order and scale, and guesses "
        "wrong in silence",
        "convert once, at the end: scale to [0, 255], clip, round, uint8, "
        "channels last",
    )


def look_at_repetition(enlarge, pairs):
    """Does the same image give the same image?"""
    lr, sr, _ = pairs[0]
    again = enlarge(lr.copy())
    if np.array_equal(again, sr):
        return None
    return Finding(
        ("not deterministic",),
        f"the same lr, enlarged twice, differs in "
        f"{np.mean(again != sr):.0%} of its values",
        "figures cannot be repeated; most often dropout or batch norm is "
        "still in training mode",
        "call model.eval() before use, and seed what is random on purpose",
    )


# What a pipeline with this fault makes of a color v in [0, 1], if the network
# itself does all it is asked for. Two of them are the same.
TONES = {
    faults.read_as_unit: lambda v: 2 * v - 1,
    faults.read_as_unit_wrapped: lambda v: (2 * v - 1) % 1,
    faults.read_as_imagenet: lambda v: (2 * v - 1) * STD + MEAN,
    faults.unit_range: lambda v: v * STD + MEAN,
    faults.signed_range: lambda v: (2 * v - 1) * STD + MEAN,
    faults.byte_range: lambda v: 255 * v * STD + MEAN,
    faults.normalized_twice: lambda v: (v - MEAN) / STD,
    faults.blue_first: lambda v: v[..., ::-1],
}


def tone_errors(pairs, scale):
    """{wrong function, or None: how far sr is from its tones, in levels}."""
    errors = {}
    for function, tone in {None: lambda v: v, **TONES}.items():
        squares = []
        for lr, sr, _ in pairs:
            expected = imresize(tone(lr / 255).clip(0, 1), scale)
            expected = imresize(expected.clip(0, 1), 1 / scale) * 255
            small = imresize(sr.astype(float), 1 / scale)
            squares.append(np.mean((small - expected) ** 2))
        errors[function] = float(np.sqrt(np.mean(squares)))
    return errors


def look_at_tones(pairs, scale):
    """Made small again, sr must be lr: it has the same colors."""
    errors = tone_errors(pairs, scale)
    plain, least = errors.pop(None), min(errors.values())
    if plain <= least and plain < TONE_LIMIT:
        return None
    seen = f"sr, made small again, is {plain:.0f} levels off lr"
    if least < min(plain, KNOWN_LIMIT):
        names = [NAMES[f] for f, e in errors.items() if e < least + 2]
        seen += f", and {least:.0f} off what this fault would make of it"
    else:
        unknown = faults.byte_range, faults.normalized_twice
        names = [NAMES[f] for f in (*unknown, faults.statistics_lost)]
        names.append("another picture altogether")
        seen += ", and no simple change of range explains it"
    return Finding(
        tuple(names),
        seen,
        "the structure is right and the intensities are not: PSNR falls by "
        "ten decibels, while training, which knows no such step, looks fine",
        "print minimum and maximum before and after the network, compare "
        "with what it was trained on, and convert in one place",
    )


def shift_between(a, b):
    """How far b lies down and to the right of a, in pixels: (2,)."""
    window = np.outer(*(np.hanning(size) for size in a.shape))
    a, b = ((image - image.mean()) * window for image in (a, b))
    return phase_cross_correlation(
        b, a, upsample_factor=20, normalization=None
    )[0]


def look_at_place(pairs):
    """Does sr lie where hr lies, in the middle and at both ends?"""
    whole, ends = [], []
    for _, sr, hr in pairs:
        a, b = rgb_to_y(hr, False), rgb_to_y(sr, False)
        whole.append(shift_between(a[16:-16, 16:-16], b[16:-16, 16:-16]))
        third = SIZE // 3
        first, last = (
            shift_between(a[part, part], b[part, part])
            for part in (slice(8, third), slice(-third, -8))
        )
        ends.append(last - first)
    (down, right), drift = np.median(whole, axis=0), np.median(ends, axis=0)
    if max(abs(down), abs(right)) > SHIFT_LIMIT:
        return Finding(
            (NAMES[faults.one_pixel_off],),
            f"sr lies {down:+.2f} pixels down and {right:+.2f} to the right "
            "of hr",
            "pixels are compared with their neighbors: decibels are lost, "
            "most of all at edges, though the picture looks right",
            "look at padding, crops and where a resize puts pixel centers",
        )
    if np.abs(drift).max() > 2 * SHIFT_LIMIT:
        return Finding(
            ("stretched, as by align_corners=True",),
            f"from one end to the other sr moves by {drift[0]:+.2f} pixels "
            f"down and {drift[1]:+.2f} to the right against hr",
            "only the middle is compared with its own pixels",
            "use align_corners=False, which keeps pixel centers apart evenly",
        )
    return None


def look_far_away(enlarge, scale):
    """Does one end of the image change when the other one does?

    A convolution reaches as far as its kernels; batch norm in training mode
    takes mean and variance of the whole image.
    """
    lr = imresize(read_image(SKIMAGE / "motorcycle_left.png"), 1 / scale)
    lr = lr[:48]
    other, far = lr.copy(), lr.shape[1] // 3
    other[:, -far:] = 255 - other[:, -far:] // 4
    near = slice(4 * scale, far * scale // 2)
    a, b = (enlarge(x)[:, near] for x in (lr.copy(), other))
    change = np.abs(a.astype(float) - b).mean()
    if change < CHANGE_LIMIT:
        return None
    distance = lr.shape[1] - far - far // 2
    return Finding(
        (NAMES[faults.left_training],),
        f"when the right end of lr gets brighter, the left end of sr, "
        f"{distance} pixels of lr away, changes by {change:.1f} levels",
        "every image is normalized by itself: its colors drift with what "
        "else is in it, and a tile looks unlike its neighbor",
        "call model.eval() before use (a model with attention over the whole "
        "image may do this on purpose)",
    )


def look_for_a_grid(enlarge, scale):
    """Does sr move along when lr moves by a few pixels?"""
    lr, by = photographs(scale)[1][0], 4
    size, edge = lr.shape[0] - by, 20
    a = enlarge(lr[:size, :size].copy())[by * scale :, by * scale :]
    b = enlarge(lr[by:, by:].copy())[: -by * scale, : -by * scale]
    inner = slice(edge * scale, -edge * scale)
    change = np.abs(a.astype(float) - b)[inner, inner].mean()
    if change < CHANGE_LIMIT:
        return None
    return Finding(
        (NAMES[faults.by_jpeg], "tiles without enough overlap"),
        f"lr cut {by} pixels further on gives another picture: "
        f"{change:.1f} levels apart, away from the borders",
        "something works in blocks at fixed places; their seams and losses "
        "are taken for the network's",
        "keep lr as PNG, and let tiles overlap by the receptive field",
    )


def look_at_color_order(enlarge, pairs):
    """Is sr better when red and blue are swapped before and after?"""
    gains = []
    for lr, sr, hr in pairs:
        turned = enlarge(np.ascontiguousarray(lr[..., ::-1]))[..., ::-1]
        gains.append(psnr(np.ascontiguousarray(turned), hr) - psnr(sr, hr))
    if min(gains) < COLOR_LIMIT:
        return None
    return Finding(
        ("network works on BGR",),
        f"with red and blue swapped before and after, PSNR rises by "
        f"{np.mean(gains):.2f} dB",
        "the network sees colors it was not trained on",
        "OpenCV reads BGR: swap once after reading, once before writing",
    )


def decibels(pairs, scale):
    """(PSNR of sr, PSNR of bicubic), means over the photographs."""
    ours = [psnr(sr, hr) for _, sr, hr in pairs]
    plain = [psnr(imresize(lr, scale), hr) for lr, _, hr in pairs]
    return float(np.mean(ours)), float(np.mean(plain))


def look_at_psnr(pairs, scale):
    """Is it at least near to what needs no network at all?"""
    ours, bicubic = decibels(pairs, scale)
    if ours > bicubic - PSNR_LIMIT:
        return None
    return Finding(
        ("worse than bicubic, for no reason found here", "not trained"),
        f"{ours:.2f} dB, where bicubic interpolation has {bicubic:.2f} dB",
        "no training is needed to do better",
        "look at the pictures, and at the loss on images not trained on",
    )


def examine_generator(generator):
    """Findings on a module: ImageNet-normalized lr -> sr in [-1, 1]."""
    findings = []
    norms = [m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]
    if any(norm.training for norm in norms):
        findings.append(
            Finding(
                (NAMES[faults.left_training],),
                "the module is in training mode",
                "batch norm would normalize each image by itself",
                "call model.eval() before use; here it was done for the rest",
            )
        )
    new = [
        norm
        for norm in norms
        if norm.running_mean is not None
        and not norm.running_mean.any()
        and (norm.running_var == 1).all()
    ]
    if new:
        findings.append(
            Finding(
                (NAMES[faults.statistics_lost],),
                f"{len(new)} of {len(norms)} batch norms have running mean "
                "0 and variance 1, as a new network has",
                "in evaluation mode they do not normalize what they were "
                "trained to normalize",
                "save and load buffers with the weights (state_dict has "
                "both), and let an average of weights average them, too",
            )
        )
    scale = getattr(generator, "upscale", None)
    scale = 2 ** len(scale) if isinstance(scale, nn.Sequential) else 4
    # Trained in eval mode they may be as they should, so go on.
    return findings + [
        finding
        for finding in examine(functools.partial(upscale, generator), scale)
        if not (new and NAMES[faults.statistics_lost] in finding.faults)
    ]


# --- a function that makes lr ------------------------------------------------


def examine_shrinking(shrink):
    """Findings on `shrink`: uint8 hr (H, W, 3) -> uint8 lr, a quarter."""
    known = [f for f in faults.FAULTS if f.step == "shrink"]
    errors = dict.fromkeys(known, 0.0)
    wrong = 0.0
    for _, hr in photographs(4):
        lr = np.asarray(shrink(hr.copy()))
        right = faults.by_imresize(hr)
        if lr.shape != right.shape or lr.dtype != np.uint8:
            raise UserError(
                f"The function made {lr.dtype} {lr.shape} of uint8 "
                f"{hr.shape}; it must make uint8 {right.shape}."
            )
        # Both borders of MATLAB's are right: they differ at the edge alone.
        gap = np.abs(lr.astype(float) - right)[2:-2, 2:-2]
        wrong = max(wrong, float((gap > 0).mean()))
        for fault in known:
            other = fault.function(hr).astype(float)
            errors[fault] += np.abs(lr - other).mean() / len(PHOTOS)
    if wrong == 0:
        return []
    least = min(errors.values())
    if least < 1:
        names = tuple(f.name for f, e in errors.items() if e < least + 0.1)
    else:
        names = ("LR made by an unknown kernel",)
    return [
        Finding(
            names,
            f"{wrong:.0%} of the pixels differ from MATLAB's imresize",
            "a network is tested on another kind of lr than it was trained "
            "on, and figures cannot be compared with published ones",
            "use srgan_lib.imresize, or the LR images that come with a set",
        )
    ]


# --- a function that measures ------------------------------------------------


def rgb_to_y_unrounded(image):
    border = faults.BORDER
    return rgb_to_y(image, quantize=False)[border:-border, border:-border]


def examine_measure(measure):
    """Findings on `measure`: (sr, hr), uint8 -> PSNR, or (PSNR, SSIM).

    It measures bicubic enlargements, whose figures are known under every
    protocol of the table of faults.
    """
    pairs = [(imresize(lr, 4), hr) for lr, hr in photographs(4)]
    found = np.array([np.atleast_1d(measure(sr, hr)) for sr, hr in pairs])
    findings = [look_at_decibels(found[:, 0], pairs)]
    if found.shape[1] > 1:
        findings.append(look_at_similarity(found[:, 1], pairs))
    return [finding for finding in findings if finding]


def protocols(step_names):
    """(names of faults, pipeline) of what spoils only these steps."""
    chosen = [f for f in faults.FAULTS if f.step in step_names]
    for some in faults.combinations(chosen):
        yield tuple(f.name for f in some), faults.faulty(*some)


def nearest(found, expected, tolerance):
    """The keys of the lists of figures that are as good as the nearest."""
    gaps = {k: np.abs(found - v).max() for k, v in expected.items()}
    least = min(gaps.values())
    return [k for k, gap in gaps.items() if gap < least + tolerance], least


def look_at_decibels(found, pairs):
    expected = {
        names: [faults.figures(pipeline, sr, hr)[0] for sr, hr in pairs]
        for names, pipeline in protocols(("view", "target"))
    }
    unrounded = faults.replace(faults.RIGHT, view=rgb_to_y_unrounded)
    allowed = [expected[()]]
    allowed.append([faults.figures(unrounded, *pair)[0] for pair in pairs])
    if min(np.abs(found - right).max() for right in allowed) < 0.005:
        return None
    names, gap = nearest(found, expected, 0.002)
    return measuring_finding(
        names if gap < 0.1 else [],
        f"PSNR {found.mean():.3f} dB, where the protocol of the papers "
        f"gives {np.mean(allowed[0]):.3f} dB",
    )


def look_at_similarity(found, pairs):
    expected = {
        names: [faults.figures(pipeline, sr, hr)[1] for sr, hr in pairs]
        for names, pipeline in protocols(("view", "target", "similarity"))
    }
    unrounded = faults.replace(faults.RIGHT, view=rgb_to_y_unrounded)
    allowed = [expected[()]]
    allowed.append([faults.figures(unrounded, *pair)[1] for pair in pairs])
    allowed += [
        [ssim(sr, hr, variant="daala", quantize=q) for sr, hr in pairs]
        for q in (True, False)
    ]
    if min(np.abs(found - right).max() for right in allowed) < 2e-4:
        return None
    names, gap = nearest(found, expected, 1e-4)
    return measuring_finding(
        names if gap < 0.01 else [],
        f"SSIM {found.mean():.4f}, where Wang's is "
        f"{np.mean(allowed[0]):.4f} and daala's {np.mean(allowed[2]):.4f}",
    )


def measuring_finding(names, seen):
    together = tuple(" and ".join(some) for some in names if some)
    return Finding(
        together or ("another protocol, unknown here",),
        f"on bicubic enlargements it reads {seen}",
        "a figure under another protocol is compared with nobody's",
        "measure on Y of 16 to 235, four pixels cropped, both images in "
        "[0, 255], and say which SSIM; srgan_lib.metrics does",
    )


# --- a step of training ------------------------------------------------------


def weights_of(module, buffers=False):
    """All weights, or all running statistics, as one vector: a copy."""
    parts = module.buffers() if buffers else module.parameters()
    vectors = [
        part.detach().float().flatten()
        for part in parts
        if part.is_floating_point()
    ]
    return torch.cat(vectors) if vectors else torch.zeros(0)


class Watch:
    """Looks on while a training step runs: who is called, and how."""

    def __init__(self, generator, features):
        self.modes, self.batches, self.calls = set(), set(), 0
        self.connected, self.gradient = False, 0.0
        hook = generator.register_forward_pre_hook(
            self.see_generator, with_kwargs=True
        )
        self.hooks = [hook]
        if features is not None:
            hook = features.register_forward_hook(self.see_features)
            self.hooks.append(hook)

    def see_generator(self, module, inputs, named):
        self.modes.add(module.training)
        lr = next(filter(torch.is_tensor, (*inputs, *named.values())))
        self.batches.add(len(lr))

    def see_features(self, module, inputs, output):
        self.calls += 1
        layers = [output] if torch.is_tensor(output) else output
        if isinstance(layers, dict):  # as torchvision's extractors answer
            layers = layers.values()
        for layer in layers:
            if layer.requires_grad:
                self.connected = True
                layer.register_hook(self.see_gradient)

    def see_gradient(self, gradient):
        self.gradient = max(self.gradient, float(gradient.abs().max()))

    def stop(self):
        for hook in self.hooks:
            hook.remove()


def examine_training(
    step,
    generator,
    discriminator=None,
    ema=None,
    features=None,
    batch=None,
    steps=25,
):
    """Findings on `step`, a function of nothing that trains one step.

    The modules are those it trains; features: the content network; batch:
    an (lr, hr) as the networks get them. `steps` steps are taken for good,
    so hand over copies. ema is expected to be past its warm-up after them.
    """
    learners = {"generator": generator, "discriminator": discriminator}
    learners = {k: module for k, module in learners.items() if module}
    before = {k: weights_of(module) for k, module in learners.items()}
    frozen = weights_of(features) if features is not None else None
    watch = Watch(generator, features)
    average = FollowedAverage(generator, ema) if ema is not None else None
    for _ in range(steps):
        step()
        if average:
            average.look()
    watch.stop()
    findings = [
        look_at_learning(name, before[name], weights_of(module))
        for name, module in learners.items()
    ]
    findings += look_at_batch_norm(watch, generator)
    if features is not None:
        findings.append(look_at_content(watch, steps))
        findings.append(look_at_features(features, frozen))
    if average:
        findings.append(average.finding())
    if batch is not None:
        findings.append(look_at_alignment(*batch))
    return [finding for finding in findings if finding]


def look_at_learning(name, before, after):
    if not torch.equal(before, after):
        return None
    return Finding(
        (f"{name} does not learn",),
        f"not one weight of the {name} changed",
        "its loss may still move, because the other network does",
        "give its own parameters to its optimizer, call backward and step, "
        "and look for requires_grad = False that was not taken back",
    )


def look_at_batch_norm(watch, generator):
    if not any(isinstance(m, nn.BatchNorm2d) for m in generator.modules()):
        return
    if watch.modes == {False}:
        yield Finding(
            (RUN_NAMES["eval-mode"],),
            "the generator was in evaluation mode in every step",
            "its batch norms never learn the statistics that they will use",
            "call generator.train() at the beginning of each epoch",
        )
    elif watch.batches and min(watch.batches) < 4:
        yield Finding(
            (RUN_NAMES["batch-of-one"],),
            f"the generator saw batches of {min(watch.batches)}",
            "statistics of so few images jump from step to step, and differ "
            "from the running ones that are used later",
            "larger batches, smaller crops, or a network without batch norm",
        )


def look_at_content(watch, steps):
    if watch.connected and watch.gradient > 0:
        return None
    seen = "its gradient is zero"
    if not watch.calls:
        seen = f"the content network was never asked in {steps} steps"
    elif not watch.connected:
        seen = "no features of sr carried a gradient"
    return Finding(
        (RUN_NAMES["content-detached"],),
        seen,
        "the content loss is shown, and teaches the generator nothing",
        "no detach() and no no_grad() around the features of sr; hr alone "
        "may have them",
    )


def norm_spread(weight):
    """How unequal the filters of a layer are; 1 for independent normals."""
    # The norm of n normal weights spreads by sqrt(1 / 2n) of its mean.
    norms = weight.detach().float().flatten(1).norm(dim=1)
    return float(norms.std() / norms.mean() * (2 * weight[0].numel()) ** 0.5)


def look_at_features(features, before):
    spreads = [
        norm_spread(m.weight)
        for m in features.modules()
        if isinstance(m, nn.Conv2d)
        and m.weight[0].numel() >= 16
        and len(m.weight) >= 16
    ]
    if not torch.equal(before, weights_of(features)):
        return Finding(
            ("content network is trained along",),
            "its weights changed",
            "the generator's judge drifts toward whatever is easy",
            "freeze it: requires_grad_(False), eval(), not in an optimizer",
        )
    if not spreads or np.median(spreads) > 2:
        return None
    return Finding(
        (RUN_NAMES["random-features"],),
        f"its filters are as equal as random ones: spread of norms "
        f"{np.median(spreads):.1f} times that of independent weights",
        "nothing was loaded, as load_state_dict(strict=False) allows",
        "load strictly, then compare one weight with the file",
    )


class FollowedAverage:
    """How much of each step an average of weights takes up."""

    def __init__(self, generator, ema):
        self.generator, self.ema, self.shares = generator, ema, []
        self.average = weights_of(ema)
        self.first = weights_of(ema), weights_of(ema, buffers=True)
        self.statistics = weights_of(generator, buffers=True)

    def look(self):
        """new = old + share (current - old), solved for the share."""
        new, current = weights_of(self.ema), weights_of(self.generator)
        way = current - self.average
        if way.any():
            self.shares.append(float((new - self.average) @ way / (way @ way)))
        self.average = new

    def finding(self):
        share = self.shares[-1] if self.shares else 0.0
        weights, buffers = self.first
        if self.shares and torch.equal(weights, self.average):
            return Finding(
                ("EMA does not follow",),
                "the average did not move, the generator did",
                "the network that is evaluated is the untrained one",
                "update the average after each step of the optimizer",
            )
        if share > 0.5:
            return Finding(
                (RUN_NAMES["ema-backwards"], "EMA decay near 0"),
                f"the average takes {share:.0%} of each new network",
                "it forgets everything within a step, so it averages nothing",
                "average = decay x average + (1 - decay) x current, with a "
                "decay near 1",
            )
        moved = not torch.equal(
            self.statistics, weights_of(self.generator, buffers=True)
        )
        if moved and torch.equal(buffers, weights_of(self.ema, buffers=True)):
            return Finding(
                ("EMA leaves out the running statistics",),
                "the generator's batch norms learned statistics, those of "
                "the average stayed",
                "averaged weights meet the statistics of a new network",
                "average the whole state_dict, buffers included",
            )
        return None


def look_at_alignment(lr, hr):
    """Is hr cropped where lr is? (N, 3, h, w), (N, 3, H, W), any range."""
    large = F.interpolate(lr.float(), size=hr.shape[-2:], mode="bicubic")
    shifts = [
        shift_between(*(x.mean(dim=0).cpu().numpy() for x in pair))
        for pair in zip(large, hr.float(), strict=True)
    ]
    down, right = np.median(shifts, axis=0)
    if max(abs(down), abs(right)) < 2 * SHIFT_LIMIT:
        return None
    return Finding(
        (RUN_NAMES["misaligned"],),
        f"hr lies {down:+.1f} pixels down and {right:+.1f} to the right of lr",
        "the network learns to shift, and to blur where it cannot know",
        "crop lr first, then hr at scale times the same place; augment both "
        "alike",
    )


# --- by name -----------------------------------------------------------------


def load_function(name):
    """The function that "file.py:function" or "module:function" names.

    An error inside the file is its author's, and is not caught.
    """
    place, _, function = name.rpartition(":")
    load = load_file if place.endswith(".py") else load_module
    module = load(place)
    if not hasattr(module, function):
        raise UserError(
            f"There is no function '{name}'; name it as file.py:function or "
            "module:function."
        )
    return getattr(module, function)


def load_file(path):
    """The module in a file, run as Python runs a script; None without it."""
    if not Path(path).is_file():
        return None
    sys.path.insert(0, str(Path(path).resolve().parent))
    spec = importlib.util.spec_from_file_location("examined", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["examined"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def load_module(name):
    """A module of this folder or of a package; None if there is none."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name) if name else None
    except ModuleNotFoundError as error:
        if name.startswith(error.name):
            return None
        raise


def examine_model(name):
    """Findings on what a name stands for: a function, a file, a run."""
    if ":" in name and not Path(name).exists():
        function = load_function(name)
        if not isinstance(function, nn.Module):
            return examine(function)
        return examine_generator(function)
    return examine_generator(load_generator(name))
