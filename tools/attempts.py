"""What was tried for `quick`, one change at a time, and what each gave.

Run by hand, after the runs of `quick` stand: python tools/attempts.py
Goes on where it was stopped. Writes srgan_lib/records/attempts.json, which
the report shows. Chosen by PhotosVal; the test sets are not looked at. About
a minute an attempt.
"""

import copy
import functools
import json
import tempfile
from pathlib import Path

import numpy as np

from srgan_lib import experiments, training
from srgan_lib.config import load_profile
from srgan_lib.data_lists import data_list
from srgan_lib.evaluation import evaluate
from srgan_lib.files import write_json
from srgan_lib.images import read_image, read_original
from srgan_lib.inference import load_generator, upscale
from srgan_lib.losses import EfficientNetFeatures
from srgan_lib.metrics import grid_amplitude

RECORD = experiments.RECORDS / "attempts.json"
START, EPOCHS = "SRResNet-20", 6
# (stage, what was changed, the change); the first of a stage changes nothing.
ATTEMPTS = (
    ("srresnet", "as in the profile", {}),
    ("srresnet", "MSE instead of L1", {"pixel_loss": "mse"}),
    ("srresnet", "learning rate 1e-4, the case's", {"learning_rate": 1e-4}),
    ("srresnet", "no average of the weights", {"ema_decay": None}),
    ("srgan", "as in the profile", {}),
    ("srgan", "no grid term", {"grid_weight": 0}),
    ("srgan", "a mesh term", {"mesh_weight": 3000.0}),
    ("srgan", "discriminator at the full rate", {"d_pace": 1.0}),
    ("srgan", "no pixel term", {"pixel_weight": 0}),
    ("srgan", "beta 0.005", {"beta": 0.005}),
    ("srgan", "beta 0.05", {"beta": 0.05}),
    ("srgan", "no average of the weights", {"ema_decay": None}),
)


def grid(enlarge, hr_path, lr_path):
    sr = enlarge(read_image(lr_path))
    hr = read_original(hr_path, sr)
    return grid_amplitude(sr, hr)


def attempt(config, stage, change, features):
    """Train `EPOCHS` epochs with one change; the figures on PhotosVal."""
    config = copy.deepcopy(config)
    config[stage].update(change)
    name = "SRResNet-10" if stage == "srresnet" else "SRGAN-10"
    config.runs[name].epochs = EPOCHS
    start = None
    if stage == "srgan":
        start = experiments.runs_folder(config) / START / "weights.safetensors"
    pairs = data_list("PhotosVal")
    with tempfile.TemporaryDirectory() as folder:
        training.train(
            config,
            name,
            folder,
            experiments.training_pairs(config),
            start=start,
        )
        enlarge = functools.partial(upscale, load_generator(folder))
        history = training.read_lines(Path(folder) / "history.jsonl")
    figures = evaluate(enlarge, pairs, features)["mean"]
    figures["grid"] = float(np.mean([grid(enlarge, *some) for some in pairs]))
    if stage == "srgan":
        last = [r["D(fake)"] for r in history if r["epoch"] == EPOCHS]
        figures["D(fake)"] = float(np.mean(last))
    return figures


def main():
    config, features = load_profile("quick"), EfficientNetFeatures()
    record = experiments.read_record("attempts") or {
        "profile": config.name,
        "set": "PhotosVal",
        "epochs": EPOCHS,
        "start": START,
        "train_images": len(experiments.training_pairs(config)),
        "environment": training.environment(training.make_accelerator()),
        "attempts": [],
    }
    done = {(a["stage"], a["what"]) for a in record["attempts"]}
    for stage, what, change in ATTEMPTS:
        if (stage, what) in done:
            continue
        figures = attempt(config, stage, change, features)
        record["attempts"].append({"stage": stage, "what": what, **figures})
        print(json.dumps(record["attempts"][-1]), flush=True)
        write_json(RECORD, record)


if __name__ == "__main__":
    main()
