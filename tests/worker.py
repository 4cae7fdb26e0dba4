"""What each of several processes does for test_distributed.py.

torchrun starts it, with a folder that holds pictures; what each process
saw goes into its own file there.
"""

import os
import signal
import sys
from pathlib import Path
from unittest import mock

import torch
from tiny import Features, tiny_config
from torch import nn

from srgan_lib import solver, training
from srgan_lib.datasets import EpochBatches, SRDataset
from srgan_lib.errors import UserError


def settings():
    config = tiny_config(
        srresnet={"network": "srresnet"}, srgan={"network": "srgan"}
    )
    config.srresnet.batch_size = config.srgan.batch_size = 4
    return config


def fixed_batch_norm(module, mode=True):
    """In the place of BatchNorm2d.train: it stays as in evaluation."""
    return nn.Module.train(module, False)


@mock.patch.object(nn.BatchNorm2d, "train", fixed_batch_norm)
def one_step(network, pairs):
    """Crops, figures and gradients of one step over a batch of four."""
    accelerator, config = training.make_accelerator(), settings()
    stage = config[network]
    stage.clip_norm = None
    dataset = SRDataset(pairs, config, stage.crop_size)
    state = training.build_state(accelerator, config, network)
    batches = list(
        training.load_batches(
            accelerator, dataset, EpochBatches(dataset, 4, 0, 1), []
        )
    )
    arguments = (accelerator, state, batches, stage, 10)
    if network == "srresnet":
        (figures,) = solver.srresnet_epoch(*arguments)
    else:
        (figures,) = solver.srgan_epoch(*arguments, Features(), torch.ones(1))
    return {
        "crops": batches[0][1],
        "figures": training.mean_figures(accelerator, figures),
        "gradients": {
            f"{part}.{key}": parameter.grad
            for part in ("generator", "discriminator")
            if (wrapped := getattr(state, part)) is not None
            for key, parameter in accelerator.unwrap_model(
                wrapped
            ).named_parameters()
        },
    }


def interrupted_at(step, signum):
    """Send this process a signal in that step, once."""
    note = training.Run.note

    def hooked(run, figures):
        if run.state.step == step:
            training.Run.note = note
            os.kill(os.getpid(), signum)
        note(run, figures)

    training.Run.note = hooked


def work(folder, rank):
    """All that is tested, one after the other."""
    seen = {}
    pairs = [(hr, folder / "lr" / hr.name) for hr in (folder / "hr").iterdir()]
    pairs.sort()
    training.native_precision = lambda: "no"
    training.load_features = lambda stage: Features()
    for name in ("srresnet", "srgan"):
        seen[name] = one_step(name, pairs)
        # Each process has a folder of its own: that of the second stays
        # empty, since the main process alone writes.
        own = folder / f"own{rank}" / name
        run = training.Run(settings(), name, own, pairs)
        with training.noticed_signals() as signals:
            training.train_epochs(run, pairs[:1], [1], signals)
        seen[f"{name} weights"] = run.accelerator.unwrap_model(
            run.state.generator
        ).state_dict()
        training.train(settings(), name, folder / "whole" / name, pairs)

    # SIGTERM on the second process alone, then SIGINT on the first alone.
    for name in ("srresnet", "srgan"):
        interrupted_at(*((4, 2), (2, 15))[rank])
        place = folder / "broken" / name
        seen[f"{name} stops"] = stops = []
        for _ in range(3):
            try:
                training.train(settings(), name, place, pairs)
            except training.Interrupted as stop:
                stops.append((stop.signum, str(stop)))

    config = settings()
    config.srresnet.batch_size = 5
    try:
        training.train(config, "srresnet", folder / "odd", pairs)
    except UserError as error:
        seen["odd batch"] = str(error)
    return seen


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    torch.save(work(folder, rank), folder / f"seen{rank}.pt")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
