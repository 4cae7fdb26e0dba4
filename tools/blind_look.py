"""Which is sharper, SRResNet or SRGAN? Ten crops of Set14, without names.

By hand: python tools/blind_look.py draw FOLDER writes 01.png to 10.png, each
with the shipped networks' enlargements of one crop side by side, the order
drawn, and key.json, which the judge must not see. The judge says of each
which side is sharper, and which is nicer to look at: l or r. Then
python tools/blind_look.py count FOLDER lrllrrlrll rrlrlllrlr JUDGE writes
srgan_lib/records/blind_look.json, which chapter 9 shows; JUDGE: who looked.
"""

import datetime
import json
import sys
from pathlib import Path

import numpy as np

from srgan_lib import inference
from srgan_lib.data_lists import data_list
from srgan_lib.experiments import RECORDS
from srgan_lib.figures import busiest, cut
from srgan_lib.files import write_json
from srgan_lib.images import read_image, write_image

CROPS, HEIGHT, WIDTH, ZOOM, SEED = 10, 100, 130, 4, 0
NETWORKS = ("srresnet", "srgan")


def draw(folder):
    """Write the pairs of pictures, and the key to them."""
    generators = {name: inference.load_generator(name) for name in NETWORKS}
    random = np.random.default_rng(SEED)
    pairs = sorted(data_list("Set14"))
    chosen = random.choice(len(pairs), CROPS, replace=False)
    crops = []
    for k, (hr_path, lr_path) in enumerate((pairs[i] for i in chosen), 1):
        box = busiest(read_image(hr_path), HEIGHT, WIDTH)
        order = random.permutation(NETWORKS).tolist()
        shown = []
        for name in order:
            sr = inference.upscale(generators[name], read_image(lr_path))
            shown.append(cut(sr, box).repeat(ZOOM, 0).repeat(ZOOM, 1))
        gap = np.full((HEIGHT * ZOOM, 4 * ZOOM, 3), 255, np.uint8)
        write_image(
            folder / f"{k:02}.png",
            np.concatenate([shown[0], gap, shown[1]], axis=1),
        )
        crops.append(
            {
                "image": hr_path.stem,
                "box": box,
                "left": order[0],
                "right": order[1],
            }
        )
    write_json(folder / "key.json", crops)


def count(folder, sharper, nicer, judge):
    """Join ten letters each, l or r, with the key; write the record."""
    crops = json.loads((folder / "key.json").read_text())
    sides = {"l": "left", "r": "right"}
    for crop, *letters in zip(crops, sharper, nicer, strict=True):
        crop["sharper"], crop["nicer"] = (crop[sides[x]] for x in letters)
    record = {
        "date": datetime.date.today().isoformat(),
        "set": "Set14",
        "zoom": ZOOM,
        "judge": judge,
        "weights": {n: inference.provenance(n)["sha256"] for n in NETWORKS},
        "crops": crops,
    }
    write_json(RECORDS / "blind_look.json", record)
    for crop in crops:
        print(crop["image"], crop["sharper"], crop["nicer"])


if __name__ == "__main__":
    task, target, *words = sys.argv[1:] or sys.exit(__doc__)
    if task == "draw":
        draw(Path(target))
    else:
        count(Path(target), *words)
