"""Faults of training: each one small change, trained as a run of its own.

Each is the beginning of one of the profile's runs once more. What that run
itself was after as many epochs has no fault: what a fault costs is the
difference to it. Chapter 11.
"""

import contextlib
import copy
import functools
from dataclasses import dataclass, field
from unittest import mock

import torch
from torch import nn

from srgan_lib import (
    data_lists,
    datasets,
    experiments,
    faults,
    losses,
    models,
    solver,
    training,
)

# --- the wrong functions -----------------------------------------------------


def random_features(stage):
    """The content network of the profile, with nothing loaded into it."""
    features = losses.load_features(stage)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for module in features.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return features


def detached_terms(features, sr, hr):
    """The content loss of a picture that no gradient goes back from."""
    return losses.content_terms(features, sr.detach(), hr)


@torch.no_grad()
def backward_ema(ema, generator, step, decay):
    """decay and 1 - decay exchanged: the average forgets in one step."""
    decay = min(decay, (1 + step) / (10 + step))
    current = generator.state_dict()
    for key, average in ema.state_dict().items():
        if average.is_floating_point():
            average.lerp_(current[key], decay)
        else:
            average.copy_(current[key])


def never_train(self, mode=True):
    """train() that stays in evaluation mode."""
    return nn.Module.train(self, False)


def misaligned_batches(accelerator, dataset, epoch_batches, waits):
    """hr begins two pixels beside where lr begins."""
    for lr, hr in RIGHT_BATCHES(accelerator, dataset, epoch_batches, waits):
        half = dataset.scale // 2
        yield lr[..., 1:, 1:], hr[..., half:-half, half:-half]


def first_image_only(self, n):
    """Every crop from one image: nothing but learning it by heart."""
    return RIGHT_CROP(self, n * len(self.pairs))


RIGHT_BATCHES = training.load_batches
RIGHT_CROP = datasets.SRDataset.crop

# --- the runs ----------------------------------------------------------------


@dataclass(frozen=True)
class TrainingFault:
    """One run: what it changes in the settings of a stage, or in the code.

    settings: {key: function of the right value}; wrong: {(module or class,
    name): the function that takes its place}.
    """

    name: str  # of the run's folder
    what: str
    network: str
    settings: dict = field(default_factory=dict)
    wrong: dict = field(default_factory=dict)
    long: bool = True  # only by `make faults`


FAULT_RUNS = (
    TrainingFault("right-SRGAN", "no fault", "srgan", long=False),
    TrainingFault(
        "random-features",
        "random features as content loss",
        "srgan",
        wrong={(training, "load_features"): random_features},
        long=False,
    ),
    TrainingFault(
        "adversarial-x100",
        "adversarial weight times 100",
        "srgan",
        settings={"beta": lambda beta: 100 * beta},
        long=False,
    ),
    TrainingFault(
        "content-detached",
        "content loss detached",
        "srgan",
        wrong={(solver, "content_terms"): detached_terms},
    ),
    TrainingFault(
        "discriminator-x10",
        "discriminator learning rate times 10",
        "srgan",
        settings={"d_pace": lambda pace: 10 * pace},
    ),
    TrainingFault("right-SRResNet", "no fault", "srresnet"),
    TrainingFault(
        "ema-backwards",
        "EMA the wrong way round",
        "srresnet",
        wrong={(solver, "update_ema"): backward_ema},
    ),
    TrainingFault(
        "eval-mode",
        "generator in eval mode while training",
        "srresnet",
        wrong={(models.Generator, "train"): never_train},
    ),
    TrainingFault(
        "misaligned",
        "HR crops two pixels off",
        "srresnet",
        wrong={(training, "load_batches"): misaligned_batches},
    ),
    TrainingFault(
        "batch-of-one",
        "batch norm with batches of one",
        "srresnet",
        settings={"batch_size": lambda size: 1},
    ),
    TrainingFault(
        "one-image",
        "a single training image",
        "srresnet",
        wrong={(datasets.SRDataset, "crop"): first_image_only},
    ),
)


def control(fault):
    """The run without fault that a faulty one is compared with."""
    return "right-SRGAN" if fault.network == "srgan" else "right-SRResNet"


@contextlib.contextmanager
def spoiled(fault):
    """While this lasts, the wrong functions stand where the right ones did."""
    with contextlib.ExitStack() as stack:
        for (place, name), wrong in fault.wrong.items():
            stack.enter_context(mock.patch.object(place, name, wrong))
        yield


def with_fault(config, fault):
    """The profile, with the run of a fault added and its settings changed."""
    config = copy.deepcopy(config)
    stage, base = config[fault.network], config.faults[fault.network]
    for key, change in fault.settings.items():
        stage[key] = change(stage[key])
    run = {
        "network": fault.network,
        "epochs": config.faults[f"{fault.network}_epochs"],
        "start": config.runs[base].start,
        "snapshot_of": base if fault.name == control(fault) else None,
    }
    config.runs = config.runs | {fault.name: run}
    return config


def folder_of(config, fault):
    return experiments.runs_folder(config) / "faults" / fault.name


def make_task(config, fault, pairs):
    """What is to be done for a fault's run."""
    changed = with_fault(config, fault)
    key = experiments.run_keys(changed, pairs)[fault.name]
    if fault.wrong:
        code = experiments.code_digest(tuple(fault.wrong.values()))
        key = experiments.digest(key, code)
    folder = folder_of(config, fault)
    return experiments.make_task(changed, fault.name, key, folder, pairs)


def chosen_faults(config, long):
    """The short ones, or all; none where the profile has no faults."""
    if config.faults is None:
        return []
    return [fault for fault in FAULT_RUNS if long or not fault.long]


def run_faults(config, long=False):
    """Train and measure the fault runs that do not stand; {name: Result}.

    The runs of the profile must stand. long: those of `make faults`, too.
    """
    pairs = experiments.training_pairs(config)
    val_pairs = experiments.present_pairs(
        config.val_sets, config.scaling_factor
    )
    judge = functools.cache(losses.EfficientNetFeatures)
    sets = present_sets()
    chosen = chosen_faults(config, long)
    tasks = [make_task(config, fault, pairs) for fault in chosen]
    processes = training.processes()
    processes.wait_for_everyone()  # all plan before anything is moved
    for fault, task in zip(chosen, tasks, strict=True):
        with spoiled(fault), training.lost_process_named(fault.name):
            experiments.perform(
                task, with_fault(config, fault), pairs, val_pairs
            )
        if processes.is_main_process:
            experiments.measure_run(
                task.folder,
                task.key,
                functools.partial(experiments.enlarger, task.folder),
                sets,
                config.scaling_factor,
                judge,
            )
    return results(config)


def present_sets():
    return [name for name in faults.TEST_SETS if data_lists.is_present(name)]


def results(config):
    """{name: Result} of the fault runs that stand and are up to date."""
    pairs = experiments.training_pairs(config)
    return {
        fault.name: experiments.read_result(
            folder_of(config, fault), present_sets()
        )
        for fault in chosen_faults(config, long=True)
        if make_task(config, fault, pairs).state == "finished"
    }
