"""Figures of a test set: those of metrics.py, image by image, and means."""

import math

import numpy as np
import pytest
from tiny import Features, smooth_image

from srgan_lib import evaluation
from srgan_lib.evaluation import METRICS, evaluate, mean_of, measure
from srgan_lib.images import read_image, write_image
from srgan_lib.imresize import imresize
from srgan_lib.metrics import (
    perceptual_distance,
    psnr,
    spectrum_distance,
    ssim,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def pairs(tmp_path):
    """Three pictures; hr of the last one is not a multiple of 4."""
    pairs = []
    for k, size in enumerate(((40, 48), (48, 40), (42, 47))):
        hr = smooth_image(48, 48, seed=k)[: size[0], : size[1]]
        lr = imresize(hr[: size[0] // 4 * 4, : size[1] // 4 * 4], 0.25)
        pairs.append((tmp_path / f"{k}.png", tmp_path / "lr" / f"{k}.png"))
        write_image(pairs[-1][0], hr)
        write_image(pairs[-1][1], lr)
    return pairs


def nearest(lr):
    return lr.repeat(4, axis=0).repeat(4, axis=1)


def test_each_figure_is_that_of_its_metric():
    sr, hr = smooth_image(40, 40, 1), smooth_image(40, 40, 2)
    features = Features()
    found = measure(sr, hr, features)
    assert found == {
        "psnr": psnr(sr, hr, crop=4, channel="y"),
        "ssim": ssim(sr, hr, crop=4, variant="wang"),
        "ssim_daala": ssim(sr, hr, crop=4, variant="daala"),
        "perceptual": perceptual_distance(sr, hr, features),
        "spectrum": spectrum_distance(sr, hr),
    }
    assert found.keys() == METRICS.keys()
    assert len(set(found.values())) == 5


def test_as_many_pixels_are_cropped_as_the_scale(tmp_path):
    hr = smooth_image(40, 48)
    paths = tmp_path / "hr.png", tmp_path / "lr.png"
    write_image(paths[0], hr)
    write_image(paths[1], imresize(hr, 0.5))

    def twice(lr):
        return lr.repeat(2, axis=0).repeat(2, axis=1)

    found = evaluate(twice, [paths], Features())["mean"]
    sr = twice(imresize(hr, 0.5))
    assert found["psnr"] == psnr(sr, hr, crop=2) != psnr(sr, hr, crop=4)
    assert found["ssim"] == ssim(sr, hr, crop=2)


def test_the_better_end_of_each_figure():
    hr = smooth_image(48, 48)
    near, far = hr // 2 + 60, nearest(imresize(hr, 0.25))[::-1]
    best, good, bad = (
        measure(np.ascontiguousarray(sr), hr, Features())
        for sr in (hr, near, far)
    )
    assert best["psnr"] == math.inf and best["ssim"] == 1
    assert best["perceptual"] == best["spectrum"] == 0
    for key, (_, better) in METRICS.items():
        sign = 1 if better == "higher" else -1
        assert sign * best[key] > sign * good[key]
        if key != "spectrum":  # the flipped picture has a like spectrum
            assert sign * good[key] > sign * bad[key]


def test_the_mean_of_a_set_is_over_its_images():
    images = [dict.fromkeys(METRICS, value) for value in (1.0, 2.0, 6.0)]
    assert mean_of(iter(images)) == dict.fromkeys(METRICS, 3.0)


def test_a_set_is_measured_image_by_image(pairs):
    features = Features()
    result = evaluate(nearest, pairs, features)
    assert list(result["images"]) == ["0", "1", "2"]
    for hr_path, lr_path in pairs:
        sr = nearest(read_image(lr_path))
        hr = read_image(hr_path)[: sr.shape[0], : sr.shape[1]]
        assert result["images"][hr_path.stem] == measure(sr, hr, features)
    assert result["mean"] == mean_of(result["images"].values())
    assert result["judge"] == "one layer"


def test_only_the_enlarging_is_timed(pairs, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(evaluation.time, "perf_counter", clock.__next__)
    assert evaluate(nearest, pairs, Features())["seconds"] == 3


def test_pictures_are_kept_where_asked(pairs, tmp_path):
    folder = tmp_path / "sr" / "Tiny"
    evaluate(nearest, pairs, Features(), folder)
    assert sorted(p.name for p in folder.iterdir()) == [
        *("0.png", "1.png", "2.png")
    ]
    np.testing.assert_array_equal(
        read_image(folder / "1.png"), nearest(read_image(pairs[1][1]))
    )
