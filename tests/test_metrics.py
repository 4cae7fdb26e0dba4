import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from srgan_lib.images import modcrop, read_image, rgb_to_y
from srgan_lib.imresize import imresize
from srgan_lib.metrics import (
    color_shift,
    grid_amplitude,
    mesh_share,
    perceptual_distance,
    psnr,
    radial_spectrum,
    spectrum_distance,
    ssim,
)

RANDOM = np.random.default_rng(0)
VARIANTS = ("wang", "daala")


def noise(*shape):
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def soft(height, width):
    """Noise with the look of a picture: smooth, not flat."""
    small = noise(height // 8 + 1, width // 8 + 1, 3)
    return imresize(small, 8)[:height, :width].copy()


# --- published and measured figures of bicubic x4 ----------------------------


def bicubic_pairs(benchmark, name, lr_of):
    for path in sorted(benchmark(f"benchmark/{name}/HR").glob("*.png")):
        hr = modcrop(read_image(path), 4)
        yield imresize(lr_of(path, hr), 4), hr


@pytest.mark.parametrize(
    "name, figures",
    [
        (
            "Set5",
            {
                "psnr": ("28.418", "28.430"),
                "wang": (".8101", ".8111"),
                "daala": (".8201", ".8211"),
                "rgb": "26.69",
            },
        ),
        (
            "Set14",
            {
                "psnr": ("26.087", "26.091"),
                "wang": (".7041", ".7048"),
                "daala": (".7490", ".7496"),
                "rgb": "24.46",
            },
        ),
    ],
)
def test_bicubic_figures_to_the_printed_digit(benchmark, name, figures):
    twins = benchmark(f"oracles/{name}_X4_replicate")
    pairs = list(
        bicubic_pairs(
            benchmark,
            name,
            lambda path, hr: read_image(twins / f"{path.stem}x4.png"),
        )
    )

    def mean(metric, **options):
        return np.mean([metric(sr, hr, **options) for sr, hr in pairs])

    for i, quantize in enumerate((True, False)):
        assert f"{mean(psnr, quantize=quantize):.3f}" == figures["psnr"][i]
        for variant in VARIANTS:
            figure = mean(ssim, variant=variant, quantize=quantize)
            assert f"{figure:.4f}"[1:] == figures[variant][i]
    assert f"{mean(psnr, channel='rgb'):.2f}" == figures["rgb"]


@pytest.mark.parametrize(
    "name, figures",
    [("Set5", ("28.4165", "28.4290")), ("Set14", ("26.0844", "26.0884"))],
)
def test_bicubic_figures_with_symmetric_lr(benchmark, name, figures):
    pairs = list(
        bicubic_pairs(benchmark, name, lambda path, hr: imresize(hr, 1 / 4))
    )
    for quantize, figure in zip((True, False), figures, strict=True):
        values = [psnr(sr, hr, quantize=quantize) for sr, hr in pairs]
        assert f"{np.mean(values):.4f}" == figure


# --- PSNR and SSIM against other definitions ---------------------------------


def test_psnr_of_known_errors():
    hr = np.full((20, 20, 3), 100, np.uint8)
    # One level everywhere: 10 log10(255^2).
    assert psnr(hr + 1, hr, channel="rgb") == pytest.approx(48.1308, abs=1e-4)
    # One level of RGB is 219/255 of luma.
    assert psnr(hr + 1, hr, quantize=False) == pytest.approx(
        48.1308 - 20 * math.log10(219 / 255), abs=1e-4
    )
    # All wrong in one channel of three.
    black, red = np.zeros_like(hr), np.zeros_like(hr)
    red[..., 0] = 255
    assert psnr(red, black, channel="rgb") == pytest.approx(10 * math.log10(3))


def test_the_border_is_left_out():
    hr = soft(40, 50)
    sr = hr.copy()
    sr[:4], sr[-4:], sr[:, :4], sr[:, -4:] = 0, 0, 0, 0
    for variant in VARIANTS:
        assert ssim(sr, hr, variant=variant) == 1
        assert ssim(sr, hr, crop=3, variant=variant) < 1
    assert psnr(sr, hr) == math.inf
    assert psnr(sr, hr, crop=0) < psnr(sr, hr, crop=3) < math.inf


@pytest.mark.parametrize("quantize", [True, False])
@pytest.mark.parametrize("shape", [(19, 19), (70, 61), (33, 200)])
def test_wang_equals_scikit_image(shape, quantize):
    hr = soft(*shape)
    sr = imresize(imresize(hr, 1 / 2), 2)[: shape[0], : shape[1]]
    inner = slice(4, -4)
    expected = structural_similarity(
        rgb_to_y(sr, quantize)[inner, inner],
        rgb_to_y(hr, quantize)[inner, inner],
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
    )
    assert ssim(sr, hr, quantize=quantize) == pytest.approx(expected, abs=2e-7)


def daala_pixel_by_pixel(x, y):
    """The loops of Daala's dump_ssim.c."""
    height, width = x.shape
    sigma = height * 1.5 / 256

    def kernel():
        s = math.sqrt(0.5 * math.pi) * sigma / 256
        length = 0 if s >= 1 else int(sigma * math.sqrt(-2 * math.log(s)))
        length = min(length, min(width, height) - 1)
        scale = 1 / (math.sqrt(2 * math.pi) * sigma)
        taps = {
            i: int(256 * scale * math.exp(-0.5 * (i / sigma) ** 2) + 0.5)
            for i in range(1, length + 1)
        }
        return {
            0: 256 - 2 * sum(taps.values()),
            **taps,
            **{-i: tap for i, tap in taps.items()},
        }

    taps, total, total_weight = kernel(), 0, 0
    for row in range(height):
        for column in range(width):
            w = mx = my = xx = xy = yy = 0
            for i, a in taps.items():
                for j, b in taps.items():
                    r, c = row + i, column + j
                    if 0 <= r < height and 0 <= c < width:
                        p, q = x[r, c], y[r, c]
                        w += a * b
                        mx, my = mx + a * b * p, my + a * b * q
                        xx, yy = xx + a * b * p * p, yy + a * b * q * q
                        xy += a * b * p * q
            c1, c2 = (0.01 * 255 * w) ** 2, (0.03 * 255 * w) ** 2
            numerator = (2 * mx * my + c1) * (2 * (xy * w - mx * my) + c2)
            variances = xx * w - mx * mx + yy * w - my * my
            total += (
                w * numerator / ((mx * mx + my * my + c1) * (variances + c2))
            )
            total_weight += w
    return total / total_weight


@pytest.mark.parametrize("shape", [(1, 1), (9, 30), (200, 3), (64, 13)])
def test_daala_equals_its_loops(shape):
    hr, sr = soft(*shape), soft(*shape)
    expected = daala_pixel_by_pixel(rgb_to_y(sr), rgb_to_y(hr))
    assert ssim(sr, hr, crop=0, variant="daala") == pytest.approx(
        expected, abs=2e-7
    )


def test_rgb_ssim_is_the_mean_of_the_channels():
    sr, hr = soft(30, 30), soft(30, 30)
    expected = structural_similarity(
        sr,
        hr,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
    )
    assert ssim(sr, hr, crop=0, channel="rgb") == pytest.approx(expected)


@pytest.mark.parametrize("channel", ["y", "rgb"])
@pytest.mark.parametrize("quantize", [True, False])
def test_identical_images(channel, quantize):
    for shape in ((19, 19, 3), (64, 101, 3)):
        image, options = noise(*shape), {"channel": channel}
        options["quantize"] = quantize
        assert psnr(image, image.copy(), **options) == math.inf
        for variant in VARIANTS:
            assert ssim(image, image.copy(), variant=variant, **options) == 1


def test_symmetric_and_falling_with_blur():
    hr = noise(64, 64, 3)
    blurred = [imresize(imresize(hr, 1 / s), s) for s in (2, 4)]
    for metric in (psnr, ssim):
        assert metric(blurred[0], hr) > metric(blurred[1], hr)
        assert metric(hr, blurred[0]) == pytest.approx(metric(blurred[0], hr))


# --- spectrum ----------------------------------------------------------------


def test_white_noise_has_a_flat_spectrum_at_its_variance():
    gray = noise(200, 300, 1).repeat(3, axis=2)
    frequencies, power = radial_spectrum(gray)
    assert frequencies.shape == power.shape == (99,)
    assert (frequencies > 0).all()
    assert (frequencies < 0.5).all()
    # The mean log of a noisy power is Euler's gamma below the log of its mean.
    variance = rgb_to_y(gray, quantize=False).var()
    expected = np.log10(variance) - np.euler_gamma / math.log(10)
    assert power[20:].mean() == pytest.approx(expected, abs=0.02)
    assert np.ptp(power[20:]) < 0.6


def test_a_wave_peaks_at_its_frequency_whatever_the_shape():
    for shape in ((128, 128), (100, 300), (300, 100)):
        wave = 128 + 100 * np.sin(2 * np.pi * 0.2 * np.arange(shape[1]))
        image = np.broadcast_to(
            wave.round().astype(np.uint8)[None, :, None], (*shape, 3)
        )
        frequencies, power = radial_spectrum(image)
        assert abs(frequencies[power.argmax()] - 0.2) < 0.01
        # A border that leaked would lift what is far from the peak.
        assert power[frequencies > 0.35].max() < 1


def test_spectrum_distance_counts_decades():
    hr = noise(64, 64, 3)
    assert spectrum_distance(hr, hr) == 0
    # A tenth of the amplitude is a hundredth of the power: two decades.
    faint = (hr // 10).astype(np.uint8)
    assert spectrum_distance(faint, hr) == pytest.approx(2, abs=0.1)
    blurred = [imresize(imresize(hr, 1 / s), s) for s in (2, 4)]
    near, far = (spectrum_distance(sr, hr) for sr in blurred)
    assert 0.5 < near < far
    assert spectrum_distance(hr, blurred[0]) == near


def test_flat_images_have_a_spectrum():
    flat = np.full((16, 16, 3), 7, np.uint8)
    _, power = radial_spectrum(flat)
    np.testing.assert_allclose(power, np.log10(1 / 12))
    with pytest.raises(ValueError, match="16 x 16"):
        radial_spectrum(flat[:15])


# --- perceptual distance -----------------------------------------------------


class Colors(torch.nn.Module):
    """Features one can compute by head: the image, and its mean."""

    name = "colors"

    def forward(self, x):
        assert x.shape[1] == 3
        assert x.min() >= -1
        assert x.max() <= 1
        return [x, x.mean(dim=(2, 3), keepdim=True)]


def test_perceptual_distance_of_known_features():
    white = np.full((4, 5, 3), 255, np.uint8)
    black = np.zeros_like(white)
    # Opposite unit vectors are 2 apart, in both layers.
    assert perceptual_distance(black, white, Colors()) == pytest.approx(4)
    half = white.copy()
    half[:2] = 0  # first layer: opposite in half of the places; mean: zero
    expected = (4 / 2 + 1) / 2
    assert perceptual_distance(half, white, Colors()) == pytest.approx(
        expected
    )
    assert perceptual_distance(white, white, Colors()) == 0


def test_perceptual_distance_of_a_network_with_one_layer():
    network = torch.nn.Conv2d(3, 8, 3)
    sr, hr = noise(12, 12, 3), noise(12, 12, 3)
    distance = perceptual_distance(sr, hr, network)
    assert 0 < distance < 4
    assert perceptual_distance(hr, sr, network) == pytest.approx(distance)

    class Named(torch.nn.Module):  # as torchvision's feature extractors
        def forward(self, x):
            return {"last": network(x)}

    assert perceptual_distance(sr, hr, Named()) == pytest.approx(distance)


# --- what an adversarial stage can do wrong ----------------------------------


def test_a_grid_is_found_and_an_offset_is_none():
    hr = soft(64, 48) // 2 + 60
    sr = hr + 5
    assert grid_amplitude(sr, hr) < 1e-9
    sr[2::4, 1::4] += 8  # one place of 16
    luma = 8 * 219 / 255
    assert grid_amplitude(sr, hr) == pytest.approx(luma * 15**0.5 / 16)
    assert grid_amplitude(sr[:63, :46], hr[:63, :46]) > 1
    assert grid_amplitude(sr, hr, period=5) < 0.2 * grid_amplitude(sr, hr)
    with pytest.raises(ValueError, match="hold no cell of 4"):
        grid_amplitude(sr[:3], hr[:3])


def waved(length, height, size=128):
    """A gray image under waves of that length across, and their height."""
    wave = height * np.cos(2 * np.pi * np.arange(size) / length)
    image = np.add.outer(np.arange(size) / 4 + 80, wave)
    return np.stack([image.round()] * 3, axis=-1).astype(np.uint8)


def test_a_mesh_is_found_by_its_period():
    for length in (4, 2):
        assert mesh_share(waved(length, 4)) == 1
        assert mesh_share(waved(length, 4).swapaxes(0, 1)) == 1
    for length in (3, 5, 8, 16):
        assert mesh_share(waved(length, 4)) == 0
    assert mesh_share(waved(4, 4), least=5) == 0  # luma: 3.4 levels
    dots = waved(4, 0)
    dots[::4, ::4] += 16
    assert mesh_share(dots) == 1
    half = waved(4, 4)
    half[:, 64:] = waved(4, 0)[:, 64:]
    assert 0.3 < mesh_share(half) < 0.7


def test_few_windows_without_a_mesh_have_one_by_chance():
    assert mesh_share(noise(256, 256, 3)) < 0.15
    assert mesh_share(soft(128, 128)) == 0
    with pytest.raises(ValueError, match="hold no window of 32"):
        mesh_share(soft(31, 40))


def test_color_shift_is_that_of_the_worst_channel():
    reference = soft(40, 40) // 2 + 60
    sr = reference.copy()
    sr[..., 1] += 1
    sr[::2, :, 2] -= 6
    assert color_shift(sr, reference) == pytest.approx(3)
    assert color_shift(reference, sr) == pytest.approx(3)


# --- refusals ----------------------------------------------------------------

METRICS = (
    psnr,
    ssim,
    spectrum_distance,
    grid_amplitude,
    color_shift,
    lambda sr, hr: perceptual_distance(sr, hr, Colors()),
)


@pytest.mark.parametrize("metric", METRICS)
def test_what_cannot_be_compared_is_refused_by_name(metric):
    good = noise(32, 32, 3)
    refused = [
        (good[:28], good, r"sr \(28, 32, 3\) and hr \(32, 32, 3\) differ"),
        (good / 255, good, "sr must be a uint8 array, not float64"),
        (good, good.astype(int), "hr must be a uint8 array, not int64"),
        (torch.from_numpy(good), good, "sr must be a uint8 array"),
        (good[..., 0], good[..., 0], r"sr must be \(H, W, 3\)"),
        (good[None], good[None], r"sr must be \(H, W, 3\)"),
    ]
    for sr, hr, message in refused:
        with pytest.raises(ValueError, match=message):
            metric(sr, hr)


def test_too_small_images_are_refused_with_their_size():
    small = noise(18, 40, 3)
    with pytest.raises(ValueError, match=r"18 x 40 .* 11 x 11"):
        ssim(small, small)
    assert ssim(small, small, crop=3) == 1
    assert ssim(small, small, variant="daala") == 1
    with pytest.raises(ValueError, match="too small"):
        psnr(small[:8], small[:8])
    assert psnr(small[:9], small[:9]) == math.inf
    with pytest.raises(ValueError, match="border of -1"):
        psnr(small, small, crop=-1)


def test_unknown_names_are_refused():
    image = noise(32, 32, 3)
    for metric in (psnr, ssim):
        with pytest.raises(ValueError, match="unknown channel 'Y'"):
            metric(image, image, channel="Y")
    with pytest.raises(ValueError, match="unknown SSIM variant 'skimage'"):
        ssim(image, image, variant="skimage")
