"""Make srgan_lib/photos from the photographs of two Debian packages.

By hand, once:
    apt-get download lomiri-wallpapers-16.04 lomiri-wallpapers-20.04
    dpkg -x each of them into one FOLDER
    python tools/make_photos.py FOLDER

The originals are large JPEGs. Shrinking spreads the 8-pixel blocks and the
ringing of the compression over less than a pixel, so that what remains is
the photograph. Textured photographs keep more pixels than flat ones.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from srgan_lib.files import atomic_write, write_text
from srgan_lib.images import read_image, to_uint8
from srgan_lib.imresize import imresize

PHOTOS = Path(__file__).parents[1] / "srgan_lib" / "photos"
PACKAGES = {
    "16.04": "lomiri-wallpapers-16.04 20.04.0-2",
    "20.04": "lomiri-wallpapers-20.04 20.04.0-2",
}
LICENSES = {
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-3.0": "https://creativecommons.org/licenses/by-sa/3.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
}
AITZOL = "Aitzol Berasategi"
PETER = "Peter Nerlich"
TREVOR = 'Trevor "Freespace"'
# name: (title, author, license, package, original file, shrunk by)
TABLE = {
    "bird": ("Kleiber", "Lukas Baubkus", "CC-BY-SA-3.0",
             "20.04", "Kleiber_by_Lukas_Baubkus", 4),
    "bridge": ("Bridge", "Sander Klootwijk", "CC-BY-SA-4.0",
               "16.04", "Bridge_by_Sander_Klootwijk", 4),
    "brushes": ("Picture 1A", TREVOR, "CC-BY-4.0",
                "16.04", "Picture_1A_by_freespace", 2),
    "clock": ("greentock", PETER, "CC-BY-SA-4.0",
              "16.04", "greentock_by_Peter_Nerlich", 3),
    "dandelion": ("seeding", "Clemens Engelhardt", "CC0-1.0",
                  "16.04", "seeding_by_Clements_Engelhardt", 4),
    "dogs": ("friends", AITZOL, "CC-BY-4.0",
             "16.04", "friends_by_Aitzol_Berasategi", 2.5),
    "dragonfly": ("Dragonfly", "Bolly", "CC-BY-SA-4.0",
                  "16.04", "Dragonfly_by_Bolly", 3.5),
    "fig": ("Picture 0B", TREVOR, "CC-BY-4.0",
            "16.04", "Picture_0B_by_freespace", 2),
    "galaxy": ("Infinite Sea", "Aury88", "CC-BY-SA-3.0",
               "20.04", "Infinite-Sea_by_Aury88", 5),
    "lamp": ("free", PETER, "CC-BY-SA-4.0",
             "16.04", "free_by_Peter_Nerlich", 3),
    "meadow": ("aitzgorri", AITZOL, "CC-BY-4.0",
               "16.04", "aitzgorri_by_Aitzol_Berasategi", 2.5),
    "mountain": ("picosdeeuropa", AITZOL, "CC-BY-4.0",
                 "16.04", "picosdeeuropa_by_Aitzol_Berasategi", 2.5),
    "plaster": ("analogpattern", PETER, "CC-BY-SA-4.0",
                "16.04", "analogpattern_by_Peter_Nerlich", 3),
    "room": ("Wine", "Jakub Mede", "CC-BY-4.0",
             "16.04", "Wine_by_Jakkub_Mede", 4),
    "stream": ("life", AITZOL, "CC-BY-4.0",
               "16.04", "life_by_Aitzol_Berasategi", 2.5),
    "sunset": ("sunset", AITZOL, "CC-BY-4.0",
               "16.04", "sunset_by_Aitzol_Berasategi", 4),
}  # fmt: skip
# Right of the bird there is nothing in focus.
CROPS = {"bird": (slice(None), slice(0, 3391))}


def shrink(image, factor):
    """uint8 -> uint8, in double precision with one rounding at the end."""
    return to_uint8(imresize(image.astype(np.float64), 1 / factor))


def credit(name, image):
    """What the license asks to be told, for one photograph."""
    title, author, license, package, original, factor = TABLE[name]
    height, width = image.shape[:2]
    cropped = "cropped, then " if name in CROPS else ""
    return {
        "author": author,
        "title": title,
        "license": license,
        "license_url": LICENSES[license],
        "source": f"Debian package {PACKAGES[package]}, {original}.jpg",
        "changes": f"{cropped}shrunk {factor} times to {width} x {height} "
        "pixels, stored as lossless WebP",
    }


def markdown(credits):
    """The credits as a page to read."""
    rows = [
        f"| {name} | {c['title']} | {c['author']} "
        f"| [{c['license']}]({c['license_url']}) "
        f"| {c['source']} | {c['changes']} |"
        for name, c in credits.items()
    ]
    return "\n".join(
        [
            "# Credits of the photographs",
            "",
            "Each photograph, as changed here, stays under the license of "
            "its original.",
            "",
            "| file | title | author | license | source | changes |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main(folder):
    credits = {}
    for name, row in TABLE.items():
        (original,) = Path(folder).rglob(f"{row[4]}.jpg")
        image = read_image(original)[CROPS.get(name, ...)]
        image = shrink(image, row[5])
        with atomic_write(PHOTOS / f"{name}.webp") as temporary:
            # The smallest lossless file libwebp can find.
            Image.fromarray(image).save(
                temporary, lossless=True, quality=100, method=6
            )
        credits[f"{name}.webp"] = credit(name, image)
        size = (PHOTOS / f"{name}.webp").stat().st_size
        print(f"{name:10} {image.shape[1]:5} x {image.shape[0]:4} {size:8}")
    write_text(PHOTOS / "credits.json", json.dumps(credits, indent=2) + "\n")
    write_text(PHOTOS / "CREDITS.md", markdown(credits))


if __name__ == "__main__":
    main(sys.argv[1])
