"""Does speed cost quality? The same 500 steps, our way and in fp32.

Minutes long, so not part of `make bench`. Both runs resume after Ctrl-C.
"""

import contextlib
import shutil
from unittest import mock

from benchmarks.steps import alone
from benchmarks.tutorial import PlainGenerator
from srgan_lib import models, training
from srgan_lib.config import load_profile, workspace
from srgan_lib.experiments import (
    TRAINING_CODE,
    code_digest,
    digest,
    pairs_digest,
    present_pairs,
    read_result,
    training_pairs,
)


@contextlib.contextmanager
def usual_arithmetic():
    """fp32, and the network computed as it is drawn."""
    with (
        mock.patch.object(training, "native_precision", lambda: "no"),
        mock.patch.object(
            models.SRResNet, "enlarge_faster", PlainGenerator.enlarge_faster
        ),
    ):
        yield


ARITHMETIC = {"ours": contextlib.nullcontext, "fp32": usual_arithmetic}


def trained(name, profile, steps):
    """What a run reaches on PhotosVal with one of ARITHMETIC."""
    config = load_profile(profile)
    config.steps_per_epoch = steps
    first = next(iter(config.runs.values()))  # an SRResNet, from its start
    config.runs = {name: first | {"epochs": 1}}
    pairs = training_pairs(config)
    val_pairs = present_pairs(config.val_sets, config.scaling_factor)
    key = digest(config, pairs_digest(pairs), code_digest(TRAINING_CODE))
    folder = workspace() / "runs" / "bench" / name
    found = read_result(folder).config
    if found.get("key") != key:
        shutil.rmtree(folder, ignore_errors=True)
    if (found.get("key"), found.get("state")) != (key, "finished"):
        with ARITHMETIC[name]():
            training.train(config, name, folder, pairs, val_pairs, key=key)
    result = read_result(folder)
    return {
        "psnr": result.validation[-1]["psnr"],
        "seconds": result.config.seconds,
        "precision": result.config.environment.precision,
    }


def quality(profile="reference", steps=500):
    """PSNR on PhotosVal after the same steps on the same crops."""
    # Each in a process of its own, for a process has one precision.
    return {"steps": steps} | {
        name: alone(trained, name, profile, steps) for name in ARITHMETIC
    }
