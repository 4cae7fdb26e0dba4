"""Pictures and tables of the book: pixel-true, with alt texts.

Comparisons are HTML of lossless pictures, enlarged by whole numbers by the
browser and never resampled; the page's sr.css and sr.js do the rest.
"""

import base64
import html
import io
import itertools
import re

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from PIL import Image

from srgan_lib.images import rgb_to_y

# Told apart by color-blind readers, too, dark enough on white; the first
# three are of Okabe and Ito (2008).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#5b2a86", "#603000", "#555555")
MARKERS = "osD^vP"
LINES = tuple(itertools.product(("-", "--", ":"), COLORS))
INK = "#333333"  # of diagrams
WEBP_SIDE = 16_383  # pixels, at most


def data_uri(image):
    """A uint8 image (H, W, 3) or (H, W) inside a URI, without loss."""
    # A WebP is a quarter shorter than a PNG.
    kind = "webp" if max(image.shape[:2]) <= WEBP_SIDE else "png"
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.save(buffer, kind, lossless=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{kind};base64,{data}"


def cut(image, box):
    """The part of an image that box = (top, left, height, width) names."""
    top, left, height, width = box
    height_there, width_there = image.shape[:2]
    inside = (
        0 <= top < top + height <= height_there
        and 0 <= left < left + width <= width_there
    )
    if not inside:
        raise ValueError(
            f"The crop {box} leaves the image of {height_there} x "
            f"{width_there} pixels."
        )
    return image[top : top + height, left : left + width]


def busiest(image, height, width):
    """The box of the crop with the steepest slopes: squares, on average."""
    if height > image.shape[0] or width > image.shape[1]:
        raise ValueError(
            f"a crop of {height} x {width} pixels does not fit into "
            f"{image.shape[0]} x {image.shape[1]}"
        )
    slopes = sum(s**2 for s in np.gradient(rgb_to_y(image, quantize=False)))
    sums = np.pad(slopes, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    rows = sums[height:] - sums[:-height]
    crops = rows[:, width:] - rows[:, :-width]
    top, left = np.unravel_index(crops.argmax(), crops.shape)
    return int(top), int(left), height, width


def outline(image, box, color=(255, 0, 0)):
    """A copy of the image with the crop outlined, 2 pixels wide."""
    top, left, height, width = box
    marked = image.copy()
    marked[top : top + height, left : left + width] = color
    inner = (
        slice(top + 2, top + height - 2),
        slice(left + 2, left + width - 2),
    )
    marked[inner] = image[inner]
    return marked


def picture(image, alt, zoom):
    """One <img>, enlarged by a whole number, its pixels kept square."""
    if zoom != int(zoom) or zoom < 1:
        raise ValueError(f"zoom is a whole number from 1 on, not {zoom}.")
    height, width = image.shape[:2]
    return (
        f'<img src="{data_uri(image)}" width="{width * zoom}" '
        f'height="{height * zoom}" style="image-rendering:pixelated" '
        f'alt="{html.escape(alt, quote=True)}">'
    )


def comparison(kind, cell, images, alt, zoom, notes):
    """The shared frame of zoom grid and slider."""
    shapes = {image.shape[:2] for image in images.values()}
    if len(shapes) != 1:
        raise ValueError(f"Images to compare differ in size: {shapes}.")
    (height, width), figures = shapes.pop(), []
    for label, image in images.items():
        note = (notes or {}).get(label)
        note = f"<br><small>{html.escape(note)}</small>" if note else ""
        figures.append(
            f'<figure class="{cell}">'
            f"{picture(image, f'{label}: {alt}', zoom)}"
            f"<figcaption>{html.escape(label)}{note}</figcaption></figure>"
        )
    style = f"--w:{width};--h:{height};--zoom:{zoom}"
    style += ";display:flex;flex-wrap:wrap"  # where sr.css is not, on Colab
    return HTML(
        f'<div class="{kind}" style="{style}">{"".join(figures)}</div>'
    )


def zoom_grid(images, alt, zoom=3, box=None, notes=None):
    """The same crop of several images, side by side.

    images: {label: uint8 image}, all of one size; alt: what to see, for
    those who cannot; box: (top, left, height, width), or all of it; notes:
    {label: second line}, a figure for instance.
    """
    if box is not None:
        images = {label: cut(image, box) for label, image in images.items()}
    return comparison("sr-grid", "sr-cell", images, alt, zoom, notes)


def slider(images, alt, zoom=2, box=None):
    """Two or more images one over the other, with a divider to move.

    Arguments as in `zoom_grid`.
    """
    if box is not None:
        images = {label: cut(image, box) for label, image in images.items()}
    return comparison("sr-slider", "sr-pane", images, alt, zoom, None)


def difference(new, old, digits=2):
    """new - old with its sign, of both figures as a table rounds them."""
    change = round(new, digits) - round(old, digits)
    text = f"{change:+.{digits}f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def listed(words):
    """Several words as a sentence has them: a, b and c."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def is_number(cell):
    """Whether a table's cell holds a number, or a dash for none."""
    return re.match(r"[*+<−–-]*(\.?\d|$)", cell) is not None


def inline(text):
    """MyST's bold and code as HTML."""
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(text))
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text)


class Table:
    """Rows under headings: MyST in the book, HTML in a notebook.

    name: to cite it by; numbers come formatted, as strings; best: {column:
    "higher" or "lower"} sets the best number of a column in bold. Names and
    words stand to the left, columns of numbers to the right.
    """

    def __init__(self, headings, rows, name, caption, best=None):
        self.headings, self.name, self.caption = headings, name, caption
        self.rows = [[str(cell) for cell in row] for row in rows]
        self.sides = ["left"] + [
            "right" if all(is_number(row[k]) for row in self.rows) else "left"
            for k in range(1, len(headings))
        ]
        for column, better in (best or {}).items():
            self._embolden(column, better)

    def _embolden(self, column, better):
        values = {}
        for k, row in enumerate(self.rows):
            try:
                values[k] = float(row[column].replace("−", "-"))
            except ValueError:
                continue
        if values:
            pick = max if better == "higher" else min
            top = pick(values.values())
            for k, value in values.items():
                if value == top:
                    self.rows[k][column] = f"**{self.rows[k][column]}**"

    def _repr_markdown_(self):
        rules = {"left": ":---", "right": "---:"}
        lines = [self.headings, [rules[side] for side in self.sides]]
        lines = ["| " + " | ".join(r) + " |" for r in [*lines, *self.rows]]
        return "\n".join(
            [
                # Tildes, so that a caption may hold backticks.
                f"~~~{{table}} {self.caption}",
                f":name: {self.name}",
                "",
                *lines,
                "~~~",
            ]
        )

    def _repr_html_(self):
        def row(cells, tag):
            inner = "".join(
                f'<{tag} style="text-align:{side}">{inline(cell)}</{tag}>'
                for side, cell in zip(self.sides, cells, strict=True)
            )
            return f"<tr>{inner}</tr>"

        body = "".join(row(cells, "td") for cells in self.rows)
        return (
            f"<table><caption>{inline(self.caption)}</caption>"
            f"<thead>{row(self.headings, 'th')}</thead>"
            f"<tbody>{body}</tbody></table>"
        )


def draw_box(axes, x, y, text, color=INK, width=1.2, height=1.2):
    """A box of a diagram, with a label; x, y: its lower left corner."""
    axes.add_patch(
        plt.Rectangle(
            (x, y), width, height, facecolor="white", lw=1.8, edgecolor=color
        )
    )
    center = x + width / 2, y + height / 2
    axes.text(
        *center, text, ha="center", va="center", fontsize=10.5, color=color
    )


def draw_arrow(axes, start, end, color=INK, style="-"):
    """An arrow of a diagram, between two points (x, y)."""
    look = {"arrowstyle": "->", "color": color, "lw": 1.4, "linestyle": style}
    axes.annotate("", end, start, arrowprops=look)


def smooth(values, width):
    """A running mean, shorter by width - 1 values."""
    return np.convolve(values, np.ones(width) / width, mode="valid")


def curves(axes, results, key, width=1):
    """Draw one figure of the history over the steps, a line for each run."""
    looks = zip(results.items(), itertools.cycle(LINES))
    for (name, result), (style, color) in looks:
        history = [r for r in result.history if key in r]
        if len(history) < width or not history:
            continue
        steps = [record["step"] for record in history][width - 1 :]
        values = smooth([record[key] for record in history], width)
        axes.plot(steps, values, style, color=color, label=name)
    axes.set(xlabel="step", ylabel=key.replace("_", " "))
    axes.grid(alpha=0.3)


def learning_curves(results, keys, width=1):
    """Figures of the history side by side: {name: Result}, list of keys."""
    figure, all_axes = plt.subplots(
        1, len(keys), figsize=(3.6 * len(keys), 3), layout="constrained"
    )
    for axes, key in zip(np.atleast_1d(all_axes), keys, strict=True):
        curves(axes, results, key, width)
    np.atleast_1d(all_axes)[0].legend(fontsize="small")
    return figure


def scatter(axes, points, xlabel, ylabel):
    """Named points {name: (x, y)}, each with its own color and marker."""
    n = len(COLORS)
    for k, (name, (x, y)) in enumerate(points.items()):
        color = COLORS[(k + k // n) % n]  # no pair comes twice
        axes.scatter(
            x, y, color=color, marker=MARKERS[k % n], s=50, label=name
        )
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
