"""The runs of a profile: which stand, which must be trained, where all is.

A run is keyed by its configuration, its training images and the code that
trains; a measurement by its run, its test set and the code that measures.
What does not fit its key is never shown: it is made again.
"""

import ast
import functools
import hashlib
import inspect
import json
import os
import shutil
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from easydict import EasyDict
from filelock import FileLock, Timeout

from srgan_lib import (
    data_lists,
    datasets,
    evaluation,
    images,
    imresize,
    inference,
    losses,
    metrics,
    models,
    solver,
    training,
)
from srgan_lib.config import load_profile, workspace
from srgan_lib.errors import UserError
from srgan_lib.files import read_json, write_json

TRAINING_CODE = (images, datasets, models, losses, solver, training)
MEASURING_CODE = (images, imresize, models, losses, metrics, inference)
MEASURING_CODE += (evaluation,)
COMMON_SETTINGS = (
    *("seed", "scaling_factor", "crops_per_image", "steps_per_epoch"),
    "augment",
)
# Sets whose pictures are kept: small enough, and shown in the book.
PICTURE_SETS = ("Bundled5", "Set5", "Set14", "PhotosVal")
BICUBIC = "bicubic"
# The runs of the case. The pages of the book compare them.
CASE_RUNS = ("SRResNet-10", "SRResNet-20", "SRGAN-10")
CASE_RUNS += ("SRResNet-10+SRGAN-20", "SRResNet-20+SRGAN-20")
# What was measured once, by hand, and comes with the library.
RECORDS = Path(__file__).parent / "records"


def current_profile():
    """The profile that SRGAN_PROFILE names, else `quick`."""
    return load_profile(os.environ.get("SRGAN_PROFILE") or "quick")


def digest(*things):
    """A short fingerprint of anything that JSON can hold."""
    text = json.dumps(things, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def code_digest(modules):
    """A fingerprint of what the code does: no comments, no docstrings."""
    trees = []
    for module in modules:
        tree = ast.parse(inspect.getsource(module))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body:
                first = getattr(body[0], "value", None)
                if isinstance(first, ast.Constant) and isinstance(
                    first.value, str
                ):
                    body.pop(0)
        trees.append(ast.dump(tree))
    return digest(*trees)


@functools.cache
def file_digest(path, size, mtime):
    """SHA-256 of a file; read once for each size and time of change."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pairs_digest(pairs):
    """A fingerprint of the images' bytes, in order; not of their paths."""
    sums = []
    for path in (path for pair in pairs for path in pair):
        stat = path.stat()
        sums.append(file_digest(path, stat.st_size, stat.st_mtime_ns))
    return digest(sums)


def present_pairs(names, scale):
    """(hr path, lr path) of those of the sets that are there."""
    return [
        pair
        for name in names
        if data_lists.is_present(name)
        for pair in data_lists.data_list(name, scale)
    ]


def training_pairs(config):
    pairs = present_pairs(config.train_sets, config.scaling_factor)
    if not pairs:
        ways = [
            f"for {name}, {data_lists.how_to_get(name)}"
            for name in config.train_sets
        ]
        raise UserError(
            f"Profile {config.name} has no training images; {'; '.join(ways)}."
        )
    return pairs


def runs_folder(config):
    return workspace() / "runs" / config.name


def read_record(name):
    """One of the library's records, as write_up; empty if it has none."""
    return read_json(RECORDS / f"{name}.json")


def own_settings(settings, name):
    """Of a profile's settings, those that the weights of a run depend on."""
    run = settings["runs"][name]
    networks = ["G", "D"] if run["network"] == "srgan" else ["G"]
    keys = (*COMMON_SETTINGS, *networks, run["network"])
    return {key: settings.get(key) for key in keys} | {"runs": run}


def run_keys(config, pairs):
    """The key of each run: equal keys, equal weights on one machine."""
    keys, data = {}, pairs_digest(pairs)
    code = code_digest(TRAINING_CODE)
    for name, run in config.runs.items():
        source = keys.get(run.snapshot_of or run.start)
        keys[name] = digest(own_settings(config, name), source, data, code)
    return keys


@dataclass
class Task:
    """One run of a plan: what is to be done for it, and why."""

    name: str
    key: str
    folder: Path
    state: str  # "finished", "resume", "train" or "snapshot"
    why: str
    total: int  # steps of the run
    steps: int = 0  # still to train


def is_finished(folder, key):
    """Whether the run with this key stands in the folder, whole."""
    found = read_json(folder / "config.json")
    fits = found.get("key") == key and found.get("state") == "finished"
    return fits and (folder / "weights.safetensors").exists()


def make_task(config, name, key, folder, pairs, source=None):
    """What is to be done for one run of a profile, and why.

    source: the task of the run that it begins from, if it is planned too.
    """
    found = read_json(folder / "config.json")
    run = config.runs[name]
    steps = training.steps_an_epoch(config, run.network, len(pairs))
    total = run.epochs * steps
    same = found.get("key") == key
    if is_finished(folder, key):
        state, why, steps = "finished", "it is up to date", 0
    elif run.snapshot_of:
        why = f"it is {run.snapshot_of} after epoch {run.epochs}"
        state, steps = "snapshot", 0
    elif same and (folder / "checkpoint.pt").exists():
        history = training.read_lines(folder / "history.jsonl")
        done = history[-1]["step"] if history else 0
        state, steps = "resume", total - done
        why = f"{done} of its {total} steps are done"
    else:
        state, steps = "train", total
        why = "it was begun, but nothing was saved yet"
        if not same:
            why = what_changed(config, name, found, source)
    return Task(name, key, folder, state, why, total, steps)


def make_plan(config, pairs):
    """The tasks of a profile, in the order of its runs."""
    tasks = {}
    for name, key in run_keys(config, pairs).items():
        folder, source = runs_folder(config) / name, config.runs[name].start
        tasks[name] = make_task(
            config, name, key, folder, pairs, tasks.get(source)
        )
    return list(tasks.values())


def what_changed(config, name, found, source):
    """Why a run does not fit what is found of it, in words.

    found: its config.json; source: the task that it begins from, or None.
    """
    if not found or name not in found["settings"]["runs"]:
        return "it has not been trained"
    old, new = (own_settings(s, name) for s in (found["settings"], config))
    changed = [k for k in new if digest(new[k]) != digest(old.get(k))]
    if changed:
        return f"its settings changed ({', '.join(changed)})"
    if source and source.state != "finished":
        return f"{source.name}, which it begins from, changed"
    return "its training images, or the code that trains, changed"


def set_aside(task):
    """Move a run that no longer fits to NAME.stale; bring back one there
    that fits again, after a change that was taken back."""
    stale = task.folder.with_name(task.folder.name + ".stale")
    if read_json(stale / "config.json").get("key") == task.key:
        kept = stale.rename(stale.with_suffix(".kept"))
        if task.folder.exists():
            task.folder.rename(stale)
        kept.rename(task.folder)
    elif any(
        (task.folder / file).exists()
        for file in ("checkpoint.pt", "weights.safetensors")
    ):
        shutil.rmtree(stale, ignore_errors=True)
        task.folder.rename(stale)
    else:  # begun, and nothing saved: no reason to lose the one before
        shutil.rmtree(task.folder, ignore_errors=True)


@contextmanager
def alone_in(folder):
    """Have a run's folder to oneself: two trainings would spoil it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"{folder} is being trained by another process; wait for it, or "
            "stop it."
        ) from error
    try:
        yield
    finally:
        lock.release()


def perform(task, config, pairs, val_pairs):
    """Do what one task of the plan asks for.

    With several processes, the main one alone moves and copies files.
    """
    if task.state == "finished":
        return
    main = training.processes().is_main_process
    with alone_in(task.folder) if main else nullcontext():
        train_task(task, config, pairs, val_pairs)


def train_task(task, config, pairs, val_pairs):
    processes, run = training.processes(), config.runs[task.name]
    if processes.is_main_process and task.state in ("train", "snapshot"):
        set_aside(task)
        if task.state == "snapshot":
            take_snapshot(task, config)
    processes.wait_for_everyone()
    if is_finished(task.folder, task.key):
        return  # as a snapshot is, and what fits again after a change
    start = None
    if run.start:
        start = runs_folder(config) / run.start / "weights.safetensors"
    training.train(
        config,
        task.name,
        task.folder,
        pairs,
        val_pairs,
        start=start,
        snapshots=kept_epochs(config, task.name),
        key=task.key,
    )


def kept_epochs(config, name):
    """The epochs after which a run keeps its weights: for its snapshots, and
    for the fault runs of chapter 11 to be compared with."""
    epochs = [
        run.epochs for run in config.runs.values() if run.snapshot_of == name
    ]
    for network in ("srresnet", "srgan"):
        if config.faults and config.faults[network] == name:
            epochs.append(config.faults[f"{network}_epochs"])
    return epochs


def take_snapshot(task, config):
    """A run that is another one after fewer epochs."""
    run = config.runs[task.name]
    source = runs_folder(config) / run.snapshot_of
    kept = source / f"weights-{run.epochs}.safetensors"
    validation = training.read_lines(source / "validation.jsonl")
    if not kept.exists() or len(validation) < run.epochs:
        raise UserError(
            f"{run.snapshot_of} kept no weights after epoch {run.epochs}; "
            f"delete {source} to train it again."
        )
    last = validation[run.epochs - 1]
    task.folder.mkdir(parents=True, exist_ok=True)
    for file in ("history.jsonl", "validation.jsonl"):
        shutil.copy(source / file, task.folder)
        training.keep_until(task.folder / file, last["step"])
    shutil.copy(kept, task.folder / "weights.safetensors")
    write_json(
        task.folder / "config.json",
        read_json(source / "config.json")
        | {
            "key": task.key,
            "run": task.name,
            "steps": last["step"],
            "seconds": last["seconds"],
        },
    )


def present_sets(config):
    """The test sets of a profile that are there."""
    return [s for s in config.test_sets if data_lists.is_present(s)]


def measuring_key(run_key, pairs):
    return digest(run_key, pairs_digest(pairs), code_digest(MEASURING_CODE))


def is_measured(place, test_set, pairs, key):
    """Whether the figures with this key stand in a run's folder, whole."""
    stored = read_json(place / "metrics.json").get(test_set, {})
    folder = place / "sr" / test_set
    return stored.get("key") == key and all(
        (folder / f"{hr.stem}.png").exists()
        for hr, _ in pairs
        if test_set in PICTURE_SETS
    )


def unmeasured_sets(config, task):
    """The test sets on which a finished run has still to be measured."""
    names = []
    for name in present_sets(config):
        pairs = data_lists.data_list(name, config.scaling_factor)
        key = measuring_key(task.key, pairs)
        if not is_measured(task.folder, name, pairs, key):
            names.append(name)
    return names


def measure_runs(config, tasks):
    """Measure bicubic, every run and the shipped weights on every test set
    that is there."""
    judge = functools.cache(losses.EfficientNetFeatures)  # if it is needed
    sets = present_sets(config)
    scale = config.scaling_factor
    bicubic = functools.partial(imresize.imresize, scale=scale)
    methods = {runs_folder(config) / BICUBIC: ("", lambda: bicubic)}
    for task in tasks:
        loaded = functools.partial(enlarger, task.folder)
        methods[task.folder] = (task.key, loaded)
    for name, folder in shipped_folders(config).items():
        loaded = functools.partial(enlarger, name)
        methods[folder] = (inference.provenance(name)["sha256"], loaded)
    for folder, (key, load) in methods.items():
        measure_run(folder, key, load, sets, scale, judge)


def enlarger(name_or_path):
    """A trained generator as a function from lr to sr."""
    generator = inference.load_generator(name_or_path)
    return functools.partial(inference.upscale, generator)


def shipped_folders(config):
    """{name: where its measurements are} of the weights that come with the
    library and enlarge by the profile's factor."""
    return {
        name: runs_folder(config) / "shipped" / name
        for name in inference.shipped_names()
        if inference.provenance(name)["architecture"]["scaling_factor"]
        == config.scaling_factor
    }


def measure_run(folder, run_key, load, sets, scale, judge):
    """Measure a method on the sets where its figures do not stand.

    load: returns its function from lr to sr.
    """
    stored = read_json(folder / "metrics.json")
    for test_set in sets:
        pairs = data_lists.data_list(test_set, scale)
        key = measuring_key(run_key, pairs)
        if is_measured(folder, test_set, pairs, key):
            continue
        print(f"measuring {folder.name} on {test_set}", flush=True)
        pictures = None
        if test_set in PICTURE_SETS:
            pictures = folder / "sr" / test_set
        figures = evaluation.evaluate(load(), pairs, judge(), pictures)
        stored[test_set] = {"key": key} | figures
        write_json(folder / "metrics.json", stored)


@dataclass
class Result:
    """What the store holds of one run (of bicubic: metrics alone)."""

    name: str
    folder: Path
    config: dict = field(default_factory=dict)
    history: list = field(default_factory=list)
    validation: list = field(default_factory=list)
    metrics: dict = field(default_factory=dict)

    def generator(self):
        return inference.load_generator(self.folder)

    def picture(self, test_set, image):
        """The stored sr of a test image: uint8 (H, W, 3)."""
        path = self.folder / "sr" / test_set / f"{image}.png"
        return images.read_image(path)


def read_result(folder, sets=None):
    """What stands in a run's folder; if sets are named, metrics on these."""
    stored = read_json(folder / "metrics.json")
    return Result(
        folder.name,
        folder,
        EasyDict(read_json(folder / "config.json")),
        training.read_lines(folder / "history.jsonl"),
        training.read_lines(folder / "validation.jsonl"),
        EasyDict(
            {s: v for s, v in stored.items() if sets is None or s in sets}
        ),
    )


def shipped_results(config):
    """{name: Result} of the shipped weights, measured by `run_experiments`.

    Their config is the record of where they come from.
    """
    return {
        name: Result(
            name,
            folder,
            EasyDict(inference.provenance(name)),
            metrics=read_result(folder, present_sets(config)).metrics,
        )
        for name, folder in shipped_folders(config).items()
    }


def train_runs(config, names):
    """Train those of the runs that are not up to date; returns the plan.

    names: with all that they build on, in order (`needed_runs`).
    """
    pairs = training_pairs(config)
    val_pairs = present_pairs(config.val_sets, config.scaling_factor)
    tasks = [t for t in make_plan(config, pairs) if t.name in names]
    with training.lost_process_named(config.name):
        # Every process has its plan, before one of them moves anything.
        training.processes().wait_for_everyone()
        for task in tasks:
            perform(task, config, pairs, val_pairs)
    return tasks


def run_experiments(config):
    """Train what is not trained, measure what is not measured.

    Returns {name: Result}, bicubic first. What stands is not done again,
    so that a second call returns at once.
    """
    tasks = train_runs(config, config.runs)
    if training.processes().is_main_process:
        measure_runs(config, tasks)
    names = [BICUBIC, *config.runs]
    sets = present_sets(config)
    return {
        name: read_result(runs_folder(config) / name, sets) for name in names
    }


def needed_runs(config, name):
    """A run and those it builds on, in the order to train them."""
    run = config.runs[name]
    source = run.snapshot_of or run.start
    return [*(needed_runs(config, source) if source else ()), name]
