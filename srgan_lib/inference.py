"""Using a trained generator: load it, enlarge an image of any size with it."""

import copy
import hashlib
import importlib.util
import io
import itertools
import json
import math
from pathlib import Path

import psutil
import torch
from easydict import EasyDict
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from srgan_lib.checkpoints import load_weights, read_weights
from srgan_lib.errors import UserError
from srgan_lib.files import atomic_write
from srgan_lib.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    denormalize_sr,
    normalize_lr,
    to_image,
    to_tensor,
)
from srgan_lib.models import ConvolutionalBlock, Generator

WEIGHTS = Path(__file__).parent / "weights"
GIB = 2**30


# --- loading -------------------------------------------------------------


def shipped_names():
    """The names of the weights that come with the library."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


def load_generator(name_or_path):
    """A trained generator, ready to use.

    A name of the shipped weights, the path of a .safetensors file, or the
    folder of a run. The architecture stands in the file's metadata.
    """
    path = Path(name_or_path)
    names = shipped_names()
    if str(name_or_path) in names:
        path = WEIGHTS / f"{name_or_path}.safetensors"
        verify_shipped(path)
    elif path.is_dir():
        path = path / "weights.safetensors"
    elif not path.is_file():
        raise UserError(
            f"There is no generator '{name_or_path}'; name one of "
            f"{', '.join(names) or 'none shipped yet'}, a .safetensors "
            "file, or the folder of a finished run."
        )
    _, metadata = read_weights(path)
    if "architecture" not in metadata:
        raise UserError(
            f"{path} does not say which architecture it holds; save it "
            "with srgan_lib.checkpoints.save_weights."
        )
    try:
        generator = Generator(EasyDict(json.loads(metadata["architecture"])))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} holds another kind of network ({error}); take weights "
            "of this project."
        ) from error
    load_weights(generator, path)
    return generator.eval().to(memory_format=torch.channels_last)


def provenance(name):
    """Where shipped weights come from: the .json beside them."""
    record = WEIGHTS / f"{name}.json"
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        found["sha256"], found["architecture"]["scaling_factor"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{record} does not tell the SHA-256 and the architecture of "
            f"{name}.safetensors; install the package again."
        ) from error
    return found


def verify_shipped(path):
    """Compare shipped weights with the record of where they come from."""
    record = provenance(path.stem)
    expected = record["sha256"], record["architecture"]
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    _, metadata = read_weights(path)
    if (found, json.loads(metadata.get("architecture", "0"))) != expected:
        raise UserError(
            f"{path} is not the file that {path.stem}.json describes; install "
            "the package again."
        )


# --- enlarging -----------------------------------------------------------


@torch.inference_mode()
def upscale(generator, image, tile=None, progress=iter):
    """Enlarge uint8 (H, W, 3) to uint8 (sH, sW, 3).

    tile: side, in pixels of `image`, of the squares to work on one by one
    where memory is short; None does it whole. progress: wraps the list of
    tiles, as tqdm does.
    """
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"upscale takes (H, W, 3), not {image.shape}")
    generator.eval()
    device = next(generator.parameters()).device

    def enlarge(lr):
        return denormalize_sr(generator(normalize_lr(lr.to(device)))).cpu()

    tile = tile or max(image.shape[:2])
    margin = receptive_margin(generator)
    lr = to_tensor(image)[None]
    return to_image(in_tiles(enlarge, lr, tile, margin, progress)[0])


def in_tiles(function, x, tile, margin, progress=iter):
    """function(x), computed on squares of `tile` pixels, one by one.

    Each square is handed over with `margin` pixels more on all sides, as
    far as x has them, and what became of these is cut off again. With the
    function's receptive field as margin, no seam can show.
    x: (N, C, H, W); function: to (N, C', sH, sW)
    """
    height, width = x.shape[-2:]
    corners = itertools.product(range(0, height, tile), range(0, width, tile))
    whole = None
    for top, left in progress(list(corners)):
        above, before = min(margin, top), min(margin, left)
        piece = function(
            x[
                ...,
                top - above : top + tile + margin,
                left - before : left + tile + margin,
            ].contiguous(memory_format=torch.channels_last)
        )
        if whole is None:
            rows = min(tile + margin, height)
            scale = piece.shape[-2] // rows
            size = (*piece.shape[:2], height * scale, width * scale)
            whole = piece.new_empty(size)
        hole = whole[
            ...,
            top * scale : (top + tile) * scale,
            left * scale : (left + tile) * scale,
        ]
        piece = piece[..., above * scale :, before * scale :]
        hole.copy_(piece[..., : hole.shape[-2], : hole.shape[-1]])
    return whole


def receptive_margin(network):
    """How many lr pixels away a pixel can still be felt.

    Each convolution reaches (kernel - 1) / 2 pixels of its own grid, which
    is finer than lr's after each shuffle.
    """
    reach, finer = 0.0, 1
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            reach += (module.kernel_size[0] - 1) / 2 / finer
        elif isinstance(module, nn.PixelShuffle):
            finer *= module.upscale_factor
    return int(reach) + 1


# --- generators made of generators: faster, smaller, better --------------


def fold_batch_norm(generator):
    """A copy with each batch norm made part of the convolution before it.

    In eval mode a batch norm multiplies and adds fixed numbers; a convolution
    with scaled weights and another bias does the same.
    """
    folded = copy.deepcopy(generator).eval()
    for block in folded.modules():
        if isinstance(block, ConvolutionalBlock):
            for k, layer in enumerate(block):
                if isinstance(layer, nn.BatchNorm2d):
                    block[k - 1] = fuse_conv_bn_eval(block[k - 1], layer)
                    block[k] = nn.Identity()
    return folded.to(memory_format=torch.channels_last)


@torch.no_grad()
def interpolate_networks(start, end, reach):
    """The network `reach` of the way from `start` to `end`: 0 and 1 are they.

    One was trained from the other, or both from a third. The statistics of
    batch norm are those of `end`; measure them anew. Wang et al. (2018),
    section 3.4.
    """
    mixed = copy.deepcopy(end)
    weights, firsts = (list(g.parameters()) for g in (mixed, start))
    if [w.shape for w in weights] != [w.shape for w in firsts]:
        raise UserError("Only networks of one architecture can be mixed.")
    for weight, first in zip(weights, firsts, strict=True):
        weight.copy_(first + reach * (weight - first))
    return mixed


class Frugal(nn.Module):
    """A generator in a fraction of its memory: the last layers in tiles.

    The last layers see far more pixels than the others (16 times as many
    at x4), but reach only a few pixels of lr: small tiles waste little.
    (N, 3, H, W) -> (N, 3, sH, sW)
    """

    def __init__(self, generator, tile=64):
        super().__init__()
        self.generator, self.tile = generator, tile

    def forward(self, lr):
        g = self.generator
        features = g.head(lr)
        features = features + g.merge(g.residual_blocks(features))
        last = nn.Sequential(g.upscale, g.tail)
        return in_tiles(last, features, self.tile, receptive_margin(last))


class SelfEnsemble(nn.Module):
    """The mean of a generator's answers to eight flips and turns of lr.

    Each answer is turned back first. Timofte et al. (2016).
    (N, 3, H, W) -> (N, 3, sH, sW)
    """

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def forward(self, lr):
        total = 0
        for turns, flip in itertools.product(range(4), (False, True)):
            turned = torch.rot90(lr, turns, (2, 3))
            sr = self.generator(turned.flip(3) if flip else turned).float()
            sr = sr.flip(3) if flip else sr
            total += torch.rot90(sr, -turns, (2, 3))
        return total / 8


def scale_of(generator):
    """How many times a generator enlarges: each pixel shuffle does."""
    return math.prod(
        module.upscale_factor
        for module in generator.modules()
        if isinstance(module, nn.PixelShuffle)
    )


# --- memory --------------------------------------------------------------


def free_memory(device):
    """Bytes that can be had on a device now."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def memory_per_pixel(generator):
    """About how many bytes a Frugal generator takes for a pixel of lr.

    What is larger: five maps of features in the residual blocks, or, at
    the end, seven copies of the colors on their way to uint8.
    """
    layers = list(generator.modules())
    channels = [m for m in layers if isinstance(m, nn.Conv2d)][-1].in_channels
    colors = 3 * scale_of(generator) ** 2
    return 4 * max(5 * channels, 7 * colors)  # float32: 4 bytes


def fitting_tile(generator, free):
    """The side of the tiles of a Frugal generator, given free bytes."""
    # Half of what is free; tiles that take more than 2 GiB gain nothing.
    pixels = min(free / 2, 2 * GIB) / memory_per_pixel(generator)
    return max(16, int(math.sqrt(pixels)) - 2 * receptive_margin(generator))


# --- other programs ------------------------------------------------------


class ZeroToOne(nn.Module):
    """A generator for RGB from 0 to 1, (N, 3, H, W), in and out."""

    def __init__(self, generator):
        super().__init__()
        self.generator = generator
        mean, std = (
            torch.tensor(values).reshape(3, 1, 1)
            for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, rgb):
        return (self.generator((rgb - self.mean) / self.std) + 1) / 2


def export_onnx(generator, path):
    """Write a generator for programs without PyTorch, as an ONNX file.

    Its input `lr` and its output `sr` are RGB from 0 to 1, (N, 3, H, W);
    N, H and W are free.
    """
    if importlib.util.find_spec("onnx") is None:
        raise UserError(
            f"To write {path} needs the package onnx: `pip install onnx`."
        )
    encoded = io.BytesIO()
    torch.onnx.export(
        ZeroToOne(fold_batch_norm(generator)).cpu().eval(),
        (torch.rand(1, 3, 24, 16),),
        encoded,
        input_names=["lr"],
        output_names=["sr"],
        dynamic_axes={
            "lr": {0: "n", 2: "h", 3: "w"},
            "sr": {0: "n", 2: "sh", 3: "sw"},
        },
        dynamo=False,  # needs onnx only; the other way onnxscript as well
    )
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded.getvalue())
