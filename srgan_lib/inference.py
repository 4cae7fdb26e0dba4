"""Using a trained generator: load it, enlarge an image with it."""

import json
from pathlib import Path

import torch
from easydict import EasyDict

from srgan_lib.checkpoints import load_weights, read_weights
from srgan_lib.errors import UserError
from srgan_lib.images import (
    denormalize_sr,
    normalize_lr,
    to_image,
    to_tensor,
)
from srgan_lib.models import Generator

WEIGHTS = Path(__file__).parent / "weights"


def load_generator(name_or_path):
    """A trained generator, ready to use.

    A name of the shipped weights, the path of a .safetensors file, or the
    folder of a run. The architecture stands in the file's metadata.
    """
    path = Path(name_or_path)
    shipped = WEIGHTS / f"{name_or_path}.safetensors"
    if shipped.is_file():
        path = shipped
    elif path.is_dir():
        path = path / "weights.safetensors"
    elif not path.is_file():
        names = sorted(p.stem for p in WEIGHTS.glob("*.safetensors"))
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


@torch.inference_mode()
def upscale(generator, image, tile=None):
    """Enlarge uint8 (H, W, 3) to uint8 (sH, sW, 3).

    tile: side, in pixels of `image`, of the squares to work on one by one
    where memory is short; None does it whole. Tiles overlap by the
    receptive field, so that their seams do not show.
    """
    generator.eval()
    if tile is None:
        return _upscale_whole(generator, image)
    margin = receptive_margin(generator)
    height, width = image.shape[:2]
    rows = []
    for top in range(0, height, tile):
        row = []
        for left in range(0, width, tile):
            y, x = max(0, top - margin), max(0, left - margin)
            piece = image[y : top + tile + margin, x : left + tile + margin]
            large = _upscale_whole(generator, piece)
            scale = large.shape[0] // piece.shape[0]
            y, x = (top - y) * scale, (left - x) * scale
            size = tile * scale
            row.append(torch.from_numpy(large[y : y + size, x : x + size]))
        rows.append(torch.cat(row, dim=1))
    return torch.cat(rows).numpy()


def _upscale_whole(generator, image):
    device = next(generator.parameters()).device
    lr = normalize_lr(to_tensor(image).to(device))[None]
    sr = generator(lr.contiguous(memory_format=torch.channels_last))
    return to_image(denormalize_sr(sr[0]))


def receptive_margin(generator):
    """How many lr pixels away a pixel can still be felt.

    Each convolution reaches (kernel - 1) / 2 pixels of its own grid, which
    is finer than lr's after each shuffle.
    """
    reach, finer = 0.0, 1
    for module in generator.modules():
        if isinstance(module, torch.nn.Conv2d):
            reach += (module.kernel_size[0] - 1) / 2 / finer
        elif isinstance(module, torch.nn.PixelShuffle):
            finer *= module.upscale_factor
    return int(reach) + 1
