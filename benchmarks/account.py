"""Where the time of a training step goes, part by part.

PyTorch's profiler times every operation. Marks around the modules tell the
part each belongs to; an operation of the backward pass bears the number of
the forward operation that it undoes, and so belongs to the same part.
"""

import contextlib
from collections import defaultdict
from unittest import mock

import torch
from torch import nn, profiler
from torch.autograd import DeviceType

from benchmarks.steps import configuration, fresh_run, images_of
from srgan_lib import models, solver

MARK, STEP = "part: ", "step"
BACKWARD = "autograd::engine::evaluate_function: "
KINDS = {
    nn.Conv2d: "convolution",
    nn.BatchNorm2d: "batch norm",
    nn.PReLU: "PReLU",
    nn.LeakyReLU: "LeakyReLU",
    nn.PixelShuffle: "shuffle",
    nn.Linear: "linear",
    nn.Tanh: "tanh",
    nn.AdaptiveAvgPool2d: "pooling",
    models.ResidualBlock: "sum",
}


def mark_modules(network, name):
    """Mark what runs inside each module; name() says which network it is."""
    open_marks = []

    def enter(part, kind):
        dot = "." if part else ""
        label = f"{MARK}{name()}{dot}{part}/{kind}"
        open_marks.append(profiler.record_function(label))
        open_marks[-1].__enter__()

    def leave(module, inputs, output):
        open_marks.pop().__exit__(None, None, None)

    for path, module in network.named_modules():
        part = path.partition(".")[0]  # head, residual_blocks, merge, ...
        kinds = [KINDS[kind] for kind in KINDS if isinstance(module, kind)]
        if kinds or path == "":
            kind = kinds[0] if kinds else "other"
            module.register_forward_pre_hook(
                lambda m, x, part=part, kind=kind: enter(part, kind)
            )
            module.register_forward_hook(leave)


@contextlib.contextmanager
def marked(owner, attribute, part):
    """Mark what a function does, wherever it is called."""
    function = getattr(owner, attribute)

    def marking(*arguments, **options):
        with profiler.record_function(MARK + part):
            return function(*arguments, **options)

    with mock.patch.object(owner, attribute, marking):
        yield


def part_of(event, forward):
    """(part, direction) of an operation: that of the nearest mark."""
    while event is not None:
        if event.name.startswith(MARK):
            return event.name.removeprefix(MARK), "forward"
        if event.name.startswith(BACKWARD):
            return forward.get(event.sequence_nr, "other/other"), "backward"
        if event.name.startswith("Optimizer."):
            return "Adam/Adam", "forward"
        if event.name == STEP:
            break
        event = event.cpu_parent
    return "other/other", "forward"


def sums(events):
    """Seconds by (part, direction), of the thread that trains.

    Each moment counts once: the time of an operation is what it spends
    itself, without the operations inside it.
    """
    thread = next(e.thread for e in events if e.name == STEP)
    events = [e for e in events if e.thread == thread]
    events = [e for e in events if e.device_type == DeviceType.CPU]
    events.sort(key=lambda e: e.time_range.start)
    forward = {}  # sequence number -> part; the last to bear it made the node
    for event in events:
        if event.sequence_nr >= 0 and not event.name.startswith(BACKWARD):
            part, direction = part_of(event, {})
            if direction == "forward":
                forward[event.sequence_nr] = part
    seconds = defaultdict(float)
    for event in events:
        seconds[part_of(event, forward)] += event.self_cpu_time_total / 1e6
    return seconds


def account(network, profile="reference", warm=4, steps=3):
    """One training step of the library: seconds by part and direction."""
    config = configuration(profile)
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        run = enter(fresh_run(config, network, images_of(config)))
        mark_modules(run.state.generator, lambda: "generator")
        enter(
            marked(models, "convolve_shuffled", "generator.tail/convolution")
        )
        enter(marked(solver, "pixel_loss", "losses/losses"))
        enter(marked(solver, "update_ema", "average/average"))
        enter(marked(run.accelerator, "clip_grad_norm_", "clipping/clipping"))
        if network == "srgan":
            critic = run.state.discriminator
            first = next(critic.parameters())
            mark_modules(
                critic,
                lambda: (
                    "discriminator learning"
                    if first.requires_grad
                    else "discriminator asked"
                ),
            )
            mark_modules(
                run.features,
                lambda: (
                    "features of sr"
                    if torch.is_grad_enabled()
                    else "features of hr"
                ),
            )
            for loss in (
                *("grid_loss", "mesh_loss", "tint_loss", "chroma_loss"),
                *("adversarial_loss", "discriminator_loss"),
            ):
                enter(marked(solver, loss, "losses/losses"))
        figures = run.epoch_figures()
        for _ in range(warm):
            next(figures)
        with profiler.profile() as measured:
            for _ in range(steps):
                with profiler.record_function(STEP):
                    next(figures)
        figures.close()
    table = defaultdict(lambda: {"forward": 0.0, "backward": 0.0})
    for (part, direction), seconds in sums(measured.events()).items():
        table[part][direction] += seconds / steps
    return [
        dict(zip(("part", "kind"), part.split("/"), strict=True)) | row
        for part, row in sorted(
            table.items(), key=lambda item: -sum(item[1].values())
        )
    ]
