"""The networks: their sizes, shapes and first weights."""

import pytest
import torch
from easydict import EasyDict
from torch import nn

from srgan_lib.checkpoints import save_weights
from srgan_lib.errors import UserError
from srgan_lib.models import (
    ConvolutionalBlock,
    Discriminator,
    Generator,
    ResidualBlock,
    SRResNet,
    SubPixelConvolutionalBlock,
    convolve_shuffled,
)


def settings(scale=4, n_channels=4, n_blocks=1, **discriminator):
    """A small configuration of both networks."""
    return EasyDict(
        scaling_factor=scale,
        G={
            "large_kernel_size": 9,
            "small_kernel_size": 3,
            "n_channels": n_channels,
            "n_blocks": n_blocks,
        },
        D={"kernel_size": 3, "n_channels": 4, "n_blocks": 8, "fc_size": 6}
        | discriminator,
    )


def count(module):
    return sum(p.numel() for p in module.parameters())


def convolutions(module):
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


# --- blocks --------------------------------------------------------------


def test_a_convolutional_block_keeps_or_halves_the_size():
    x = torch.randn(2, 3, 12, 10)
    for kernel in (3, 5, 9):
        assert ConvolutionalBlock(3, 5, kernel)(x).shape == (2, 5, 12, 10)
    assert ConvolutionalBlock(3, 5, 3, stride=2)(x).shape == (2, 5, 6, 5)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (None, [-2.0, 3.0]),
        ("prelu", [-0.5, 3.0]),  # PyTorch's first slope is 1/4
        ("leakyrelu", [-0.4, 3.0]),
        ("tanh", [-0.9640276, 0.9950547]),
    ],
)
def test_a_block_ends_with_its_activation(activation, expected):
    block = ConvolutionalBlock(1, 1, 1, activation=activation)
    nn.init.ones_(block[0].weight)
    nn.init.zeros_(block[0].bias)
    out = block(torch.tensor([-2.0, 3.0]).view(1, 1, 1, 2))
    torch.testing.assert_close(out.flatten(), torch.tensor(expected))


def test_batch_norm_is_there_where_asked_for():
    kinds = [type(m) for m in ConvolutionalBlock(3, 3, 3, batch_norm=True)]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d]
    assert len(ConvolutionalBlock(3, 3, 3)) == 1


def test_a_residual_block_adds_to_its_input():
    block = ResidualBlock(4)
    assert [type(m) for part in block.body for m in part] == [
        *(nn.Conv2d, nn.BatchNorm2d, nn.PReLU),
        *(nn.Conv2d, nn.BatchNorm2d),
    ]
    nn.init.zeros_(block.body[1][1].weight)
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(block(x), x)


def test_first_weights_of_the_sub_pixel_block_draw_no_checkerboard():
    block = SubPixelConvolutionalBlock(4)
    out = block(torch.randn(2, 4, 6, 5))
    assert out.shape == (2, 4, 12, 10) and out.std() > 0
    for y, x in ((0, 1), (1, 0), (1, 1)):
        assert torch.equal(out[..., ::2, ::2], out[..., y::2, x::2])
    # Not a single map for all channels, though.
    assert not torch.allclose(out[:, 0], out[:, 1])


def test_the_shuffle_puts_map_k_at_pixel_k():
    block = SubPixelConvolutionalBlock(1, kernel_size=1)
    nn.init.zeros_(block[0].weight)
    block[0].bias.data = torch.arange(4.0)
    out = block(torch.zeros(1, 1, 1, 1))
    assert out[0, 0].tolist() == [[0.0, 1.0], [2.0, 3.0]]


@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 9, 11])
def test_convolving_before_the_shuffle_is_the_same(kernel):
    convolution = nn.Conv2d(3, 2, kernel, padding=kernel // 2).double()
    x = torch.randn(2, 12, 5, 7).double()
    torch.testing.assert_close(
        convolve_shuffled(x, convolution),
        convolution(nn.functional.pixel_shuffle(x, 2)),
    )


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_training_takes_the_faster_way_to_the_same_pixels(scale):
    network = SRResNet(settings(scale)).double()
    gradients, outputs = [], []
    for enlarge in (
        lambda maps: network.tail(network.upscale(maps)),
        network.enlarge_faster,
    ):
        network.zero_grad()
        maps = torch.randn(
            2, 4, 3, 5, generator=torch.Generator().manual_seed(0)
        ).double()
        outputs.append(enlarge(maps))
        outputs[-1].square().sum().backward()
        parameters = [*network.upscale.parameters()]
        parameters += network.tail.parameters()
        gradients.append([p.grad.clone() for p in parameters])
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*gradients)


# --- generator -----------------------------------------------------------


def test_srresnet_has_1_549_462_parameters():
    full = SRResNet(settings(n_channels=64, n_blocks=16))
    assert count(full) == 1_549_462


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("size", [(6, 5), (1, 1)])
def test_srresnet_enlarges_by_its_scale(scale, size):
    network = SRResNet(settings(scale)).eval()
    sr = network(torch.randn(2, 3, *size))
    assert sr.shape == (2, 3, size[0] * scale, size[1] * scale)


def test_another_scale_is_refused():
    with pytest.raises(ValueError, match="2, 4 or 8, not 3"):
        SRResNet(settings(scale=3))


def test_sr_stays_within_its_range_whatever_comes_in():
    sr = SRResNet(settings())(1000 * torch.randn(2, 3, 8, 8))
    assert sr.abs().max() <= 1
    assert sr.abs().max() > 0.5  # a tanh, not a factor


def test_the_skip_passes_over_all_residual_blocks():
    network = SRResNet(settings(n_blocks=2)).eval()
    lr = torch.randn(1, 3, 6, 6)
    whole = network(lr)
    nn.init.zeros_(network.merge[1].weight)  # the deep branch adds nothing
    bare = network.tail(network.upscale(network.head(lr)))
    torch.testing.assert_close(network(lr), bare)
    assert not torch.allclose(whole, bare)


def test_settings_reach_the_convolutions():
    config = settings(n_channels=6, n_blocks=3)
    config.G.update(large_kernel_size=7, small_kernel_size=5)
    network = SRResNet(config)
    sizes = [m.kernel_size[0] for m in convolutions(network)]
    assert sizes == [7, *[5] * (2 * 3 + 1 + 2), 7]
    assert len(network.residual_blocks) == 3
    assert network.head[0].out_channels == 6


def test_a_generator_begins_from_a_trained_srresnet(tmp_path):
    trained = SRResNet(settings())
    trained(torch.randn(4, 3, 8, 8))  # moves batch norm's statistics
    save_weights(tmp_path / "a.safetensors", trained)
    generator = Generator(settings())
    assert (
        generator.initialize_with_srresnet(tmp_path / "a.safetensors")
        is generator
    )
    found, wanted = generator.state_dict(), trained.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert generator.head[0].weight is not trained.head[0].weight


@pytest.mark.parametrize(
    ("other", "key"),
    [
        ({"n_channels": 8}, "head.0.bias"),
        ({"n_blocks": 2}, "residual_blocks.1"),
        ({"scale": 8}, "upscale.2"),
    ],
)
def test_another_architecture_is_refused_by_name(tmp_path, other, key):
    path = tmp_path / "a.safetensors"
    save_weights(path, SRResNet(settings(**other)))
    generator = Generator(settings())
    before = {k: v.clone() for k, v in generator.state_dict().items()}
    with pytest.raises(UserError) as caught:
        generator.initialize_with_srresnet(path)
    assert str(path) in str(caught.value) and key in str(caught.value)
    after = generator.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before)


# --- discriminator -------------------------------------------------------


def test_the_discriminator_of_the_paper():
    config = settings(fc_size=1024)
    config.D.n_channels = 64
    with torch.device("meta"):  # shapes alone, no memory
        full = Discriminator(config)
    outs = [m.out_channels for m in convolutions(full)]
    assert outs == [64, 64, 128, 128, 256, 256, 512, 512]
    strides = [m.stride[0] for m in convolutions(full)]
    assert strides == [1, 2, 1, 2, 1, 2, 1, 2]
    norms = [isinstance(block[1], nn.BatchNorm2d) for block in full.blocks]
    assert norms == [False, *[True] * 7]
    assert full.judge[0].in_features == 512 * 6 * 6


@pytest.mark.parametrize("size", [(32, 32), (32, 45), (96, 96), (200, 33)])
def test_one_logit_for_images_of_32_pixels_and_more(size):
    logits = Discriminator(settings())(torch.randn(2, 3, *size))
    assert logits.shape == (2, 1)


@pytest.mark.parametrize("size", [(31, 31), (31, 96), (96, 31)])
def test_smaller_images_are_refused(size):
    with pytest.raises(ValueError, match=f"not {size[0]} x {size[1]}"):
        Discriminator(settings())(torch.randn(2, 3, *size))


@pytest.mark.parametrize("fc_size", [1, 7])
def test_fc_size_is_honored(fc_size):
    network = Discriminator(settings(fc_size=fc_size))
    linear = [m for m in network.modules() if isinstance(m, nn.Linear)]
    assert [m.out_features for m in linear] == [fc_size, 1]
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 1)


def test_logits_are_not_squashed():
    network = Discriminator(settings())
    nn.init.constant_(network.judge[-1].bias, 50.0)
    assert network(torch.randn(2, 3, 32, 32)).min() > 10
