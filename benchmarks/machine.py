"""The machine: what it is, how fast it can be, and what a step asks of it."""

import os
import platform
from importlib.metadata import version

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.steps import configuration
from benchmarks.timing import by_turns
from benchmarks.tutorial import PlainGenerator, plain_features
from srgan_lib.losses import (
    adversarial_loss,
    content_terms,
    discriminator_loss,
)
from srgan_lib.models import Discriminator
from srgan_lib.training import native_precision, processor_name

PACKAGES = (
    *("torch", "numpy", "pillow", "scikit-image", "torchvision"),
    *("torchmetrics", "piq", "resize-right"),
)


def describe():
    """What the figures depend on beside the code."""
    pages, size = (
        os.sysconf(name) if hasattr(os, "sysconf") else 0
        for name in ("SC_PHYS_PAGES", "SC_PAGE_SIZE")
    )
    return {
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "gigabytes": round(pages * size / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "precision": native_precision(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def limits(size=4096, megabytes=512, device="cpu", rounds=7):
    """Operations a second of a matrix product, bytes a second of a copy."""

    def to_its_end(function):
        def call():
            function()
            if device == "cuda":  # which has only been told what to do
                torch.cuda.synchronize()

        return call

    kinds = {"bf16": torch.bfloat16, "fp32": torch.float32}
    tasks = {}
    for name, kind in kinds.items():
        a, b = torch.rand(2, size, size, device=device).to(kind)
        tasks[name] = to_its_end(lambda a=a, b=b: a @ b)
    source = torch.zeros(megabytes * 2**20 // 4, device=device)
    target = torch.zeros_like(source)
    tasks["copy"] = to_its_end(lambda: target.copy_(source))
    times = by_turns(tasks, rounds)
    return {
        "matrix": size,
        **{name: 2 * size**3 / times[name]["seconds"] for name in kinds},
        # Each byte is read once and written once.
        "copy": 2 * source.nbytes / times["copy"]["seconds"],
    }


def operations(profile="reference"):
    """Operations (additions and multiplications) of a training step.

    Counted in convolutions and matrix products, forward and backward, of
    the networks as they are drawn; a step that is implemented with more
    gets no credit for them.
    """
    counts = {}
    for network in ("srresnet", "srgan"):
        config = configuration(profile)
        stage = config[network]
        hr = torch.rand(stage.batch_size, 3, stage.crop_size, stage.crop_size)
        small = stage.crop_size // config.scaling_factor
        with FlopCounterMode(display=False) as counter:
            sr = PlainGenerator(config)(hr[..., :small, :small])
            loss = F.mse_loss(sr, hr)
            if network == "srgan":
                critic = Discriminator(config).requires_grad_(False)
                terms = content_terms(plain_features(stage), sr, hr)
                loss = loss + terms.sum() + adversarial_loss(critic(sr))
                loss.backward()
                critic.requires_grad_(True)
                loss = discriminator_loss(critic(hr), critic(sr.detach()))
            loss.backward()
        counts[network] = counter.get_total_flops()
    return counts
