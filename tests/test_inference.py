"""Loading a generator by name, and enlarging in one piece or in tiles."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import smooth_image, tiny_config
from torch import nn

from srgan_lib import inference
from srgan_lib.checkpoints import save_weights
from srgan_lib.errors import UserError
from srgan_lib.images import denormalize_sr, normalize_lr, to_image, to_tensor
from srgan_lib.inference import load_generator, receptive_margin, upscale
from srgan_lib.models import Generator

pytestmark = pytest.mark.usefixtures("one_thread")


def random_generator(scale=4, **changes):
    """A generator whose pictures are no flat gray."""
    torch.manual_seed(0)
    config = tiny_config()
    config.scaling_factor = scale
    config.G.update(changes)
    generator = Generator(config).eval()
    with torch.no_grad():
        generator.tail[0].weight.mul_(20)
    return generator


def save(path, generator, scale=4):
    config = tiny_config()
    architecture = {"scaling_factor": scale, "G": config.G}
    save_weights(path, generator, architecture=json.dumps(architecture))


# --- enlarging -----------------------------------------------------------


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_upscale_is_the_network_between_its_value_ranges(scale):
    generator, image = random_generator(scale), smooth_image(20, 12)
    sr = upscale(generator, image)
    assert sr.shape == (20 * scale, 12 * scale, 3) and sr.dtype == np.uint8
    with torch.no_grad():
        expected = generator(normalize_lr(to_tensor(image))[None])[0]
    expected = to_image(denormalize_sr(expected)).astype(int)
    assert np.abs(sr - expected).max() <= 1  # another order of sums
    assert sr.std() > 5


def test_an_image_of_one_pixel_is_enlarged():
    image = np.full((1, 1, 3), 77, np.uint8)
    assert upscale(random_generator(), image).shape == (4, 4, 3)


def test_the_generator_is_put_into_eval_mode():
    generator, image = random_generator().train(), smooth_image(20, 12)
    before = generator.merge[1].running_mean.clone()
    upscale(generator, image)
    assert not generator.training
    assert torch.equal(generator.merge[1].running_mean, before)


def test_what_is_no_uint8_image_is_refused():
    with pytest.raises(ValueError, match="uint8"):
        upscale(random_generator(), np.zeros((8, 8, 3)))


@pytest.mark.parametrize("tile", [1, 7, 16, 30, 1000])
@pytest.mark.parametrize("scale", [2, 4])
def test_tiles_show_no_seams(tile, scale):
    generator = random_generator(scale)
    image = smooth_image(32, 24)[:31, :23]
    whole = upscale(generator, image).astype(int)
    tiled = upscale(generator, image, tile)
    assert tiled.shape == whole.shape
    assert np.abs(tiled - whole).max() <= 1


def test_without_the_margin_there_are_seams(monkeypatch):
    """So the test above can fail."""
    generator, image = random_generator(), smooth_image(32, 24)
    whole = upscale(generator, image).astype(int)
    monkeypatch.setattr(inference, "receptive_margin", lambda g: 0)
    assert np.abs(upscale(generator, image, 8) - whole).max() > 1


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize(
    "changes", [{}, {"large_kernel_size": 9, "n_blocks": 2}]
)
def test_the_margin_is_how_far_a_pixel_is_felt(scale, changes):
    generator = random_generator(scale, **changes).double()
    for module in generator.modules():  # so that nothing cancels out
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 0.01)
    lr = torch.zeros(1, 3, 41, 41, dtype=torch.double, requires_grad=True)
    sr = generator.upscale(
        (x := generator.head(lr))
        + generator.merge(generator.residual_blocks(x))
    )
    sr = generator.tail[0](sr)  # before tanh, which may saturate
    middle = 20 * scale + scale // 2
    sr[0, :, middle - scale // 2 : middle + scale // 2].sum().backward()
    felt = torch.nonzero(lr.grad.abs().sum(dim=(0, 1, 3)) > 0).flatten()
    reach = (felt - 20).abs().max().item()
    assert reach <= receptive_margin(generator) <= reach + 1


# --- loading -------------------------------------------------------------


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("scale", [2, 4])
def test_a_generator_comes_back_from_a_file_or_a_runs_folder(tmp_path, scale):
    generator = random_generator(scale)
    save(tmp_path / "weights.safetensors", generator, scale)
    for place in (tmp_path, tmp_path / "weights.safetensors", str(tmp_path)):
        loaded = load_generator(place)
        assert same(loaded, generator) and not loaded.training


def test_a_shipped_generator_comes_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "WEIGHTS", tmp_path)
    save(tmp_path / "mine.safetensors", random_generator())
    assert same(load_generator("mine"), random_generator())
    with pytest.raises(UserError, match=r"no generator 'yours'; .* mine, a"):
        load_generator("yours")


def test_a_run_without_weights_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no weights at .*weights\.safe"):
        load_generator(tmp_path)


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    save(path, random_generator())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"a\.safetensors is no complete"):
        load_generator(path)


def test_a_file_that_does_not_tell_its_architecture_is_named(tmp_path):
    save_file({"x": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="does not say which architecture"):
        load_generator(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "architecture", ["ESRGAN", "{}", "[1]", '{"scaling_factor": 3, "G": {}}']
)
def test_weights_of_another_program_are_named(tmp_path, architecture):
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.ones(1)}, path, {"architecture": architecture})
    with pytest.raises(UserError, match=r"a\.safetensors holds another kind"):
        load_generator(path)


def test_weights_that_contradict_their_architecture_are_named(tmp_path):
    save(tmp_path / "a.safetensors", random_generator(2), scale=4)
    with pytest.raises(UserError, match=r"another architecture: upscale\.1"):
        load_generator(tmp_path / "a.safetensors")
