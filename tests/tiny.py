"""Networks, settings and pictures small enough to train in a second."""

import hashlib
import json

import numpy as np
import torch
from easydict import EasyDict
from torch import nn
from torch.nn import functional as F

from srgan_lib.checkpoints import save_weights
from srgan_lib.config import load_profile
from srgan_lib.images import IMAGENET_MEAN, IMAGENET_STD, write_image
from srgan_lib.imresize import imresize
from srgan_lib.losses import FrozenFeatures

MEAN = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
STD = torch.tensor(IMAGENET_STD).view(3, 1, 1)


class Features(FrozenFeatures):
    """A content network of one small layer, in the place of a large one."""

    name = "one layer"

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.layer = nn.Conv2d(3, 4, 3, stride=2)
        self.freeze()

    def forward(self, images):
        return [self.layer(images)]


class Bicubic(nn.Module):
    """Bicubic, in the form of a generator: it is exactly as good.

    A batch norm has the statistics of photographs, and is undone behind.
    """

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.norm.running_mean += 0.1
        self.norm.running_var *= 1.2

    def forward(self, lr):
        x = self.norm(lr) * 1.2**0.5 + 0.1
        x = (x * STD + MEAN) * 2 - 1
        x = F.interpolate(x, scale_factor=4, mode="bicubic", antialias=True)
        return x.clip(-1, 1)


def tiny_config(**runs):
    """The profile smoke, smaller: two epochs of three steps a run."""
    config = load_profile("smoke")
    config.G.update(n_channels=4, n_blocks=1, large_kernel_size=3)
    config.D.update(n_channels=2, n_blocks=4, fc_size=4)
    config.update(steps_per_epoch=3, history_every=2)
    config.srresnet.update(batch_size=2, crop_size=16)
    config.srgan.update(batch_size=2, crop_size=36)
    blank = {"epochs": 2, "start": None, "snapshot_of": None}
    config.runs = {name: blank | run for name, run in runs.items()}
    config.faults = None
    return EasyDict(config)


def ship(path, generator):
    """Write weights of tiny_config as the library's: half, with a record."""
    architecture = {"scaling_factor": 4, "G": tiny_config().G}
    save_weights(
        path, generator, half=True, architecture=json.dumps(architecture)
    )
    record = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "architecture": architecture,
    }
    path.with_suffix(".json").write_text(json.dumps(record))


def smooth_image(height, width, seed=0):
    """Random, but with something that a network can learn: no noise."""
    draw = np.random.default_rng(seed)
    small = draw.integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return imresize(small, 4)


def write_pictures(folder, sizes=((48, 40), (48, 40)), seed=0):
    """Write 0.png, 1.png, ...; returns their paths."""
    paths = []
    for k, size in enumerate(sizes):
        paths.append(folder / f"{k}.png")
        write_image(paths[-1], smooth_image(*size, seed + k))
    return paths
