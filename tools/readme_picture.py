"""Draw README's picture with the weights that come with the library.

python tools/readme_picture.py: writes book/_static/readme.png, the same
crop of a Bundled5 photograph by four methods, each pixel enlarged 3 x 3.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from srgan_lib.data_lists import data_list
from srgan_lib.figures import cut
from srgan_lib.images import read_image, write_image
from srgan_lib.imresize import imresize
from srgan_lib.inference import load_generator, upscale

TARGET = Path(__file__).parents[1] / "book/_static/readme.png"
NAME, BOX, ZOOM, LABEL = "chelsea", (80, 110, 84, 100), 3, 26


def main():
    hr_path, lr_path = next(
        pair for pair in data_list("Bundled5") if pair[0].stem == NAME
    )
    lr = read_image(lr_path)
    pictures = {
        "bicubic": imresize(lr, 4),
        "SRResNet": upscale(load_generator("srresnet"), lr),
        "SRGAN": upscale(load_generator("srgan"), lr),
        "original": read_image(hr_path),
    }
    cells = [
        cut(image, BOX).repeat(ZOOM, 0).repeat(ZOOM, 1)
        for image in pictures.values()
    ]
    height, width = cells[0].shape[:2]
    sheet = np.full((height + LABEL, width * len(cells), 3), 255, np.uint8)
    sheet[LABEL:] = np.concatenate(cells, axis=1)
    picture = Image.fromarray(sheet)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(18)
    for k, label in enumerate(pictures):
        draw.text((k * width + 4, 2), label, "black", font)
    write_image(TARGET, np.asarray(picture))


if __name__ == "__main__":
    main()
