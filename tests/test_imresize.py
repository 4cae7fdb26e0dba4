import math

import numpy as np
import pytest
from PIL import Image

from srgan_lib.images import modcrop
from srgan_lib.imresize import (
    BORDERS,
    KERNELS,
    band_blocks,
    box,
    contributions,
    cubic,
    imresize,
    linear,
    small_product,
)

RANDOM = np.random.default_rng(0)


def noise(*shape):
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


# --- MATLAB's own output -----------------------------------------------------


@pytest.mark.parametrize(
    "twins, originals, border, count",
    [
        ("Set5/LR_bicubic/X4", "Set5/HR", "symmetric", 5),
        ("Set5_X4_replicate", "Set5/HR", "replicate", 5),
        ("Set14_X4_replicate", "Set14/HR", "replicate", 14),
    ],
)
def test_no_byte_differs_from_matlab(
    benchmark, twins, originals, border, count
):
    home = "oracles" if "replicate" in twins else "benchmark"
    paths = sorted(benchmark(f"{home}/{twins}").glob("*.png"))
    originals = benchmark(f"benchmark/{originals}")
    assert len(paths) == count
    for path in paths:
        expected = np.asarray(Image.open(path))  # gray stays gray
        hr = np.asarray(Image.open(originals / path.name.replace("x4.", ".")))
        lr = imresize(modcrop(hr, 4), 1 / 4, border=border)
        assert np.count_nonzero(lr != expected) == 0, path.name


# --- MATLAB's algorithm, written out pixel by pixel --------------------------


def resize_line(line, scale, kernel, antialias, border):
    """One dimension of MATLAB's imresize.m, with its 1-based indices."""
    function, support = KERNELS[kernel]
    stretch = 1
    if scale < 1 and antialias and kernel != "nearest":
        stretch, support = scale, support / scale
    size, result = len(line), []
    for x in range(1, math.ceil(size * scale) + 1):
        u = x / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(u - support / 2)
        taps = range(left, left + math.ceil(support) + 2)
        weights = [
            stretch * float(function(np.float64(stretch * (u - tap))))
            for tap in taps
        ]
        value = 0
        for weight, tap in zip(weights, taps, strict=True):
            index = tap - 1
            if border == "replicate":
                index = min(max(index, 0), size - 1)
            else:
                mirrored = [*range(size), *reversed(range(size))]
                index = mirrored[index % (2 * size)]
            value = value + weight / sum(weights) * line[index]
        result.append(value)
    return np.array(result)


def slow_imresize(image, scale, *options):
    result = image.astype(float)
    for _ in range(2):  # height, then width
        result = resize_line(result, scale, *options)
        if image.dtype == np.uint8:
            result = np.floor(result.clip(0, 255) + 0.5)
        result = result.swapaxes(0, 1)
    return result.astype(image.dtype)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [4, 3, 2, 1, 1.5, 0.7, 1 / 2, 1 / 3, 1 / 8])
@pytest.mark.parametrize("antialias", [True, False])
def test_equals_the_written_out_algorithm(scale, kernel, antialias, border):
    options = scale, kernel, antialias, border
    for shape in ((1, 1), (1, 5, 3), (23, 17, 3), (9, 40)):
        real = RANDOM.random(shape)
        np.testing.assert_allclose(
            imresize(real, *options), slow_imresize(real, *options), atol=1e-12
        )
        image = noise(*shape)
        result, expected = (
            imresize(image, *options),
            slow_imresize(image, *options),
        )
        # Scales without exact weights leave halves to the last bit.
        allowed = 0 if scale in (4, 2, 1, 1 / 2, 1 / 8) else 0.01
        different = result != expected
        assert different.mean() <= allowed
        assert np.abs(result.astype(int) - expected).max() <= 1


def test_float32_sums_are_exact_where_they_are_used():
    # The worst case: every sum lies on or next to a half.
    for scale in (4, 1 / 4):
        image = (noise(64, 64) > 127).astype(np.uint8) * 255
        np.testing.assert_array_equal(
            imresize(image, scale),
            slow_imresize(image, scale, "bicubic", True, "symmetric"),
        )


# --- kernels and weights -----------------------------------------------------


def test_kernels_interpolate_and_sum_to_one():
    whole = np.arange(-3, 4)
    for kernel in (box, linear, cubic):
        np.testing.assert_array_equal(kernel(whole), whole == 0)
        for shift in np.linspace(-0.5, 0.49, 12):
            assert kernel(whole + shift).sum() == pytest.approx(1)


def test_cubic_is_keys():
    # -0.5 x^3 + 2.5 x^2 - 4x + 2 at 1.5, 1.5 x^3 - 2.5 x^2 + 1 at 0.5
    assert cubic(np.array([0.5, -1.5, 2])).tolist() == [0.5625, -0.0625, 0]


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("scale", [4, 0.37, 1 / 4, 0.01])
def test_weights_sum_to_one_and_indices_stay_inside(scale, border):
    for size in (1, 7, 100):
        weights, indices = contributions(
            size, math.ceil(size * scale), scale, border=border
        )
        assert weights.shape == indices.shape
        np.testing.assert_allclose(weights.sum(axis=1), 1)
        assert indices.min() >= 0
        assert indices.max() < size


def test_blocks_are_the_resizing_matrix():
    weights, indices = contributions(50, 13, 1 / 4)
    matrix = np.zeros((13, 50))
    np.add.at(matrix, (np.arange(13)[:, None], indices), weights)
    for channels in (1, 3):
        found = np.zeros((13 * channels, 50 * channels))
        for out, inside, block in band_blocks(
            weights, indices, channels, 4, np.float64
        ):
            found[out, inside] = block
        expected = np.kron(matrix, np.eye(channels))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5000), (5000, 3), (700, 800)])
def test_products_in_pieces(shape):
    a, b = RANDOM.random((shape[0], 90)), RANDOM.random((90, shape[1]))
    out = np.empty(shape)
    small_product(a, b, out)
    np.testing.assert_allclose(out, a @ b)


# --- properties --------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [0.01, 1 / 3, 0.9, 1, 2.3, 4])
def test_size_is_rounded_up_and_flat_stays_flat(scale, kernel):
    for shape in ((1, 1), (5, 31), (30, 20, 3), (4, 3, 1)):
        flat = np.full(shape, 201, np.uint8)
        result = imresize(flat, scale, kernel)
        height, width = (math.ceil(n * scale) for n in shape[:2])
        assert result.shape == (height, width, *shape[2:])
        assert result.dtype == np.uint8
        assert (result == 201).all()


def test_channels_are_resized_alike():
    image = noise(13, 11, 6)
    for count in (1, 2, 3, 4, 6):
        result = imresize(image[:, :, :count], 2)
        for c in range(count):
            np.testing.assert_array_equal(
                result[:, :, c], imresize(image[:, :, c], 2)
            )


def test_nearest_copies_pixels_also_when_shrinking():
    image = noise(12, 12, 3)
    np.testing.assert_array_equal(
        imresize(image, 3, "nearest"), image.repeat(3, 0).repeat(3, 1)
    )
    np.testing.assert_array_equal(
        imresize(image, 1 / 3, "nearest"), image[1::3, 1::3]
    )


def test_antialias_matters_only_when_shrinking():
    stripes = np.zeros((32, 32), np.uint8)
    stripes[:, ::4] = 255
    with_it = imresize(stripes, 1 / 4)
    without = imresize(stripes, 1 / 4, antialias=False)
    assert np.ptp(with_it[:, 2:-2]) == 0
    assert not np.array_equal(with_it, without)
    np.testing.assert_array_equal(
        imresize(stripes, 2), imresize(stripes, 2, antialias=False)
    )


def test_borders_differ_at_the_border_only():
    image = noise(64, 64)
    a, b = (imresize(image, 1 / 4, border=border) for border in BORDERS)
    assert not np.array_equal(a, b)
    np.testing.assert_array_equal(a[2:-2, 2:-2], b[2:-2, 2:-2])


def test_floats_keep_kind_and_are_neither_rounded_nor_clipped():
    edge = np.zeros((8, 8))
    edge[:, 4:] = 1
    for kind in (np.float16, np.float32, np.float64):
        result = imresize(edge.astype(kind), 4)
        assert result.dtype == kind
        assert result.min() < 0
        assert result.max() > 1


def test_the_layout_in_memory_does_not_matter():
    image = noise(20, 24, 3)
    view = np.asfortranarray(image)[::-1, ::2]
    np.testing.assert_array_equal(imresize(view, 2), imresize(view.copy(), 2))
    before = image.copy()
    imresize(image, 1 / 2)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    "scale", [0, -1, math.nan, math.inf, "2", None, 1j, (2, 2)]
)
def test_bad_scales_are_refused(scale):
    with pytest.raises(ValueError, match="scale must be a positive number"):
        imresize(noise(4, 4), scale)


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros(4, np.uint8), r"\(H, W, C\), not \(4,\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"\(H, W, C\)"),
        (np.zeros((0, 4), np.uint8), r"\(H, W, C\)"),
        (np.zeros((4, 4), np.int64), "uint8 or float, not int64"),
        (np.zeros((4, 4), bool), "uint8 or float, not bool"),
        (np.full((4, 4), np.nan), "NaN"),
    ],
)
def test_bad_images_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        imresize(image, 2)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"kernel 'lanczos3'.*bicubic"):
        imresize(noise(4, 4), 2, "lanczos3")
    with pytest.raises(ValueError, match=r"border 'wrap'.*symmetric"):
        imresize(noise(4, 4), 2, border="wrap")
