"""The weights that ship with the library: what they must reach."""

import functools

import numpy as np
import pytest
import torch

from srgan_lib import data_lists, inference
from srgan_lib.data_lists import SKIMAGE
from srgan_lib.images import read_image, to_tensor
from srgan_lib.imresize import imresize
from srgan_lib.metrics import (
    color_shift,
    grid_amplitude,
    mesh_share,
    psnr,
    spectrum_distance,
)
from srgan_lib.training import native_precision

NAMES = ("srresnet", "srgan")
GOALS = {"Set5": 31.1, "Set14": 27.9}  # dB, SRResNet


@pytest.mark.parametrize("name", NAMES)
def test_weights_fit_their_record(name):
    path = inference.WEIGHTS / f"{name}.safetensors"
    assert path.stat().st_size <= 3.5e6
    generator = inference.load_generator(name)
    record = inference.provenance(name)
    parameters = sum(p.numel() for p in generator.parameters())
    assert parameters == record["parameters"] == 1_549_462
    assert all(v < 0.01 for v in record["half_precision_costs_db"].values())
    assert record["sha256"] in path.with_suffix(".md").read_text()


@functools.cache
def pictures(name, test_set):
    """[(sr, hr, bicubic)] of a test set."""
    generator = inference.load_generator(name)
    found = []
    for hr_path, lr_path in data_lists.data_list(test_set):
        lr = read_image(lr_path)
        sr = inference.upscale(generator, lr)
        hr = read_image(hr_path)[: sr.shape[0], : sr.shape[1]]
        found.append((sr, hr, imresize(lr, 4)))
    return found


def mean(measure, images):
    return np.mean([measure(*some) for some in images])


@pytest.fixture
def shipped(benchmark):
    """shipped(name, set) -> its pictures, where the set is there."""

    def look(name, test_set):
        benchmark(f"benchmark/{test_set}")
        return pictures(name, test_set)

    return look


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*legacy|.*will be removed")
@pytest.mark.parametrize("name", NAMES)
def test_every_way_to_use_them_gives_the_same(name, tmp_path):
    """Folded, in tiles, and as ONNX."""
    onnxruntime = pytest.importorskip("onnxruntime")
    generator = inference.load_generator(name)
    photograph = read_image(SKIMAGE / "coffee.png")[150:250, 200:320]
    lr = to_tensor(photograph)[None] / 255
    expected = inference.ZeroToOne(generator)(lr)
    folded = inference.ZeroToOne(inference.fold_batch_norm(generator))(lr)
    assert (folded - expected).abs().max() < 1e-5
    path = tmp_path / "a.onnx"
    inference.export_onnx(generator, path)
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(["sr"], {"lr": lr.numpy()})
    assert np.abs(found - expected.numpy()).max() < 1e-4
    whole = inference.upscale(generator, photograph).astype(int)
    tiled = inference.upscale(generator, photograph, tile=37)
    assert np.abs(tiled - whole).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_tiles_show_no_seams_in_16_bits(name):
    """As `srgan upscale` computes where the processor has bfloat16."""
    if native_precision() != "bf16":
        pytest.skip("neither processor nor GPU computes in bfloat16")
    generator = inference.fold_batch_norm(inference.load_generator(name))
    generator = inference.Frugal(generator)
    photograph = read_image(SKIMAGE / "chelsea.png")[50:161, 100:251]
    exact = inference.upscale(generator, photograph).astype(int)
    with torch.autocast("cpu", torch.bfloat16):
        whole = inference.upscale(generator, photograph).astype(int)
        tiled = [inference.upscale(generator, photograph, t) for t in (16, 37)]
    assert (whole != exact).any()  # it did compute in 16 bits
    for tiles in tiled:
        gap = np.abs(tiles - whole)
        assert gap.max() <= 1 and (gap > 0).mean() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("test_set", GOALS)
def test_srresnet_reaches_its_goal(shipped, test_set):
    found = shipped("srresnet", test_set)
    assert mean(lambda sr, hr, _: psnr(sr, hr), found) >= GOALS[test_set]


def test_neither_answer_of_the_discriminator_is_pinned():
    for answers in inference.provenance("srgan")["discriminators"]:
        assert 0.02 < answers["D(fake)"] < answers["D(real)"] < 0.98


@pytest.mark.slow
def test_srgan_is_sharp_and_near(shipped):
    before, after = (shipped(n, "Set14") for n in ("srresnet", "srgan"))
    decibels, sharpness = (
        [mean(lambda sr, hr, _, m=m: m(sr, hr), f) for f in (before, after)]
        for m in (psnr, spectrum_distance)
    )
    assert decibels[0] - decibels[1] <= 2.5
    assert sharpness[0] >= 3 * sharpness[1]


@pytest.mark.slow
def test_srgan_makes_no_grid_no_mesh_and_keeps_colors(shipped):
    found = shipped("srgan", "Set14")
    # The originals, which have meshes of cloth and wire: 0.038.
    assert mean(lambda sr, hr, _: mesh_share(sr), found) < 0.08
    assert mean(lambda sr, hr, _: grid_amplitude(sr, hr), found) < 0.5
    assert mean(lambda sr, _, bicubic: color_shift(sr, bicubic), found) < 0.5
