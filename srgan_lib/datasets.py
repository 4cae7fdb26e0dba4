"""Training data: aligned random crops from images kept in memory."""

import numpy as np
from torch.utils.data import Dataset, Sampler

from srgan_lib.errors import UserError
from srgan_lib.images import (
    normalize_hr,
    normalize_lr,
    read_image,
    to_tensor,
)


class ImageStore:
    """Images by path: decoded once, kept as uint8 up to a limit of bytes."""

    def __init__(self, limit):
        self.limit, self.held, self.images = limit, 0, {}

    def __getitem__(self, path):
        if path in self.images:
            return self.images[path]
        image = read_image(path)
        if self.held + image.nbytes <= self.limit:
            self.images[path] = image
            self.held += image.nbytes
        return image


class SRDataset(Dataset):
    """Random crops of lr and the matching hr, without end.

    Crop number n comes from image n % images, at a place that depends on
    (seed, n) alone: whoever asks for it, in whatever order, on whichever
    process, gets the same one. So a resumed run needs no random state.

    pairs: list of (hr path, lr path); crop_size: of hr, in pixels.
    dataset[n] -> lr (3, h, w) ImageNet-normalized, hr (3, H, W) in [-1, 1]
    """

    def __init__(self, pairs, config, crop_size):
        self.pairs = pairs
        self.scale = config.scaling_factor
        self.lr_size = crop_size // self.scale
        self.crops_per_image = config.crops_per_image
        self.augment = config.augment
        self.seed = config.seed
        self.store = ImageStore(config.cache_gigabytes * 1e9)

    def __len__(self):
        return len(self.pairs) * self.crops_per_image

    def __getitem__(self, n):
        lr, hr = self.crop(n)
        return normalize_lr(to_tensor(lr)), normalize_hr(to_tensor(hr))

    def crop(self, n):
        """Crop number n as uint8 arrays: lr (h, w, 3), hr (H, W, 3)."""
        hr_path, lr_path = self.pairs[n % len(self.pairs)]
        lr, hr = self.store[lr_path], self.store[hr_path]
        size, scale = self.lr_size, self.scale
        if min(lr.shape[:2]) < size:
            raise UserError(
                f"{hr_path} is too small for crops of {size * scale} "
                "pixels; remove it or make crop_size smaller."
            )
        draw = np.random.default_rng((self.seed, n))
        y = draw.integers(lr.shape[0] - size + 1)
        x = draw.integers(lr.shape[1] - size + 1)
        lr = lr[y : y + size, x : x + size]
        y, x, size = y * scale, x * scale, size * scale
        hr = hr[y : y + size, x : x + size]
        if self.augment:
            turns, flip = draw.integers(4), draw.integers(2)
            lr, hr = (np.rot90(i, turns)[:, :: 1 - 2 * flip] for i in (lr, hr))
        return lr, hr


class EpochBatches(Sampler):
    """Lists of crop numbers: the shuffled crops of one epoch, in batches.

    Epoch e holds the crops from e x len(dataset) on. Its order depends
    on (seed, e) alone; `first` passes over the batches already trained.
    """

    def __init__(self, dataset, batch_size, epoch, steps, first=0):
        self.dataset, self.epoch = dataset, epoch
        self.batch_size, self.steps, self.first = batch_size, steps, first

    def __len__(self):
        return self.steps - self.first

    def __iter__(self):
        count = len(self.dataset)
        draw = np.random.default_rng((self.dataset.seed, 1, self.epoch))
        numbers = draw.permutation(count) + self.epoch * count
        for k in range(self.first, self.steps):
            yield numbers[
                k * self.batch_size : (k + 1) * self.batch_size
            ].tolist()
