"""Short trials for `reference`, one change at a time, before its long run.

Run by hand: python tools/trials.py. Writes srgan_lib/records/trials.json,
which chapter 7 shows; trials that stand in it are not made again. Chosen on
PhotosVal and BSDSVal, which no network here has seen; the test sets are not
looked at. The learning rate of each trial but `constant` falls to zero at
its end, as the long run's schedule has it.

`longer`, in the same record, was written by hand: the first 2,000 steps of
the long run, which was begun with either loss.
"""

import copy
import json
import tempfile

import torch

from srgan_lib import experiments, training
from srgan_lib.config import load_profile
from srgan_lib.files import read_json, write_json

RECORD = experiments.RECORDS / "trials.json"
STEPS = 500
RUN = "SRResNet-1"  # of that profile
# What each trial changes one thing of; the profile has learned from them.
UNCHANGED = {"learning_rate": 4e-4, "pixel_loss": "l1"}
SETS = ["PhotosVal", "BSDSVal"]
TRIALS = {
    "unchanged": {},
    "MSE instead of L1": {"pixel_loss": "mse"},
    "learning rate 1e-4": {"learning_rate": 1e-4},
    "learning rate 8e-4": {"learning_rate": 8e-4},
    "learning rate 1.6e-3": {"learning_rate": 1.6e-3},
    "one-cycle schedule": {"schedule": "one_cycle"},
    "constant learning rate": {"schedule": "constant"},
    "betas 0.9, 0.999": {"betas": [0.9, 0.999]},
    "no clipping": {"clip_norm": None},
    "no average of the weights": {"ema_decay": None},
    "average over 20 steps": {"ema_decay": 0.95},
    "9 crops of 128 pixels": {"batch_size": 9, "crop_size": 128},
    "36 crops of 64 pixels": {"batch_size": 36, "crop_size": 64},
    "residual blocks that start at zero": {"gamma": 0.0},
}


def start_at_zero(state, gamma):
    """Set the scale of each block's last batch norm, so that it starts as
    the identity. Goyal et al. (2017), section 5.1."""
    for network in (state.generator, state.ema):
        for block in network.residual_blocks:
            torch.nn.init.constant_(block.body[-1][1].weight, gamma)


def trial(config, change):
    """Train with one change; seconds, and mean PSNR on each set in dB."""
    config, change = copy.deepcopy(config), dict(change)
    gamma = change.pop("gamma", None)
    config.srresnet.update(UNCHANGED | change)
    config.steps_per_epoch, config.runs[RUN].epochs = STEPS, 1
    pairs = experiments.training_pairs(config)
    with tempfile.TemporaryDirectory() as folder:
        run = training.Run(config, RUN, folder, pairs)
        if gamma is not None:
            start_at_zero(run.state, gamma)
        for _ in run.epoch_figures():
            pass
        generator = run.final_generator()
        seconds = run.elapsed()
    return {"seconds": seconds} | {
        name: training.validate(
            generator, experiments.present_pairs([name], 4)
        )
        for name in SETS
    }


def main():
    config = load_profile("reference")
    record = read_json(RECORD) or {
        "profile": config.name,
        "steps": STEPS,
        "train_images": len(experiments.training_pairs(config)),
        "environment": training.environment(training.make_accelerator()),
        "trials": {},
    }
    for what, change in TRIALS.items():
        if what not in record["trials"]:
            record["trials"][what] = trial(config, change)
            print(what, json.dumps(record["trials"][what]), flush=True)
            write_json(RECORD, record)


if __name__ == "__main__":
    main()
