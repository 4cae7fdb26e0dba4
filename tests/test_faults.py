"""Faults of a pipeline: published figures without them, the right step with
them, and a store that measures once."""

import numpy as np
import pytest
import torch
from tiny import Bicubic, smooth_image, tiny_config, write_pictures
from torch import nn

from srgan_lib import experiments, faults, metrics
from srgan_lib.data_lists import SETS, ImageSet
from srgan_lib.experiments import runs_folder
from srgan_lib.faults import FAULTS, RIGHT, faulty
from srgan_lib.images import modcrop, read_image, write_image
from srgan_lib.imresize import imresize

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = RIGHT.__dataclass_fields__
NAMED = {fault.name: fault for fault in FAULTS}


class Matlab(nn.Module):
    """imresize, byte for byte, in the form of a generator."""

    def forward(self, lr):
        lr = ((lr[0] * faults.STD + faults.MEAN) * 255).round()
        sr = imresize(lr.numpy().transpose(1, 2, 0).astype(np.uint8), 4)
        return torch.tensor(sr / 127.5 - 1).permute(2, 0, 1)[None]


# --- the figures, and published ones -------------------------------------


@pytest.fixture(scope="module")
def pair():
    hr = smooth_image(64, 80)
    return imresize(imresize(hr, 1 / 4), 4), hr


def test_the_right_figures_are_those_of_the_metrics(pair):
    assert faults.figures(RIGHT, *pair) == pytest.approx(
        (metrics.psnr(*pair), metrics.ssim(*pair)), abs=1e-9
    )
    rgb = faulty(NAMED["RGB instead of Y"])
    assert faults.figures(rgb, *pair) == pytest.approx(
        (
            metrics.psnr(*pair, channel="rgb"),
            metrics.ssim(*pair, channel="rgb"),
        )
    )
    whole = faulty(NAMED["no border cropped"])
    assert faults.figures(whole, *pair) == pytest.approx(
        (metrics.psnr(*pair, crop=0), metrics.ssim(*pair, crop=0))
    )


def test_bicubic_under_five_protocols(benchmark):
    """Set5 and Set14: MATLAB's and others' figures of plain bicubic."""
    sets = {
        name: sorted(benchmark(f"benchmark/{name}/HR").glob("*.png"))
        for name in ("Set5", "Set14")
    }
    names = (
        "RGB instead of Y",
        "no border cropped",
        "scikit-image's default SSIM",
        "Y from 0 to 255",
    )
    pipelines = {"right": RIGHT} | {n: faulty(NAMED[n]) for n in names}
    five, fourteen = (
        faults.signatures(Matlab(), paths, pipelines)
        for paths in sets.values()
    )
    assert five["right"][0] == pytest.approx(28.4165, abs=1e-4)
    assert fourteen["right"][0] == pytest.approx(26.0844, abs=1e-4)
    assert five["right"][1] == pytest.approx(0.8101, abs=5e-4)
    assert five["RGB instead of Y"][0] == pytest.approx(26.69, abs=0.01)
    skimage = five["scikit-image's default SSIM"]
    # 0.8231 on Y that was not rounded, which reads higher by a thousandth.
    assert skimage == pytest.approx((28.4165, 0.8221), abs=2e-4)
    border = fourteen["right"][0] - fourteen["no border cropped"][0]
    assert border == pytest.approx(0.21, abs=0.01)
    # 219 levels instead of 255 make every error smaller by 1.32 dB.
    levels = five["right"][0] - five["Y from 0 to 255"][0]
    assert levels == pytest.approx(1.32, abs=0.02)


# --- the faults ----------------------------------------------------------


def test_names_and_steps_are_the_tables():
    assert len(NAMED) == len(FAULTS) == len({f.function for f in FAULTS})
    assert {fault.step for fault in FAULTS} == set(STEPS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_changes_its_step_alone(fault):
    for step in STEPS:
        same = getattr(faulty(fault), step) == getattr(RIGHT, step)
        assert same == (step != fault.step)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    paths = write_pictures(tmp_path_factory.mktemp("hr"), ((66, 83),))
    return faults.signatures(Bicubic(), paths, faults.single_faults())


@pytest.mark.parametrize("name", NAMED)
def test_every_fault_can_be_measured(measured, name):
    assert measured[name] != pytest.approx(measured["no fault"], abs=1e-4)


def test_signatures_leave_the_generator_as_it_was(measured, tmp_path):
    generator = Bicubic()
    before = {k: v.clone() for k, v in generator.state_dict().items()}
    paths = write_pictures(tmp_path, ((64, 64),))
    faults.signatures(generator, paths, faults.single_faults())
    for key, value in generator.state_dict().items():
        assert torch.equal(value, before[key])


VALUES = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])


@pytest.mark.parametrize(
    ("finish", "expected"),
    [
        (faults.finished, [0, 64, 128, 191, 255]),
        (faults.truncated, [0, 63, 127, 191, 255]),
        (faults.read_as_unit, [0, 0, 0, 128, 255]),
        (faults.read_as_unit_wrapped, [1, 128, 0, 128, 255]),
        (faults.read_as_imagenet, [65, 94, 124, 153, 182]),
    ],
)
def test_finishing(finish, expected):
    image = finish(VALUES.expand(1, 3, 1, 5))
    assert image.dtype == np.uint8 and image.shape == (1, 5, 3)
    assert image[0, :, 0].tolist() == expected


def test_ranges_of_hr():
    hr = np.array([[[0, 64, 255]]], np.uint8)
    assert faults.hr_read_as_unit(hr).tolist() == [[[0, 0, 255]]]
    assert faults.hr_read_as_signed(hr).tolist() == [[[128, 160, 255]]]


def test_preparing():
    lr = np.full((2, 2, 3), (0, 51, 255), np.uint8)
    red, green, blue = (
        lambda prepare, c=c: prepare(lr)[0, c, 0, 0].item() for c in range(3)
    )
    assert red(faults.normalized) == pytest.approx(-0.485 / 0.229)
    assert green(faults.unit_range) == pytest.approx(0.2)
    assert green(faults.signed_range) == pytest.approx(-0.6)
    assert blue(faults.byte_range) == 255
    assert red(faults.blue_first) == pytest.approx((1 - 0.485) / 0.229)
    twice = (-0.485 / 0.229 - 0.485) / 0.229
    assert red(faults.normalized_twice) == pytest.approx(twice)


def test_lr_makers():
    hr = modcrop(smooth_image(40, 48), 4)
    for fault in FAULTS:
        if fault.step == "shrink":
            lr = np.asarray(fault.function(hr))
            assert lr.shape == (10, 12, 3) and lr.dtype == np.uint8
    assert (faults.by_nearest(hr) == hr[::4, ::4]).all()
    # Pillow cuts its kernel at the border, torch's cubic has a = -0.75.
    inner = (slice(2, -2), slice(2, -2))
    gap = faults.by_pil(hr).astype(int) - faults.by_imresize(hr)
    assert 1 <= abs(gap[inner]).max() <= 2
    right = imresize(hr, 1 / 4, antialias=False).astype(int)
    assert abs(faults.by_torch(hr) - right)[inner].mean() < 5


def test_one_pixel_off_moves_down_and_right():
    sr = torch.zeros(1, 3, 4, 4) - 1
    sr[..., 1, 2] = 1
    assert faults.one_pixel_off(sr)[2, 3].tolist() == [255] * 3


# --- combinations --------------------------------------------------------


def test_combinations_spoil_different_steps():
    chosen = [f for f in FAULTS if f.step in ("run", "target", "view")]
    found = list(faults.combinations(chosen))
    sizes = [
        len([f for f in chosen if f.step == s])
        for s in ("run", "target", "view")
    ]
    a, b, c = sizes
    assert len(found) == 1 + a + b + c + a * b + a * c + b * c
    assert found[0] == ()
    for some in found:
        assert len({fault.step for fault in some}) == len(some)


def test_no_step_is_done_twice():
    calls = []

    def shrink(hr):
        calls.append("shrink")
        return faults.by_imresize(hr)

    def run(generator, lr):
        calls.append("run")
        return faults.evaluated(generator, lr)

    picture = faults.pictures(Bicubic(), smooth_image(40, 40))
    for finish in (faults.finished, faults.truncated, faults.finished):
        pipeline = faults.replace(RIGHT, shrink=shrink, run=run, finish=finish)
        assert picture(pipeline).shape == (40, 40, 3)
    assert calls == ["shrink", "run"]


def test_distance_is_that_of_the_worse_figure():
    assert faults.distance((20, 0.5), (20, 0.5)) == 0
    assert faults.distance((20, 0.5), (21.5, 0.51)) == pytest.approx(1.5)
    assert faults.distance((20, 0.5), (20.1, 0.6)) == pytest.approx(2)


# --- the store -----------------------------------------------------------


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A profile whose one run stands, and the calls that measure faults."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SRGAN_DATA", str(tmp_path / "root"))
    folder = tmp_path / "pictures"
    write_pictures(folder)
    monkeypatch.setitem(SETS, "Bundled5", ImageSet("test", 2, (folder,)))
    config = tiny_config(first={"network": "srresnet"})
    config.train_sets = config.test_sets = ["Bundled5"]
    config.val_sets = []
    pairs = experiments.training_pairs(config)
    for task in experiments.make_plan(config, pairs):
        experiments.perform(task, config, pairs, [])
    calls, measure = [], faults.signatures

    def watched(generator, paths, pipelines):
        calls.append([path.name for path in paths])
        return measure(generator, paths, pipelines)

    monkeypatch.setattr(faults, "signatures", watched)
    return config, calls, folder


def test_signatures_are_measured_once(stored):
    config, calls, _ = stored
    found = faults.stored_signatures(config, "first")
    assert list(found) == ["Bundled5"] and calls == [["0.png", "1.png"]]
    assert list(found["Bundled5"]) == ["no fault", *NAMED]
    again = faults.stored_signatures(config, "first")
    assert len(calls) == 1
    assert again["Bundled5"]["no fault"] == list(found["Bundled5"]["no fault"])


def test_signatures_of_other_pictures_are_measured_again(stored):
    config, calls, folder = stored
    before = faults.stored_signatures(config, "first")
    hr = read_image(folder / "0.png")
    write_image(folder / "0.png", 255 - hr)
    after = faults.stored_signatures(config, "first")
    assert len(calls) == 2 and after != before
    assert (runs_folder(config) / "faults/signatures.json").exists()
