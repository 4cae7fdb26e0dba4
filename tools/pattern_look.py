"""Where does the eye see a regular pattern? Crops of Set14, without names.

By hand: python tools/pattern_look.py draw FOLDER [NAME=WEIGHTS ...] writes
01.png, 02.png and so on: the busiest crop of each picture, as it is in the
original and as the shipped networks enlarge it, and those that are named, in
random order; and key.json, which the judge must not see. The judge says of
each n, s or c: no pattern, a slight or a clear one. Then
python tools/pattern_look.py count FOLDER nscnn... JUDGE writes
srgan_lib/records/pattern_look.json, which chapter 8 shows.
"""

import datetime
import hashlib
import sys
from pathlib import Path

import numpy as np
from blind_look import HEIGHT, NETWORKS, SEED, WIDTH, ZOOM

from srgan_lib import inference
from srgan_lib.data_lists import data_list
from srgan_lib.experiments import RECORDS
from srgan_lib.figures import busiest, cut
from srgan_lib.files import read_json, write_json
from srgan_lib.images import read_image, read_original, write_image

ANSWERS = {"n": "none", "s": "slight", "c": "clear"}


def draw(folder, weights):
    """Write the crops, and the key to them. weights: {name: file}."""
    generators = {n: inference.load_generator(p) for n, p in weights.items()}
    shown = []
    for hr_path, lr_path in sorted(data_list("Set14")):
        lr = read_image(lr_path)
        sr = {n: inference.upscale(g, lr) for n, g in generators.items()}
        hr = read_original(hr_path, sr[NETWORKS[0]])
        box = busiest(hr, HEIGHT, WIDTH)
        for name, picture in ({"original": hr} | sr).items():
            crop = {"image": hr_path.stem, "box": box, "by": name}
            shown.append((crop, cut(picture, box)))
    order = np.random.default_rng(SEED).permutation(len(shown))
    crops = [shown[k] for k in order]
    for k, (_, part) in enumerate(crops, 1):
        part = part.repeat(ZOOM, 0).repeat(ZOOM, 1)
        write_image(folder / f"{k:02}.png", part)
    hashes = {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in weights.items()
    }
    key = {"weights": hashes, "crops": [crop for crop, _ in crops]}
    write_json(folder / "key.json", key)


def count(folder, answers, judge):
    """Join a letter for each crop with the key; write the record."""
    key = read_json(folder / "key.json")
    for crop, answer in zip(key["crops"], answers, strict=True):
        crop["pattern"] = ANSWERS[answer]
    record = {
        "date": datetime.date.today().isoformat(),
        "set": "Set14",
        "zoom": ZOOM,
        "judge": judge,
    } | key
    write_json(RECORDS / "pattern_look.json", record)
    for crop in sorted(key["crops"], key=lambda crop: crop["by"]):
        print(crop["by"], crop["image"], crop["pattern"])


if __name__ == "__main__":
    task, target, *words = sys.argv[1:] or sys.exit(__doc__)
    if task == "draw":
        files = {n: inference.WEIGHTS / f"{n}.safetensors" for n in NETWORKS}
        named = (word.split("=") for word in words)
        draw(Path(target), files | {n: Path(p) for n, p in named})
    else:
        count(Path(target), *words)
