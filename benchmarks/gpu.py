"""Training steps on a GPU: python -m benchmarks.gpu, where there is one.

By hand, into runs/bench/gpu.json: profile `course` at its full size, on the
bundled photographs. VGG19 has random weights here, for its speed does not
depend on what it knows.
"""

import contextlib
import datetime
import functools
import itertools
import os
import platform
import statistics
import sys
import time
from unittest import mock

import torch
from accelerate.state import AcceleratorState

from benchmarks.machine import limits
from benchmarks.steps import Way, fresh_run, tutorial_steps
from benchmarks.timing import by_turns, summary
from benchmarks.tools import photograph
from srgan_lib import losses, training
from srgan_lib.config import load_profile, workspace
from srgan_lib.data_lists import data_list
from srgan_lib.files import write_json
from srgan_lib.imresize import imresize
from srgan_lib.inference import upscale
from srgan_lib.models import Generator

NETWORKS = ("srresnet", "srgan")
USUAL, OURS = "usual", "ours"
# Ours without some of what it does on a GPU.
LESS = {
    "in fp32": {
        "native_precision": lambda: "no",
        "worth_compiling": lambda *_: False,
    },
    "images in memory": {
        "image_home": lambda *_: None,
        "worth_compiling": lambda *_: False,
    },
    "not compiled": {"worth_compiling": lambda *_: False},
    OURS: {"worth_compiling": lambda *_: True},
}


def random_vgg19(expected, weights_path=None):
    """In the place of `read_vgg19`: as many weights, which know nothing."""
    torch.manual_seed(0)
    return {
        key: torch.randn(part.shape) / max(1, part[0].numel()) ** 0.5
        for key, part in expected.items()
    }


def configuration():
    config = load_profile("course")
    config.train_sets = ["Photos"]
    return config


def usual_steps(network, config, workers, count):
    way = Way(network, workers=workers, warm=0, timed=count)
    return tutorial_steps(way, config, data_list("Photos"))


def our_steps(network, config, way):
    """Yields the figures of each step."""
    AcceleratorState._reset_state()  # it keeps one precision for a process
    with contextlib.ExitStack() as stack:
        for name, function in LESS[way].items():
            stack.enter_context(mock.patch.object(training, name, function))
        run = stack.enter_context(
            fresh_run(config, network, data_list("Photos"))
        )
        yield from run.epoch_figures()


def time_steps(steps, warm=20, timed=100):
    """Seconds of each step, of the first ones, and bytes of GPU memory."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    begin = start = time.perf_counter()
    times, waits, first = [], [], 0.0
    for k, figures in enumerate(itertools.islice(steps, warm + timed)):
        end = time.perf_counter()
        if k < warm:
            first = end - start
        else:
            times.append(end - begin)
            if isinstance(figures, dict):
                waits.append(figures["data_seconds"])
        begin = end
    steps.close()
    waiting = {"waiting": statistics.median(waits)} if waits else {}
    return (
        summary(times)
        | waiting
        | {"warm_up": first, "memory": torch.cuda.max_memory_reserved()}
    )


def best_usual(network, config, warm=10, timed=50):
    """The usual way with the number of worker processes that serves best."""
    counts = {max(1, (os.cpu_count() or 1) // n) for n in (1, 2, 4)}
    found = [
        {"workers": workers}
        | time_steps(
            usual_steps(network, config, workers, warm + timed), warm, timed
        )
        for workers in sorted(counts)
    ]
    return min(found, key=lambda row: row["seconds"])


def time_ways(record, path):
    """{network: {way: seconds a step}} into the record, kept row by row.

    The usual way first, for ours sets switches; last what compiles long.
    """
    config = configuration()
    record["steps"] = table = {network: {} for network in NETWORKS}
    for way in (USUAL, *LESS):
        for network, ways in table.items():
            if way == USUAL:
                ways[way] = best_usual(network, config)
            else:
                ways[way] = time_steps(our_steps(network, config, way))
            row = {k: f"{v:.4g}" for k, v in ways[way].items()}
            print(network, way, row, flush=True)
            write_json(path, record)


def upscaling(size=512):
    """16 megapixels for each megapixel: one image of `size` pixels square."""
    generator = Generator(configuration()).eval()
    generator = generator.to("cuda", memory_format=torch.channels_last)
    lr = imresize(photograph(), 1 / 2)[:size, :size]
    torch.cuda.reset_peak_memory_stats()
    times = by_turns({"whole": functools.partial(upscale, generator, lr)}, 9)
    return times["whole"] | {
        "megapixels": 16 * lr.shape[0] * lr.shape[1] / 1e6,
        "memory": torch.cuda.max_memory_reserved(),
    }


def main():
    path = workspace() / "runs" / "bench" / "gpu.json"
    if not torch.cuda.is_available():
        sys.exit("There is no GPU here; `make bench` measures the processor.")
    card = torch.cuda.get_device_properties(0)
    record = {
        "machine": {
            "processor": card.name,
            "gigabytes": round(card.total_memory / 1e9),
            "cores": os.cpu_count(),
            "precision": training.native_precision(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "made": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M}",
        "limits": limits(8192, 1024, "cuda", rounds=15),
        "upscaling": upscaling(),
    }
    print(record, flush=True)
    with mock.patch.object(losses, "read_vgg19", random_vgg19):
        time_ways(record, path)
    print(f"The record is {path}.")


if __name__ == "__main__":
    main()
