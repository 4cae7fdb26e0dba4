"""The networks: SRResNet, its adversarial twin, and the discriminator.

Written anew after Ledig et al. (2017), figure 4; names and interfaces
follow the course's models.py, which follows sgrvinod's tutorial (NOTICE).
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from srgan_lib.checkpoints import load_weights

ACTIVATIONS = {
    "prelu": nn.PReLU,
    "leakyrelu": lambda: nn.LeakyReLU(0.2, inplace=True),
    "tanh": nn.Tanh,
    None: nn.Identity,
}


class ConvolutionalBlock(nn.Sequential):
    """Convolution, then batch norm and an activation where asked for.

    activation: "prelu", "leakyrelu" (slope 0.2), "tanh" or None.
    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        batch_norm=False,
        activation=None,
    ):
        layers = [
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride,
                padding=kernel_size // 2,
            )
        ]
        if batch_norm:
            layers.append(nn.BatchNorm2d(out_channels))
        if activation is not None:
            layers.append(ACTIVATIONS[activation]())
        super().__init__(*layers)


class SubPixelConvolutionalBlock(nn.Sequential):
    """Enlarge by 2: four maps for each one, then shuffled into place.

    Shi et al. (2016), section 2.2. (N, C, H, W) -> (N, C, 2H, 2W)
    """

    def __init__(self, n_channels, kernel_size=3):
        super().__init__(
            nn.Conv2d(
                n_channels,
                4 * n_channels,
                kernel_size,
                padding=kernel_size // 2,
            ),
            nn.PixelShuffle(2),
            nn.PReLU(),
        )
        self.start_even()

    @torch.no_grad()
    def start_even(self):
        """Give the four maps of each channel the same first weights."""
        # Else the four pixels made of one differ from the start, as a
        # checkerboard does. Aitken et al. (2017), arXiv 1707.02937.
        for parameter in self[0].parameters():
            parameter.copy_(parameter[::4].repeat_interleave(4, dim=0))


class ResidualBlock(nn.Module):
    """Two convolutions learn what to add to the input.

    (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(self, n_channels, kernel_size=3):
        super().__init__()
        self.body = nn.Sequential(
            ConvolutionalBlock(
                n_channels,
                n_channels,
                kernel_size,
                batch_norm=True,
                activation="prelu",
            ),
            ConvolutionalBlock(
                n_channels, n_channels, kernel_size, batch_norm=True
            ),
        )

    def forward(self, x):
        return x + self.body(x)


def convolve_shuffled(x, convolution):
    """convolution(pixel_shuffle(x, 2)), without making the large maps.

    Each of the four pixels of a cell meets the kernel at another offset.
    So four kernels of half the size, on the maps before the shuffle, give
    the same sums; only their few results are shuffled.
    (N, 4C, H, W) -> (N, out_channels, 2H, 2W)
    """
    reach = convolution.kernel_size[0] // 2
    odd = reach % 2
    pads = [(odd, odd + 1), (odd + 1, odd)]  # of the first, the second pixel
    kernels = torch.stack(
        [
            F.pad(convolution.weight, across + down)
            for down in pads
            for across in pads
        ],
        dim=1,
    )  # (out, 4, C, 2K, 2K), K taps each way on the maps
    kernels = kernels.unflatten(4, (-1, 2)).unflatten(3, (-1, 2))
    kernels = kernels.permute(0, 1, 2, 4, 6, 3, 5)  # (out, 4, C, 2, 2, K, K)
    small = F.conv2d(
        x,
        kernels.flatten(2, 4).flatten(0, 1),
        convolution.bias.repeat_interleave(4),
        padding=reach // 2 + odd,
    )
    return F.pixel_shuffle(small, 2)


class SRResNet(nn.Module):
    """The generator of Ledig et al. (2017), figure 4; at its end a tanh.

    config: `scaling_factor` (2, 4 or 8) and the table `G`.
    lr (N, 3, H, W), ImageNet-normalized -> sr (N, 3, sH, sW) in [-1, 1]
    """

    def __init__(self, config):
        super().__init__()
        scale, g = config.scaling_factor, config.G
        if scale not in (2, 4, 8):
            raise ValueError(f"scaling_factor is 2, 4 or 8, not {scale}.")
        self.head = ConvolutionalBlock(
            3, g.n_channels, g.large_kernel_size, activation="prelu"
        )
        self.residual_blocks = nn.Sequential(
            *(
                ResidualBlock(g.n_channels, g.small_kernel_size)
                for _ in range(g.n_blocks)
            )
        )
        self.merge = ConvolutionalBlock(
            g.n_channels, g.n_channels, g.small_kernel_size, batch_norm=True
        )
        self.upscale = nn.Sequential(
            *(
                SubPixelConvolutionalBlock(g.n_channels, g.small_kernel_size)
                for _ in range(int(math.log2(scale)))
            )
        )
        self.tail = ConvolutionalBlock(
            g.n_channels, 3, g.large_kernel_size, activation="tanh"
        )

    def forward(self, lr):
        features = self.head(lr)  # (N, C, H, W)
        deep = self.merge(self.residual_blocks(features))
        if self.training:
            return self.enlarge_faster(features + deep)
        large = self.upscale(features + deep)  # (N, C, sH, sW)
        return self.tail(large)  # (N, 3, sH, sW)

    def enlarge_faster(self, maps):
        """tail(upscale(maps)), but the last shuffle comes last of all.

        To a PReLU of one slope it is the same, and a training step takes a
        sixth less time.
        """
        *blocks, last = self.upscale
        for block in blocks:
            maps = block(maps)
        convolution, _, activation = last
        maps = activation(convolution(maps))  # (N, 4C, sH / 2, sW / 2)
        convolution, activation = self.tail
        return activation(convolve_shuffled(maps, convolution))


class Generator(SRResNet):
    """SRResNet under the name it has in a GAN."""

    def initialize_with_srresnet(self, checkpoint):
        """Take the weights in the .safetensors file of an SRResNet."""
        load_weights(self, checkpoint)
        return self


class Discriminator(nn.Module):
    """Tells photographs from generated images: one logit an image.

    config: the table `D`. Blocks of stride 1 double the channels, blocks
    of stride 2 halve the image. Ledig et al. (2017), figure 4.
    (N, 3, H, W) in [-1, 1], H and W at least 32 -> (N, 1)
    """

    def __init__(self, config):
        super().__init__()
        d = config.D
        blocks, channels = [], 3
        for i in range(d.n_blocks):
            grown = d.n_channels if i == 0 else channels * (2 - i % 2)
            blocks.append(
                ConvolutionalBlock(
                    channels,
                    grown,
                    d.kernel_size,
                    stride=1 + i % 2,
                    batch_norm=i > 0,
                    activation="leakyrelu",
                )
            )
            channels = grown
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(6), nn.Flatten())
        self.judge = nn.Sequential(
            nn.Linear(channels * 36, d.fc_size),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(d.fc_size, 1),
        )

    def forward(self, *batches):
        """The logits of one batch, or of several, in a tuple.

        Batch norm sees each batch alone; the large linear layer, whose
        weights take longest to read, sees all of them at once.
        """
        for images in batches:
            if min(images.shape[-2:]) < 32:
                raise ValueError(
                    "The discriminator needs images of 32 pixels or more, "
                    f"not {images.shape[-2]} x {images.shape[-1]}."
                )
        maps = [self.pool(self.blocks(images)) for images in batches]
        logits = self.judge(torch.cat(maps)).split([len(m) for m in maps])
        return logits if len(batches) > 1 else logits[0]
