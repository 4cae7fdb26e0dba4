"""Loading a generator by name, and enlarging in one piece or in tiles."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import save_file
from tiny import ship, smooth_image, tiny_config
from torch import nn

from srgan_lib import inference
from srgan_lib.checkpoints import save_weights
from srgan_lib.errors import UserError
from srgan_lib.images import (
    denormalize_sr,
    normalize_lr,
    to_image,
    to_tensor,
    to_uint8,
)
from srgan_lib.inference import (
    GIB,
    Frugal,
    SelfEnsemble,
    ZeroToOne,
    export_onnx,
    fitting_tile,
    fold_batch_norm,
    free_memory,
    interpolate_networks,
    load_generator,
    memory_per_pixel,
    receptive_margin,
    upscale,
)
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
    for shape in ((8, 8), (8, 8, 4)):
        with pytest.raises(ValueError, match=r"takes \(H, W, 3\), not \(8"):
            upscale(random_generator(), np.zeros(shape, np.uint8))


@pytest.mark.parametrize("tile", [1, 7, 16, 30, 1000])
@pytest.mark.parametrize("scale", [2, 4])
def test_tiles_show_no_seams(tile, scale):
    generator = random_generator(scale)
    image = smooth_image(32, 24)[:31, :23]
    whole = upscale(generator, image).astype(int)
    tiled = upscale(generator, image, tile)
    assert tiled.shape == whole.shape
    assert np.abs(tiled - whole).max() <= 1


@pytest.mark.parametrize("tile", [5, 16, 100])
@pytest.mark.parametrize("size", [(1, 1), (1, 37), (37, 1), (17, 33)])
def test_tiles_of_awkward_images_show_no_seams(size, tile):
    """Thinner than a tile, smaller than the margin, one pixel too many."""
    generator = random_generator(large_kernel_size=9, n_blocks=3)
    image = smooth_image(40, 40)[: size[0], : size[1]]
    whole = upscale(generator, image).astype(int)
    for network in (generator, Frugal(generator, 8)):
        tiled = upscale(network, image, tile)
        assert tiled.shape == (4 * size[0], 4 * size[1], 3)
        assert np.abs(tiled - whole).max() <= 1


def test_each_tile_is_reported():
    reported = []

    def progress(tiles):
        reported.extend(tiles)
        return tiles

    image = smooth_image(20, 28)
    upscale(random_generator(), image, tile=16, progress=progress)
    assert reported == [(0, 0), (0, 16), (16, 0), (16, 16)]


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


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """The path of `mine`, weights that come with the library, in half."""
    monkeypatch.setattr(inference, "WEIGHTS", tmp_path)
    path = tmp_path / "mine.safetensors"
    ship(path, random_generator())
    return path


def test_a_shipped_generator_comes_by_its_name(shipped):
    loaded = load_generator("mine")
    assert same(loaded, random_generator().half().float())
    assert next(loaded.parameters()).dtype == torch.float32
    with pytest.raises(UserError, match=r"no generator 'yours'; .* mine, a"):
        load_generator("yours")


def test_shipped_weights_that_were_changed_are_refused(shipped):
    content = bytearray(shipped.read_bytes())
    content[-1] ^= 1  # a bit of one weight: safetensors cannot notice
    shipped.write_bytes(content)
    with pytest.raises(UserError, match=r"not the file that mine\.json desc"):
        load_generator("mine")


def test_shipped_weights_of_another_architecture_are_refused(shipped):
    record = json.loads(shipped.with_suffix(".json").read_text())
    record["architecture"]["G"]["n_blocks"] += 1
    shipped.with_suffix(".json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"not the file that mine\.json desc"):
        load_generator("mine")


@pytest.mark.parametrize("text", [None, "", "{}", '{"sha256": "0"}'])
def test_shipped_weights_without_their_record_are_refused(shipped, text):
    shipped.with_suffix(".json").unlink()
    if text is not None:
        shipped.with_suffix(".json").write_text(text)
    with pytest.raises(UserError, match=r"mine\.json does not tell the SHA"):
        load_generator("mine")


def test_what_is_shipped_can_be_loaded():
    """Hash and architecture of each file that really comes along."""
    for name in inference.shipped_names():
        generator = load_generator(name)
        assert upscale(generator, smooth_image(8, 8)).shape == (32, 32, 3)


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


# --- faster, smaller, better ---------------------------------------------


def used_generator(**changes):
    """A random generator whose batch norms have seen something."""
    generator = random_generator(**changes)
    draw = torch.Generator().manual_seed(1)
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                values.data.uniform_(0.5, 2, generator=draw)
            for values in (module.bias, module.running_mean):
                values.data.uniform_(-1, 1, generator=draw)
    return generator


LR = torch.rand(2, 3, 14, 11, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_folding_batch_norm_changes_nothing():
    generator = used_generator(n_blocks=3)
    before = copy.deepcopy(generator)
    folded = fold_batch_norm(generator)
    assert same(generator, before)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(folded(LR), generator(LR), atol=1e-5, rtol=0)
    plain = random_generator(n_blocks=3)  # so the line above can fail
    assert (plain(LR) - generator(LR)).abs().max() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("tile", [1, 5, 64])
def test_a_frugal_generator_gives_the_same(scale, tile):
    generator = used_generator(scale=scale, large_kernel_size=9)
    found = Frugal(generator, tile)(LR)
    torch.testing.assert_close(found, generator(LR), atol=1e-5, rtol=0)
    assert receptive_margin(Frugal(generator)) == receptive_margin(generator)


@torch.no_grad()
def test_the_ensemble_is_the_mean_of_eight_answers():
    generator = used_generator()
    answers = []
    for turned in (LR, LR.transpose(2, 3)):
        for dims in ((), (2,), (3,), (2, 3)):
            sr = generator(turned.flip(dims)).flip(dims)
            answers.append(sr if turned is LR else sr.transpose(2, 3))
    expected = torch.stack(answers).mean(dim=0)
    found = SelfEnsemble(generator)(LR)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (answers[0] - expected).abs().max() > 1e-2


@torch.no_grad()
def test_the_ensemble_turns_with_its_image():
    """What the generator itself does not."""
    generator = used_generator()

    def gap(network):
        turned = network(torch.rot90(LR, 1, (2, 3)))
        return (torch.rot90(network(LR), 1, (2, 3)) - turned).abs().max()

    assert gap(SelfEnsemble(generator)) < 1e-5 < 1e-2 < gap(generator)


def test_all_together_and_in_tiles():
    """What `srgan upscale` does."""
    generator, image = used_generator(), smooth_image(32, 24)[:31, :23]
    expected = upscale(SelfEnsemble(generator), image).astype(int)
    frugal = SelfEnsemble(Frugal(fold_batch_norm(generator), tile=8))
    assert np.abs(upscale(frugal, image, 16) - expected).max() <= 1


def test_bfloat16_is_near():
    generator, image = used_generator(), smooth_image(32, 24)
    exact = upscale(generator, image).astype(int)
    with torch.autocast("cpu", torch.bfloat16):
        fast = upscale(Frugal(fold_batch_norm(generator)), image)
    gap = np.abs(fast - exact)
    assert 0 < gap.mean() < 1 and np.quantile(gap, 0.99) <= 4


@pytest.mark.parametrize(
    ("gpu", "native", "words"),
    [
        (True, "bf16", "works on the GPU here"),
        (False, "bf16", "This processor computes in bfloat16"),
        (False, "no", "This processor does not compute in bfloat16"),
    ],
)
def test_the_page_says_what_the_command_line_does(gpu, native, words):
    """Its table is of the processor, whatever else the machine has."""
    page = Path(__file__).parents[1] / "book" / "upscale.md"
    cells = page.read_text(encoding="utf-8").split("```")
    (cell,) = [
        c for c in cells if "native_precision() ==" in c and "Mark" in c
    ]
    said = []
    names = {
        "torch": SimpleNamespace(
            cuda=SimpleNamespace(is_available=lambda: gpu)
        ),
        "native_precision": lambda: native,
        "Markdown": said.append,
        "reference": 30,
        "variants": dict.fromkeys(
            ("as trained", "batch norm folded", "folded, bfloat16"),
            (30, 2, []),
        ),
        "largest": {"batch norm folded": 1, "folded, bfloat16": 3},
    }
    exec(cell.rpartition("---\n")[2], names)
    assert words in said[0]
    assert ("This processor" in said[0]) != gpu


# --- memory --------------------------------------------------------------


def test_tiles_follow_from_the_free_memory():
    generator = random_generator()
    margin = receptive_margin(generator)
    sides = [fitting_tile(generator, free * GIB) for free in (0, 1, 2, 4, 99)]
    assert sides[0] == 16 and sides == sorted(sides)
    assert sides[3] == sides[4]  # more is of no use
    pixels = (sides[1] + 2 * margin) ** 2
    used = pixels * memory_per_pixel(generator)
    assert 0.45 * GIB < used <= 0.5 * GIB
    assert 0 < free_memory("cpu") <= psutil.virtual_memory().total


PEAK = """
import sys, numpy as np, torch
from easydict import EasyDict
from srgan_lib.inference import *

def peak():
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

kind = sys.argv[1]
height, width, n_blocks, n_channels = map(int, sys.argv[2:])
sizes = dict(large_kernel_size=9, small_kernel_size=3)
sizes |= dict(n_channels=n_channels, n_blocks=n_blocks)
generator = Generator(EasyDict(scaling_factor=4, G=sizes))
generator = generator.eval().to(memory_format=torch.channels_last)
if kind != "plain":
    generator = Frugal(fold_batch_norm(generator))
if kind == "ensemble":
    generator = SelfEnsemble(generator)
image = np.random.default_rng(0).integers(0, 256, (height, width, 3), "u1")
tile = None if kind == "plain" else fitting_tile(generator, 4 * 2**30)
upscale(generator, image[:64, :64])
before = peak()
sr = upscale(generator, image, tile)
assert sr.shape == (4 * height, 4 * width, 3)
print(before, peak(), height * width * memory_per_pixel(generator))
"""


def peaks(*arguments):
    """Bytes of a process of its own: before, at the peak; and foretold."""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("only Linux tells a process's peak")
    command = [sys.executable, "-c", PEAK, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return map(int, done.stdout.split())


@pytest.mark.parametrize(
    ("kind", "channels"), [("frugal", 64), ("ensemble", 8)]
)
def test_no_more_memory_is_used_than_foretold(kind, channels):
    before, peak, foretold = peaks(kind, 400, 500, 1, channels)
    assert peak - before < 1.1 * foretold


def test_a_plain_generator_takes_far_more():
    before, peak, foretold = peaks("plain", 400, 500, 1, 64)
    assert peak - before > 3 * foretold


@pytest.mark.slow
def test_two_megapixels_pass_within_four_gibibytes():
    """The network of the paper; its weights do not matter here."""
    _, peak, _ = peaks("frugal", 1200, 1700, 16, 64)
    assert peak < 4 * GIB


# --- other programs ------------------------------------------------------


def test_networks_on_the_line_between_two():
    start, end = random_generator(), used_generator()
    before = copy.deepcopy(start), copy.deepcopy(end)
    for reach in (0, 0.25, 1, 1.5):
        found = interpolate_networks(start, end, reach)
        for value, a, b in zip(
            *(g.parameters() for g in (found, start, end)), strict=True
        ):
            expected = (1 - reach) * a + reach * b
            torch.testing.assert_close(value, expected)
        assert not found.training
    assert same(start, before[0]) and same(end, before[1])
    for other in ({"n_blocks": 2}, {"large_kernel_size": 5}):
        with pytest.raises(UserError, match="of one architecture"):
            interpolate_networks(random_generator(**other), end, 0.5)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*legacy|.*will be removed")
def test_onnx_runtime_gives_the_same_at_any_size(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    generator, path = used_generator(n_blocks=2), tmp_path / "new" / "a.onnx"
    export_onnx(generator, path)
    session = onnxruntime.InferenceSession(path)
    for size in ((1, 3, 24, 16), (1, 3, 7, 31), (3, 3, 1, 1)):
        rgb = torch.rand(size, generator=torch.Generator().manual_seed(2))
        found = session.run(["sr"], {"lr": rgb.numpy()})[0]
        expected = ZeroToOne(generator)(rgb)
        assert found.shape == (size[0], 3, 4 * size[2], 4 * size[3])
        assert np.abs(found - expected.numpy()).max() < 1e-4
    assert not same(generator, fold_batch_norm(generator))  # left as it was


def test_zero_to_one_is_upscale_without_levels():
    generator, image = used_generator(), smooth_image(12, 16)
    with torch.no_grad():
        sr = ZeroToOne(generator)(to_tensor(image)[None] / 255)
    levels = to_image(to_uint8(sr[0] * 255)).astype(int)
    assert np.abs(levels - upscale(generator, image)).max() <= 1


def test_the_export_says_which_package_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(inference.importlib.util, "find_spec", lambda n: None)
    with pytest.raises(UserError, match="`pip install onnx`"):
        export_onnx(random_generator(), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []
