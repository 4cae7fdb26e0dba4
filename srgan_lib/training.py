"""One run, from its start or its last checkpoint to its end."""

import copy
import ctypes
import json
import math
import os
import platform
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import accelerate
import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import set_seed
from PIL import Image
from torch import nn
from torch.distributed import DistError
from torch.nn import functional as F
from tqdm import tqdm

from srgan_lib.checkpoints import (
    load_checkpoint,
    random_states,
    restore_random_states,
    save_checkpoint,
    save_weights,
)
from srgan_lib.datasets import EpochBatches, SRDataset
from srgan_lib.errors import UserError
from srgan_lib.files import write_json, write_text
from srgan_lib.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    normalize_hr,
    normalize_lr,
    read_image,
    read_original,
)
from srgan_lib.inference import upscale
from srgan_lib.losses import calibrate_content, load_features
from srgan_lib.metrics import psnr
from srgan_lib.models import Discriminator, Generator
from srgan_lib.solver import TrainingState, srgan_epoch, srresnet_epoch

CALIBRATION_BATCHES = 8
STATISTICS_CROPS = 128
# In fewer steps, torch.compile (a minute or more) does not pay.
STEPS_WORTH_COMPILING = 5000
# A launcher passes on a Ctrl-C that the terminal has sent already.
SECONDS_OF_ONE_SIGNAL = 3


class Interrupted(Exception):
    """A signal ended the training; all is saved."""

    def __init__(self, signum, checkpoint):
        super().__init__(signum, checkpoint)  # as a process hands it on
        self.signum, self.checkpoint = signum, checkpoint

    def __str__(self):
        name = signal.Signals(self.signum).name
        return f"{name}: saved {self.checkpoint}; start again to go on."


def native_precision():
    """ "bf16" where the hardware computes in it, else "no".

    By what the machine says of itself, never by a timing: two runs on one
    machine must not differ.
    """
    if torch.cuda.is_available():
        fits = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        ask = getattr(torch.cpu, "get_capabilities", dict)
        fits = bool(
            {"avx512_bf16", "amx_bf16"} & {k for k, v in ask().items() if v}
        )
    return "bf16" if fits else "no"


def processes():
    """This process among those that a launcher has started, if it has."""
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    # Without being told, Accelerate takes CPU processes for so many runs.
    return PartialState(cpu=several and not torch.cuda.is_available())


def make_accelerator():
    """Devices, precision and processes, by Hugging Face Accelerate."""
    processes()
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # TF32, where there is one
        torch.backends.cudnn.benchmark = True  # crops are all of one size
    return Accelerator(mixed_precision=native_precision())


def keep_memory():
    """Have the C library keep what is freed, for the next step.

    Else it hands large tensors back to the system, page by page, and asks
    for them again in the next step: a tenth of it. glibc(3), mallopt.
    """
    most_mmaps, trim_threshold = -4, -1
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        ctypes.CDLL(None).mallopt(most_mmaps, 0)
        ctypes.CDLL(None).mallopt(trim_threshold, -1)


def image_home(accelerator, pairs):
    """Where the decoded images live: on the GPU, if they fill at most half
    of what is free there; else None, in memory."""
    if accelerator.device.type != "cuda":
        return None
    pixels = 0
    for path in (path for pair in pairs for path in pair):
        with Image.open(path) as picture:
            pixels += math.prod(picture.size)
    free, _ = torch.cuda.mem_get_info(accelerator.device)
    return accelerator.device if 3 * pixels < free / 2 else None


def environment(accelerator):
    """What a run's figures depend on beside its configuration."""
    return {
        "device": str(accelerator.device),
        "processor": (
            torch.cuda.get_device_name()
            if accelerator.device.type == "cuda"
            else processor_name()
        ),
        "threads": torch.get_num_threads(),
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "accelerate": accelerate.__version__,
    }


def processor_name():
    """The processor's name, as well as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def read_lines(path):
    """The records of a .jsonl file; a line cut short by a crash is left."""
    records = []
    if Path(path).exists():
        for line in Path(path).read_text().splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return records


def keep_until(path, step):
    """Cut a .jsonl file back to the records up to `step`."""
    kept = [r for r in read_lines(path) if r["step"] <= step]
    write_text(path, "".join(json.dumps(r) + "\n" for r in kept))


@contextmanager
def noticed_signals():
    """A list that the number of a SIGINT or SIGTERM is put into.

    Another one, some seconds later, is a KeyboardInterrupt at once.
    """
    seen, times = [], []

    def note(signum, frame):
        times.append(time.monotonic())
        if not seen:
            seen.append(signum)
        elif times[-1] - times[0] > SECONDS_OF_ONE_SIGNAL:
            raise KeyboardInterrupt

    old = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)


def mean_figures(accelerator, figures):
    """A step's figures as numbers: their means over the processes."""
    # All in one tensor, for a GPU is waited for at each number asked of it.
    mine = {k: v for k, v in figures.items() if isinstance(v, torch.Tensor)}
    means = accelerator.reduce(torch.stack([*mine.values()]), "mean")
    return figures | dict(zip(mine, means.tolist(), strict=True))


def agreed_signal(accelerator, signals):
    """The number of a signal that any process has seen; 0 if none has."""
    if accelerator.num_processes == 1:
        return signals[0] if signals else 0
    # All stop after the same step, or one would wait for the others for ever.
    mine = torch.tensor([*signals, 0][:1], device=accelerator.device)
    return int(accelerator.gather(mine).max())


@contextmanager
def lost_process_named(name):
    """Say in plain words that another process was killed or broke off."""
    try:
        yield
    except RuntimeError as error:
        # Gloo, between CPUs, has no kind of error of its own.
        if isinstance(error, DistError) or "gloo" in str(error):
            raise UserError(
                f"{name}: another process of this training is gone."
            ) from error
        raise


def timed(batches, waits):
    """The same batches; the seconds each was waited for go into `waits`."""
    batches = iter(batches)
    while True:
        begin = time.perf_counter()
        batch = next(batches, None)
        waits.append(time.perf_counter() - begin)
        if batch is None:
            return
        yield batch


def validate(generator, pairs):
    """Mean PSNR over (hr path, lr path) pairs, in dB."""
    scores = []
    for hr_path, lr_path in pairs:
        lr = read_image(lr_path)
        sr = upscale(generator, lr)
        hr, scale = read_original(hr_path, sr), len(sr) // len(lr)
        scores.append(psnr(sr, hr, crop=scale))
    return sum(scores) / len(scores)


@torch.no_grad()
def measure_batch_norm(generator, dataset):
    """Give each batch norm the statistics of one large batch of crops.

    Those that training leaves are averages over small batches. What sets
    one batch apart from the next is not in them, and the error grows from
    layer to layer. Wu and Johnson (2021), section 3.
    """
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1  # this batch alone
    size = min(STATISTICS_CROPS, len(dataset))
    numbers = next(iter(EpochBatches(dataset, size, epoch=0, steps=1)))
    lr, _ = dataset.batch(numbers)
    device = next(generator.parameters()).device
    generator.train()(normalize_lr(lr.to(device)))
    return generator.eval()


def build_state(accelerator, config, network, start=None):
    """Networks and optimizers at their beginning, all of them seeded.

    network: "srresnet" or "srgan"; start: weights of an SRResNet.
    """
    set_seed(config.seed)
    stage = config[network]
    generator = Generator(config)
    if start is not None:
        generator.initialize_with_srresnet(start)
    ema = None
    if stage.ema_decay is not None:
        ema = copy.deepcopy(generator).requires_grad_(False)
        ema = ema.to(accelerator.device, memory_format=torch.channels_last)
    state = TrainingState(*prepare(accelerator, generator, stage), ema=ema)
    if network == "srgan":
        state.discriminator, state.d_optimizer = prepare(
            accelerator, Discriminator(config), stage
        )
    return state


def prepare(accelerator, network, stage):
    """The network on its device, with its optimizer.

    With several processes, each normalizes its own part of a batch; what
    is kept of them at the end is measured anew (`measure_batch_norm`).
    """
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(
        network.parameters(),
        lr=stage.learning_rate,
        betas=stage.betas,
        fused=True,  # one pass over memory instead of eight
    )
    return accelerator.prepare(network, optimizer)


def worth_compiling(accelerator, steps):
    """Whether torch.compile has what it needs, and time to pay."""
    return (
        accelerator.device.type == "cuda"
        and steps >= STEPS_WORTH_COMPILING
        and find_spec("triton") is not None
        and bool(shutil.which("gcc") or shutil.which("clang"))
    )


def compile_networks(accelerator, state):
    """Have both networks compiled, when they are first called.

    In place, so that their state_dicts stay as they are. What cannot be
    compiled after all runs as it is, after a warning.
    """
    torch._dynamo.config.suppress_errors = True
    for network in (state.generator, state.discriminator):
        if network is not None:
            # Crops are of one size. But both networks share Accelerate's
            # forward, and so theirs would be taken for a size that varies.
            accelerator.unwrap_model(network).compile(dynamic=False)


def parts(accelerator, state):
    """The parts of a training state that have a state_dict, by name."""
    named = {
        "generator": accelerator.unwrap_model(state.generator),
        "g_optimizer": state.g_optimizer,
        "ema": state.ema,
        "d_optimizer": state.d_optimizer,
    }
    if state.discriminator is not None:
        named["discriminator"] = accelerator.unwrap_model(state.discriminator)
    return {name: part for name, part in named.items() if part is not None}


def load_batches(accelerator, dataset, epoch_batches, waits):
    """This process's part of each batch, on its device, ready to train on.

    lr (N, 3, h, w) ImageNet-normalized, hr (N, 3, H, W) in [-1, 1]. What
    crosses over to the device is uint8, a quarter of the bytes. The seconds
    that each batch was waited for go into the list `waits`.
    """
    coming = one_ahead(byte_batches(accelerator, dataset, epoch_batches))
    for sides in timed(coming, waits):
        lr, hr = (
            side.to(accelerator.device, non_blocking=True) for side in sides
        )
        yield normalize_lr(lr), normalize_hr(hr)


def byte_batches(accelerator, dataset, epoch_batches):
    """This process's part of each batch as uint8, where the images are."""
    rank, count = accelerator.process_index, accelerator.num_processes
    for numbers in epoch_batches:
        sides = dataset.batch(numbers[rank::count])
        if accelerator.device.type == "cuda" and not sides[0].is_cuda:
            # From pinned memory the GPU copies while the program goes on.
            sides = [side.pin_memory() for side in sides]
        yield sides


def one_ahead(batches):
    """The same batches, each made while the one before is trained on.

    No floating-point work on a CPU belongs in there: PyTorch would give
    this thread its own helpers, and they take the processors from the
    training (a step took nearly half as long again).
    """
    batches = iter(batches)
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def calibrated_weights(accelerator, features, dataset, stage):
    """The weight of each layer's content term: fixed, or measured.

    Measured on crops of the training images before the first step, with
    bicubic in the generator's place (see `calibrate_content`).
    """
    if stage.content_weight != "calibrated":
        return torch.tensor([stage.content_weight], device=accelerator.device)
    mean, std = (
        torch.tensor(v, device=accelerator.device).view(3, 1, 1)
        for v in (IMAGENET_MEAN, IMAGENET_STD)
    )
    losses = []
    steps = min(CALIBRATION_BATCHES, len(dataset) // stage.batch_size)
    batches = EpochBatches(dataset, stage.batch_size, 0, steps)
    for lr, hr in load_batches(accelerator, dataset, batches, []):
        bicubic = F.interpolate(
            (lr * std + mean) * 2 - 1,
            size=hr.shape[-2:],
            mode="bicubic",
            antialias=True,  # PyTorch's only cubic with MATLAB's a = -0.5
        )
        with accelerator.autocast():
            weights = calibrate_content(features, bicubic, hr)
        losses.append(accelerator.reduce(1 / weights, "mean"))
    # It is the mean of the losses that shall be 1, not of the weights.
    return 1 / torch.stack(losses).mean(dim=0)


def epochs_before(config, name):
    """Epochs of the same network that a run goes on from: it takes new crops,
    where they ended."""
    run = config.runs[name]
    earlier = config.runs.get(run.get("start") or "", {})
    if earlier.get("network") != run.network:
        return 0
    return epochs_before(config, run.start) + earlier.epochs


def steps_an_epoch(config, network, images):
    """Steps in which each image gives its crops, or as few as are wanted."""
    full = images * config.crops_per_image // config[network].batch_size
    return min(config.steps_per_epoch or full, full)


class Run:
    """One run in its folder: what learns, how far it is, what is kept.

    The folder gets config.json, history.jsonl, validation.jsonl,
    checkpoint.pt and, at the end, weights.safetensors.
    """

    def __init__(self, config, name, folder, pairs, start=None, key=""):
        self.config, self.name, self.key = config, name, key
        self.folder = Path(folder)
        self.checkpoint = self.folder / "checkpoint.pt"
        self.network, self.epochs = (
            config.runs[name].network,
            config.runs[name].epochs,
        )
        self.stage = config[self.network]
        keep_memory()
        self.accelerator = make_accelerator()
        self.dataset = SRDataset(
            pairs,
            config,
            self.stage.crop_size,
            image_home(self.accelerator, pairs),
        )
        self.steps = steps_an_epoch(config, self.network, len(pairs))
        if self.steps == 0:
            raise UserError(
                f"{len(self.dataset)} crops do not fill one batch of "
                f"{self.stage.batch_size}; add training images."
            )
        count = self.accelerator.num_processes
        if self.stage.batch_size % count:
            raise UserError(
                f"{self.network}: batch_size {self.stage.batch_size} cannot "
                f"be shared evenly by {count} processes; change one of "
                "the two."
            )
        self.state = build_state(self.accelerator, config, self.network, start)
        if worth_compiling(self.accelerator, self.epochs * self.steps):
            compile_networks(self.accelerator, self.state)
        self.epoch = self.step_in_epoch = 0
        self.seconds, self.clock = 0.0, time.perf_counter()
        self.pending = []  # figures since the last line of the history
        self.validation = []  # the lines of validation.jsonl
        self.features = self.content_weights = None
        if self.network == "srgan":
            self.features = load_features(self.stage).to(
                self.accelerator.device, memory_format=torch.channels_last
            )
        if self.checkpoint.exists():
            self.restore()
        elif self.features is not None:
            self.content_weights = calibrated_weights(
                self.accelerator, self.features, self.dataset, self.stage
            )
        if self.accelerator.is_main_process:
            self.describe("training")
            keep_until(self.folder / "history.jsonl", self.state.step)
            # An epoch that was trained but not closed is validated again.
            validation = self.folder / "validation.jsonl"
            keep_until(validation, self.epoch * self.steps)
            self.validation = read_lines(validation)
            for left in self.folder.glob(f".{'[0-9a-f]' * 32}.*"):
                left.unlink()  # what was being written when all broke off

    def describe(self, state):
        """Write config.json: all that the run's figures depend on."""
        networks = parts(self.accelerator, self.state)
        weights = self.content_weights
        description = {
            "state": state,
            "key": self.key,
            "profile": self.config.name,
            "run": self.name,
            "settings": self.config,
            "train_images": len(self.dataset.pairs),
            "steps": self.epochs * self.steps,
            "seconds": self.seconds,
            "parameters": {
                part: sum(p.numel() for p in networks[part].parameters())
                for part in ("generator", "discriminator")
                if part in networks
            },
            "features": getattr(self.features, "name", None),
            "content_weights": weights
            if weights is None
            else weights.tolist(),
            "environment": environment(self.accelerator),
        }
        write_json(self.folder / "config.json", description)

    def last_good(self):
        """What there is to go on from after an error, in words."""
        if self.checkpoint.exists():
            return f"The last good state is {self.checkpoint}; start again."
        return "Nothing was saved yet."

    def elapsed(self):
        """Seconds of work so far, over all sittings."""
        return self.seconds + time.perf_counter() - self.clock

    def save(self):
        """Write the checkpoint: all that the rest of the run depends on."""
        self.seconds = self.elapsed()
        self.clock = time.perf_counter()
        if not self.accelerator.is_main_process:
            return
        networks = parts(self.accelerator, self.state)
        weights = self.content_weights
        state = {
            "parts": {k: part.state_dict() for k, part in networks.items()},
            "step": self.state.step,
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "seconds": self.seconds,
            "pending": self.pending,
            "content_weights": weights if weights is None else weights.cpu(),
            "random_states": random_states(),
        }
        save_checkpoint(self.checkpoint, state)

    def restore(self):
        """Go back to where the checkpoint was written."""
        saved = load_checkpoint(self.checkpoint)
        networks = parts(self.accelerator, self.state)
        try:
            if saved["parts"].keys() != networks.keys():
                raise ValueError("other parts")
            for name, part in networks.items():
                part.load_state_dict(saved["parts"][name])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, torch.cuda.OutOfMemoryError):
                raise  # it may fit
            raise UserError(
                f"{self.checkpoint} was written by a run of another kind or "
                "architecture; delete it to train this run from its start."
            ) from error
        self.state.step = saved["step"]
        self.epoch, self.step_in_epoch = saved["epoch"], saved["step_in_epoch"]
        self.seconds, self.pending = saved["seconds"], saved["pending"]
        if self.features is not None:
            self.content_weights = saved["content_weights"].to(
                self.accelerator.device
            )
        restore_random_states(saved["random_states"])

    def epoch_figures(self):
        """Train what is left of this epoch; yields each step's figures."""
        batches = EpochBatches(
            self.dataset,
            self.stage.batch_size,
            epochs_before(self.config, self.name) + self.epoch,
            self.steps,
            self.step_in_epoch,
        )
        waits = []
        batches = load_batches(self.accelerator, self.dataset, batches, waits)
        arguments = (
            self.accelerator,
            self.state,
            batches,
            self.stage,
            self.epochs * self.steps,
        )
        if self.network == "srresnet":
            steps = srresnet_epoch(*arguments)
        else:
            steps = srgan_epoch(
                *arguments, self.features, self.content_weights
            )
        begin = time.perf_counter()
        for figures in steps:
            figures = mean_figures(self.accelerator, figures)
            self.refuse_nonsense(figures)
            end = time.perf_counter()
            figures["images_per_second"] = self.stage.batch_size / (
                end - begin
            )
            figures["data_seconds"] = waits[-1]
            begin = end
            self.step_in_epoch += 1
            self.note(figures)
            yield figures

    def refuse_nonsense(self, figures):
        """Stop at the first figure that is no number, before it is saved."""
        for key, value in figures.items():
            if not math.isfinite(value):
                raise UserError(
                    f"{self.name}: {key} became {value} at step "
                    f"{self.state.step}; lower the learning rate."
                )

    def note(self, figures):
        """Keep a step's figures; every few steps their mean is written."""
        self.pending.append(figures)
        if self.state.step % self.config.history_every == 0:
            mean = {
                key: sum(f[key] for f in self.pending) / len(self.pending)
                for key in figures
            }
            self.pending = []
            self.append(
                "history.jsonl",
                {"step": self.state.step, "epoch": self.epoch + 1} | mean,
            )

    def append(self, file, record):
        if not self.accelerator.is_main_process:
            return
        try:
            with open(self.folder / file, "a") as lines:
                lines.write(json.dumps(record) + "\n")
        except OSError as error:
            raise UserError(
                f"{self.folder / file} cannot be written ({error.strerror}); "
                "free some space."
            ) from error

    def close_epoch(self, val_pairs, snapshots):
        """Validate, keep the weights where a snapshot is asked, save."""
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        if self.accelerator.is_main_process:
            record = {"step": self.state.step, "epoch": self.epoch}
            record["seconds"] = self.elapsed()
            generator = self.final_generator()
            if val_pairs:
                record["psnr"] = validate(generator, val_pairs)
            self.append("validation.jsonl", record)
            self.validation.append(record)
            if self.epoch in snapshots:
                file = f"weights-{self.epoch}.safetensors"
                self.save_generator(file, generator)
        self.save()

    def final_generator(self):
        """The generator to evaluate: the average, if there is one.

        A plain copy, for training wraps its network into lower precision
        and may compile it for one size of image.
        """
        trained = self.accelerator.unwrap_model(self.state.generator)
        plain = Generator(self.config)
        plain.load_state_dict((self.state.ema or trained).state_dict())
        plain = plain.to(
            self.accelerator.device, memory_format=torch.channels_last
        )
        return measure_batch_norm(plain, self.dataset)

    def save_generator(self, file, generator):
        save_weights(
            self.folder / file,
            generator,
            architecture=json.dumps(
                {
                    "scaling_factor": self.config.scaling_factor,
                    "G": self.config.G,
                }
            ),
        )

    def finish(self):
        """Write the weights, and say that the run is whole."""
        if self.accelerator.is_main_process:
            self.save_generator("weights.safetensors", self.final_generator())
            self.describe("finished")
        self.accelerator.wait_for_everyone()


def train(
    config, name, folder, pairs, val_pairs=(), start=None, snapshots=(), key=""
):
    """Train a run of a profile; go on from its checkpoint where it has one.

    pairs, val_pairs: (hr path, lr path). start: weights of the SRResNet to
    begin from. snapshots: epochs after which weights-N.safetensors is kept.
    Raises Interrupted after SIGINT or SIGTERM, when all is saved; UserError
    when a figure is no longer a number, the disk is full, a process lost.
    """
    run = Run(config, name, folder, pairs, start, key)
    try:
        with noticed_signals() as signals, lost_process_named(name):
            train_epochs(run, val_pairs, snapshots, signals)
    except UserError as error:
        raise UserError(f"{error} {run.last_good()}") from error


def train_epochs(run, val_pairs, snapshots, signals):
    """Train the epochs that are left, heeding the clock and signals."""
    bar = tqdm(
        total=run.epochs * run.steps,
        initial=run.state.step,
        desc=run.name,
        unit="step",
        disable=not run.accelerator.is_main_process,
    )
    saved_at = time.monotonic()
    with bar:
        while run.epoch < run.epochs:
            for figures in run.epoch_figures():
                bar.update()
                shown = headline(figures, run.validation)
                bar.set_postfix(shown, refresh=False)
                signum = agreed_signal(run.accelerator, signals)
                minutes = (time.monotonic() - saved_at) / 60
                if signum or minutes > run.config.checkpoint_minutes:
                    run.save()
                    saved_at = time.monotonic()
                if signum:
                    raise Interrupted(signum, run.checkpoint)
            run.close_epoch(val_pairs, snapshots)
            saved_at = time.monotonic()
    run.finish()
    # During the last validation: the next run must not start.
    if signum := agreed_signal(run.accelerator, signals):
        raise Interrupted(signum, run.folder)


def headline(figures, validation):
    """The few figures that fit behind a progress bar."""
    keys = ("pixel_loss", "content_weighted", "D(real)", "D(fake)")
    shown = {key: f"{figures[key]:.3f}" for key in keys if key in figures}
    if validation and "psnr" in validation[-1]:
        shown["dB"] = f"{validation[-1]['psnr']:.2f}"
    return shown | {"img/s": f"{figures['images_per_second']:.0f}"}
