"""Comparisons are pixel-true and safe to put into a page."""

import base64
import io
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

matplotlib.use("Agg")

from srgan_lib import figures
from srgan_lib.figures import Table, cut, outline, slider, zoom_grid
from srgan_lib.images import rgb_to_y


def random_image(height=12, width=10, seed=0):
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (height, width, 3), np.uint8)


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def decoded(uri, kind="webp"):
    start, _, data = uri.partition(",")
    assert start == f"data:image/{kind};base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


# --- pictures ------------------------------------------------------------


@pytest.mark.parametrize("gray", [False, True])
def test_a_data_uri_holds_the_very_pixels(gray):
    image = random_image()
    given = image[..., 0] if gray else image
    image = image[..., [0, 0, 0]] if gray else image  # WebP knows no gray
    np.testing.assert_array_equal(decoded(figures.data_uri(given)), image)
    np.testing.assert_array_equal(
        decoded(figures.data_uri(given[::-1, 1:])), image[::-1, 1:]
    )


def test_what_is_too_long_for_a_webp_becomes_a_png():
    image = random_image(1, 16_384)
    uri = figures.data_uri(image)
    np.testing.assert_array_equal(decoded(uri, "png"), image)
    uri = figures.data_uri(image[:, 1:])
    np.testing.assert_array_equal(decoded(uri), image[:, 1:])


@pytest.mark.parametrize("draw", [zoom_grid, slider])
def test_a_comparison_shows_the_crops_enlarged_by_whole_numbers(draw):
    images = {"a": random_image(seed=1), "b": random_image(seed=2)}
    page = Page(draw(images, "a cat", zoom=3, box=(2, 1, 5, 4)).data)
    found = page.all("img")
    assert [img["alt"] for img in found] == ["a: a cat", "b: a cat"]
    for img, image in zip(found, images.values(), strict=True):
        np.testing.assert_array_equal(decoded(img["src"]), image[2:7, 1:5])
        assert (img["width"], img["height"]) == ("12", "15")
        assert "image-rendering:pixelated" in img["style"]
    kind = "sr-grid" if draw is zoom_grid else "sr-slider"
    (frame,) = page.all("div")
    assert frame["class"] == kind
    assert frame["style"].startswith("--w:4;--h:5;--zoom:3;display:flex")


def test_without_a_box_all_is_shown():
    page = Page(zoom_grid({"a": random_image()}, "x", zoom=1).data)
    (img,) = page.all("img")
    np.testing.assert_array_equal(decoded(img["src"]), random_image())


def test_labels_notes_and_alt_texts_are_escaped():
    nasty = '<script>"x"</script>&\'" onload="y'
    page = Page(
        zoom_grid({nasty: random_image()}, nasty, notes={nasty: nasty}).data
    )
    assert {tag for tag, _ in page.tags} == {
        *("div", "figure", "img", "figcaption", "br", "small")
    }
    (img,) = page.all("img")
    assert img["alt"] == f"{nasty}: {nasty}" and "onload" not in img
    assert page.text.count("<script>") == 2


@pytest.mark.parametrize(
    "box",
    [
        *((8, 0, 5, 5), (0, 6, 5, 5), (-1, 0, 5, 5), (0, -1, 5, 5)),
        *((0, 0, 0, 5), (0, 0, 5, -2), (12, 0, 1, 1)),
    ],
)
def test_a_crop_outside_the_picture_is_refused(box):
    with pytest.raises(ValueError, match="leaves the image of 12 x 10"):
        cut(random_image(), box)
    for draw in (zoom_grid, slider):
        with pytest.raises(ValueError, match="leaves the image"):
            draw({"a": random_image()}, "x", box=box)


def test_a_crop_may_touch_every_border():
    image = random_image()
    np.testing.assert_array_equal(cut(image, (0, 0, 12, 10)), image)
    np.testing.assert_array_equal(cut(image, (11, 9, 1, 1)), image[11:, 9:])


def test_the_busiest_crop_is_found_by_trying_all():
    image = random_image(20, 17)
    image[:, :9] //= 8  # the left half is calm
    y = rgb_to_y(image, quantize=False)
    slopes = sum(step**2 for step in np.gradient(y))
    boxes = [(t, x, 6, 5) for t in range(15) for x in range(13)]
    best = max(boxes, key=lambda box: cut(slopes, box).mean())
    assert figures.busiest(image, 6, 5) == best and best[1] >= 8
    assert figures.busiest(image, 20, 17) == (0, 0, 20, 17)
    with pytest.raises(ValueError, match="21 x 5 pixels does not fit into 20"):
        figures.busiest(image, 21, 5)


@pytest.mark.parametrize("zoom", [0, -1, 1.5])
def test_zoom_is_a_whole_number(zoom):
    with pytest.raises(ValueError, match="zoom is a whole number"):
        zoom_grid({"a": random_image()}, "x", zoom=zoom)


def test_images_of_different_sizes_are_refused():
    images = {"a": random_image(8, 8), "b": random_image(8, 9)}
    for draw in (zoom_grid, slider):
        with pytest.raises(ValueError, match="differ in size"):
            draw(images, "x")


def test_an_outline_is_two_pixels_wide_and_a_copy():
    image = random_image(20, 20)
    before = image.copy()
    marked = outline(image, (4, 5, 10, 8))
    changed = (marked != image).any(axis=2)
    expected = np.zeros((20, 20), bool)
    expected[4:14, 5:13] = True
    expected[6:12, 7:11] = False
    np.testing.assert_array_equal(changed, expected)
    assert (marked[expected] == (255, 0, 0)).all()
    np.testing.assert_array_equal(image, before)


# --- tables --------------------------------------------------------------


@pytest.fixture
def table():
    return Table(
        ["run", "PSNR", "distance"],
        [
            *(["bicubic", "28.4", "0.5"], ["SRGAN", "29.10", "-"]),
            ["<b>", "29.10", "0.25"],
        ],
        name="t",
        caption="A & `B`",
        best={1: "higher", 2: "lower"},
    )


def test_the_best_figures_are_bold(table):
    assert [row[1:] for row in table.rows] == [
        *(["28.4", "0.5"], ["**29.10**", "-"], ["**29.10**", "**0.25**"])
    ]


def test_a_table_in_the_book(table):
    assert table._repr_markdown_().splitlines() == [
        *("~~~{table} A & `B`", ":name: t", ""),
        "| run | PSNR | distance |",
        "| :--- | ---: | ---: |",
        "| bicubic | 28.4 | 0.5 |",
        "| SRGAN | **29.10** | - |",
        "| <b> | **29.10** | **0.25** |",
        "~~~",
    ]


def test_a_table_in_a_notebook(table):
    text = table._repr_html_()
    assert "<caption>A &amp; <code>B</code></caption>" in text
    assert "<b>29.10</b>" in text and ">&lt;b&gt;</td>" in text
    cells = re.findall('<(t[dh]) style="text-align:(left|right)"', text)
    sides = ["left", "right", "right"]
    assert cells == [(t, s) for t in ["th", *["td"] * 3] for s in sides]


def test_words_stand_left_and_numbers_right():
    rows = [
        *(["1", "0.5", "yes", "**1,200**", "**29.1** / 0.8"],),
        *(["2", "–", "3", "−0.5", "+1 dB"],),
    ]
    assert Table([*"abcde"], rows, "t", "c").sides == [
        *("left", "right", "left", "right", "right")
    ]
    assert Table(["a", "b"], [], "t", "c").sides == ["left", "right"]


@pytest.mark.parametrize(
    ("new", "old", "digits", "text"),
    [
        *((28.796, 28.184, 2, "+0.62"), (0.4, 0.51, 2, "−0.11")),
        *((0.4581, 0.4579, 3, "0.000"), (1.0, 1.001, 2, "0.00")),
        (12, 9.6, 0, "+2"),
    ],
)
def test_a_difference_is_that_of_the_rounded_figures(new, old, digits, text):
    assert figures.difference(new, old, digits) == text


def test_words_are_listed_as_a_sentence_has_them():
    assert figures.listed(["a"]) == "a"
    assert figures.listed(["a", "b"]) == "a and b"
    assert figures.listed(["a", "b", "c"]) == "a, b and c"


# --- curves --------------------------------------------------------------


def test_a_running_mean_by_hand():
    found = figures.smooth([1, 2, 3, 6], 2)
    np.testing.assert_allclose(found, [1.5, 2.5, 4.5])


def test_learning_curves_draw_each_run_that_has_the_figure():
    record = [{"step": s, "loss": 2.0 * s} for s in (1, 2, 3, 4)]
    results = {
        "a": SimpleNamespace(history=record),
        "b": SimpleNamespace(history=[]),
        "c": SimpleNamespace(history=[r | {"D(real)": 0.5} for r in record]),
    }
    figure = figures.learning_curves(results, ["loss", "D(real)"], width=2)
    left, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["a", "c"]
    assert left.lines[0].get_xdata().tolist() == [2, 3, 4]
    assert left.lines[0].get_ydata().tolist() == [3, 5, 7]
    assert [line.get_label() for line in right.lines] == ["c"]
    # A run keeps its color from one picture to the next.
    assert left.lines[1].get_color() == right.lines[0].get_color()


def test_no_run_is_left_out_and_no_two_look_alike():
    result = SimpleNamespace(history=[{"step": 1, "loss": 2.0}])
    figure, axes = figures.plt.subplots()
    figures.curves(axes, {str(k): result for k in range(13)}, "loss")
    looks = {(x.get_color(), x.get_linestyle()) for x in axes.lines}
    assert len(axes.lines) == len(looks) == 13
    figures.plt.close(figure)


def test_points_differ_in_color_and_in_marker():
    figure, axes = figures.plt.subplots()
    points = {name: (k, k) for k, name in enumerate("abcdef")}
    figures.scatter(axes, points, "x", "y")
    colors = {tuple(c.get_facecolor()[0]) for c in axes.collections}
    shapes = {
        c.get_paths()[0].to_polygons()[0].shape for c in axes.collections
    }
    assert len(colors) == 6 and len(shapes) > 2
    figures.plt.close(figure)


# What lights of the three colors become to eyes without red-, green- or
# blue-sensitive cones: Machado et al. (2009), table 1, severity 1.
SIGHT = {
    "full": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.parametrize("sight", SIGHT)
def test_no_two_colors_look_alike(sight):
    colors = [matplotlib.colors.to_rgb(c) for c in (*figures.COLORS, "black")]
    lights = np.power(colors, 2.2) @ np.transpose(SIGHT[sight])
    lab = rgb2lab(lights.clip(0, 1) ** (1 / 2.2))
    for k, color in enumerate(lab):
        for other in lab[:k]:
            assert deltaE_ciede2000(color, other) > 10
