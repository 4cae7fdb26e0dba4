"""The usual way, as most tutorials train SRGAN: what ours is measured against.

32-bit numbers, channels first, PyTorch's plain Adam, and a DataLoader that
opens an image file for each crop. The same networks, the same losses.
"""

import random
from unittest import mock

import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as transforms

from srgan_lib import losses
from srgan_lib.images import IMAGENET_MEAN, IMAGENET_STD
from srgan_lib.losses import content_terms, load_features
from srgan_lib.models import Generator


class Crops(Dataset):
    """Crop n of file n % files: opened, decoded, cropped, shrunk anew.

    lr (3, h, w) ImageNet-normalized, hr (3, H, W) in [-1, 1]
    """

    def __init__(self, paths, crop_size, scale, count):
        self.paths, self.count = paths, count
        self.crop_size, self.lr_size = crop_size, crop_size // scale

    def __len__(self):
        return self.count

    def __getitem__(self, n):
        image = Image.open(self.paths[n % len(self.paths)]).convert("RGB")
        left = random.randint(0, image.width - self.crop_size)
        top = random.randint(0, image.height - self.crop_size)
        hr = image.crop(
            (left, top, left + self.crop_size, top + self.crop_size)
        )
        lr = hr.resize((self.lr_size, self.lr_size), Image.Resampling.BICUBIC)
        lr = transforms.normalize(
            transforms.to_tensor(lr), IMAGENET_MEAN, IMAGENET_STD
        )
        return lr, 2 * transforms.to_tensor(hr) - 1


def loader(paths, crop_size, scale, batch_size, batches, workers):
    """So many batches of crops, by so many worker processes."""
    return DataLoader(
        Crops(paths, crop_size, scale, batches * batch_size),
        batch_size,
        shuffle=True,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )


class PlainGenerator(Generator):
    """The generator as it is drawn: shuffle first, then convolve."""

    def enlarge_faster(self, maps):
        return self.tail(self.upscale(maps))


def plain_features(stage):
    """The content network as its package has it."""
    with mock.patch.object(losses, "simplify", lambda block: None):
        return load_features(stage)


def srresnet_steps(generator, optimizer, batches):
    """Train on each batch; yields the losses."""
    for lr, hr in batches:
        sr = generator(lr)
        loss = F.mse_loss(sr, hr)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def one_by_one(discriminator, *batches):
    return [discriminator(images) for images in batches]


def srgan_steps(
    generator,
    discriminator,
    features,
    g_optimizer,
    d_optimizer,
    batches,
    judge=one_by_one,
):
    """Train both networks on each batch; yields the generator's losses."""
    for lr, hr in batches:
        sr = generator(lr)
        content = content_terms(features, sr, hr).sum()
        logits = discriminator(sr)
        adversarial = F.binary_cross_entropy_with_logits(
            logits, torch.ones_like(logits)
        )
        loss = content + 1e-3 * adversarial
        g_optimizer.zero_grad()
        loss.backward()
        g_optimizer.step()

        real, fake = judge(discriminator, hr, sr.detach())
        d_loss = F.binary_cross_entropy_with_logits(
            real, torch.ones_like(real)
        ) + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
        d_optimizer.zero_grad()
        d_loss.backward()
        d_optimizer.step()
        yield loss.item()
