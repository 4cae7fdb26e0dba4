"""Training data: aligned random crops from images kept in memory."""

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from srgan_lib.errors import UserError
from srgan_lib.images import (
    normalize_hr,
    normalize_lr,
    read_image,
)


class ImageStore:
    """Images by path: decoded once, kept as uint8 up to a limit of bytes.

    (H, W, 3), as arrays; or as tensors on `device`, if one is given.
    """

    def __init__(self, limit, device=None):
        self.limit, self.device = limit, device
        self.held, self.images = 0, {}

    def __getitem__(self, path):
        if path in self.images:
            return self.images[path]
        image = read_image(path)
        size = image.nbytes
        if self.device is not None:
            image = torch.tensor(image, device=self.device)
        if self.held + size <= self.limit:
            self.images[path] = image
            self.held += size
        return image


class SRDataset(Dataset):
    """Random crops of lr and the matching hr, without end.

    Crop number n comes from image n % images, at a place that depends on
    (seed, n) alone: whoever asks for it, in whatever order, on whichever
    process, gets the same one. So a resumed run needs no random state.

    pairs: list of (hr path, lr path); crop_size: of hr, in pixels; device:
    where the images are kept and cropped, memory if none is given.
    dataset[n] -> lr (3, h, w) ImageNet-normalized, hr (3, H, W) in [-1, 1]
    """

    def __init__(self, pairs, config, crop_size, device=None):
        self.pairs = pairs
        self.scale = config.scaling_factor
        self.lr_size = crop_size // self.scale
        self.crops_per_image = config.crops_per_image
        self.augment = config.augment
        self.seed = config.seed
        self.store = ImageStore(config.cache_gigabytes * 1e9, device)

    def __len__(self):
        return len(self.pairs) * self.crops_per_image

    def __getitem__(self, n):
        lr, hr = self.batch([n])
        return normalize_lr(lr[0]), normalize_hr(hr[0])

    def batch(self, numbers):
        """Crops by their numbers: uint8 lr (N, 3, h, w), hr (N, 3, H, W)."""
        # In memory the channels stay last, as in the images themselves.
        sides = zip(*(self.crop(n) for n in numbers), strict=True)
        return tuple(stack(side).permute(0, 3, 1, 2) for side in sides)

    def crop(self, n):
        """Crop number n as uint8: lr (h, w, 3), hr (H, W, 3)."""
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
            turns, flip = int(draw.integers(4)), draw.integers(2)
            lr, hr = (turned(image, turns, flip) for image in (lr, hr))
        return lr, hr


def turned(image, turns, flip):
    """An image (H, W, C) after quarter turns, then mirrored if `flip`."""
    library = torch if isinstance(image, torch.Tensor) else np
    image = library.rot90(image, turns, (0, 1))
    return library.flip(image, (1,)) if flip else image


def stack(images):
    """Images (H, W, C), arrays or tensors, as one tensor (N, H, W, C)."""
    if isinstance(images[0], torch.Tensor):
        return torch.stack(images)
    return torch.from_numpy(np.stack(images))


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
