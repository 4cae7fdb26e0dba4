"""Training steps at full size: the usual way, ours, and all between.

Each way is timed in processes of its own, for how memory is kept cannot be
undone, and the ways take turns, so that what disturbs one disturbs all.
"""

import contextlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from unittest import mock

import torch
from accelerate import PartialState
from tqdm import tqdm

from benchmarks import attempts, tutorial
from benchmarks.timing import matrix_rate, summary
from srgan_lib import training
from srgan_lib.config import load_profile
from srgan_lib.data_lists import data_list, is_present
from srgan_lib.datasets import EpochBatches, SRDataset
from srgan_lib.losses import load_features
from srgan_lib.models import Discriminator, Generator

SRGAN_MEASURES = ("judged together", "simplified features")
MEASURES = (
    "bf16",
    "channels last",
    "late shuffle",
    "fused Adam",
    "kept memory",
    "cached images",
    *SRGAN_MEASURES,
)


@dataclass(frozen=True)
class Way:
    """A way to train: the tutorials', with `measures` taken, or ours."""

    network: str
    measures: frozenset = frozenset()
    workers: int = 0
    library: bool = False  # ours as it is: training.Run
    attempt: str | None = None  # of attempts.py, on top
    profile: str = "reference"
    warm: int = 3
    timed: int = 4
    rounds: int = 3


def configuration(profile="reference"):
    """A profile's networks on the images of one set, 16 crops a batch."""
    config = load_profile(profile)
    config.train_sets = ["BSDS" if is_present("BSDS") else "Photos"]
    config.srresnet.batch_size = config.srgan.batch_size = 16
    config.srgan.content_weight = 1.0  # calibrating takes no part in it
    config.steps_per_epoch = None
    return config


IMAGES = 64  # few enough to be decoded before the clock starts


def images_of(config):
    return data_list(config.train_sets[0])[:IMAGES]


def decode(dataset):
    """As in any run after its first minute: each image stands decoded."""
    for n in range(len(dataset.pairs)):
        dataset.crop(n)


def worker_counts():
    """0, 1, 2, 4, ... as far as there are processors for them."""
    most = os.cpu_count() or 1
    return [0, *(2**k for k in range(8) if 2**k <= most)]


@contextlib.contextmanager
def fresh_run(config, network, pairs):
    """The library's run of a network at its beginning, thrown away after."""
    name = next(n for n, r in config.runs.items() if r.network == network)
    with tempfile.TemporaryDirectory() as folder:
        run = training.Run(config, name, folder, pairs)
        decode(run.dataset)
        yield run


def library_steps(way, config, pairs):
    """Ours: yields the seconds each step waited for its data."""
    with contextlib.ExitStack() as stack:
        if "bf16" not in way.measures:
            stack.enter_context(
                mock.patch.object(training, "native_precision", lambda: "no")
            )
        run = stack.enter_context(fresh_run(config, way.network, pairs))
        attempts.apply(way.attempt, run)
        for figures in run.epoch_figures():
            yield figures["data_seconds"]


def in_bf16(network, device):
    """Have a network compute in bf16 and answer in 32 bits."""
    forward = torch.autocast(device.type, torch.bfloat16)(network.forward)

    def wide(answer):
        if isinstance(answer, torch.Tensor):
            return answer.float()
        return [wide(part) for part in answer]

    network.forward = lambda *images: wide(forward(*images))


def batches_of(way, config, pairs, process):
    """(lr, hr) on the device, in the memory format of the way."""
    stage = config[way.network]
    count = way.warm + way.timed + 2
    if "cached images" in way.measures:
        dataset = SRDataset(pairs, config, stage.crop_size)
        decode(dataset)
        numbers = EpochBatches(dataset, stage.batch_size, 0, count)
        batches = training.load_batches(process, dataset, numbers, [])
    else:
        batches = tutorial.loader(
            [hr for hr, _ in pairs],
            stage.crop_size,
            config.scaling_factor,
            stage.batch_size,
            count,
            way.workers,
        )
    for sides in batches:
        yield tuple(
            side.to(process.device, memory_format=memory_format(way))
            for side in sides
        )


def memory_format(way):
    if "channels last" in way.measures:
        return torch.channels_last
    return torch.contiguous_format


def tutorial_steps(way, config, pairs):
    """The tutorials' training with some of our measures, a batch a step."""
    if "kept memory" in way.measures:
        training.keep_memory()
    process = PartialState()
    stage = config[way.network]

    def ready(network):
        network = network.to(process.device, memory_format=memory_format(way))
        if "bf16" in way.measures:
            in_bf16(network, process.device)
        return network

    def adam(network):
        return torch.optim.Adam(
            network.parameters(),
            stage.learning_rate,
            fused=True if "fused Adam" in way.measures else None,
        )

    late = "late shuffle" in way.measures
    generator = ready(
        (Generator if late else tutorial.PlainGenerator)(config)
    ).train()
    batches = batches_of(way, config, pairs, process)
    if way.network == "srresnet":
        return tutorial.srresnet_steps(generator, adam(generator), batches)
    discriminator = ready(Discriminator(config)).train()
    together = "judged together" in way.measures
    simple = "simplified features" in way.measures
    return tutorial.srgan_steps(
        generator,
        discriminator,
        ready((load_features if simple else tutorial.plain_features)(stage)),
        adam(generator),
        adam(discriminator),
        batches,
        (lambda d, *batches: d(*batches)) if together else tutorial.one_by_one,
    )


def time_steps(way):
    """Seconds of each step, and of each step's wait for data (ours alone);
    the rates of a matrix product right before and after the steps."""
    kind = torch.bfloat16 if "bf16" in way.measures else torch.float32
    rates = [matrix_rate(kind)]
    torch.manual_seed(0)
    config = configuration(way.profile)
    pairs = images_of(config)
    make = library_steps if way.library else tutorial_steps
    times, waits = [], []
    steps = make(way, config, pairs)
    for k in range(way.warm + way.timed):
        begin = time.perf_counter()
        wait = next(steps)
        if k >= way.warm:
            times.append(time.perf_counter() - begin)
            waits.append(wait if way.library else 0)
    steps.close()
    rates.append(matrix_rate(kind))
    return times, waits, rates


def processes():
    """A pool of one fresh process for each task, quick to start.

    They are copies of one process in which everything is imported.
    """
    kinds = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context(
        "forkserver" if "forkserver" in kinds else "spawn"
    )
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(["benchmarks.steps"])
    return ProcessPoolExecutor(1, context, max_tasks_per_child=1)


def alone(function, *arguments):
    """The function's result, computed in a process of its own."""
    with processes() as pool:
        return pool.submit(function, *arguments).result()


def time_ways(ways):
    """{label: Way} by turns -> {label: summary}."""
    found = {label: ([], [], []) for label in ways}
    most = max(way.rounds for way in ways.values())
    turns = [
        label
        for k in range(most)
        for label, way in ways.items()
        if k < way.rounds
    ]
    with processes() as pool:
        for label in tqdm(turns, "training steps", file=sys.stdout):
            turn = pool.submit(time_steps, ways[label]).result()
            for so_far, new in zip(found[label], turn, strict=True):
                so_far += new
    results = {}
    for label, (times, waits, rates) in found.items():
        results[label] = summary(times)
        results[label]["matrix"] = statistics.median(rates)
        if ways[label].library:
            results[label]["waiting"] = statistics.median(waits)
    return results
