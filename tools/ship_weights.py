"""Ship weights: python tools/ship_weights.py NAME REACH RUN [RUN ...]

By hand, once in a while. RUN is the folder of a run, finished or still
training; of several, all begun from one start, the mean of their weights is
taken. REACH says how far to go along the straight line from their start
through it: 0 is the start, 1 the run or the mean. Writes NAME.safetensors in
half precision, NAME.json, which tells where it comes from, and NAME.md, its
model card, into srgan_lib/weights. Measures on all test sets that are there,
also what half precision costs.
"""

import copy
import functools
import hashlib
import json
import statistics
import subprocess
import sys
from pathlib import Path

from easydict import EasyDict

import srgan_lib
from srgan_lib import data_lists, experiments, inference
from srgan_lib.checkpoints import load_checkpoint, load_weights, save_weights
from srgan_lib.datasets import SRDataset
from srgan_lib.errors import UserError
from srgan_lib.evaluation import METRICS, evaluate
from srgan_lib.files import atomic_write, write_json, write_text
from srgan_lib.losses import EfficientNetFeatures
from srgan_lib.models import Generator
from srgan_lib.training import (
    STATISTICS_CROPS,
    measure_batch_norm,
    read_lines,
    validate,
)

PROJECT = Path(__file__).parents[1]
MOST_DECIBELS, MOST_BYTES = 0.01, 3_500_000


def read_description(folder):
    """What the config.json of a run says of it."""
    try:
        return EasyDict(json.loads((folder / "config.json").read_text()))
    except FileNotFoundError as error:
        raise UserError(f"{folder} is not the folder of a run.") from error


def with_earlier(description, folder):
    """A run and the runs it goes on from, first one first.

    Each stands beside it, in a folder of its name, in the checkout whose code
    trained it.
    """
    description.code = code_version(folder)
    start = description.settings.runs[description.run].start
    if not start:
        return [description]
    before = folder.parent / start
    return [*with_earlier(read_description(before), before), description]


def network_of(description):
    return description.settings.runs[description.run].network


def read_run(folder):
    """(generator, what config.json says, with the steps done so far).

    Of a run finished or not, with the running statistics of its training.
    """
    description = read_description(folder)
    saved = load_checkpoint(folder / "checkpoint.pt")
    description.update(steps=saved["step"], seconds=saved["seconds"])
    generator = Generator(description.settings)
    parts = saved["parts"]
    generator.load_state_dict(parts.get("ema", parts["generator"]))
    return generator.eval(), description


def start_of(description, folder):
    """The generator that a run began from, of the folder beside its own."""
    start = description.settings.runs[description.run].start
    if not start:
        raise UserError(f"{folder} began from no other run; give no REACH.")
    generator = Generator(description.settings)
    load_weights(generator, folder.parent / start / "weights.safetensors")
    return generator


def mean_network(networks):
    """The network whose parameters are the mean of theirs."""
    mean = networks[0]
    for count, network in enumerate(networks[1:], 2):
        mean = inference.interpolate_networks(mean, network, 1 / count)
    return mean


def moved(networks, start, reach):
    """The network `reach` of the way from a start through their mean."""
    return inference.interpolate_networks(start, mean_network(networks), reach)


def training_crops(description):
    """The data set that a run learned from."""
    settings = description.settings
    stage = settings[settings.runs[description.run].network]
    pairs = experiments.training_pairs(settings)
    return SRDataset(pairs, settings, stage.crop_size)


def in_half_precision(generator):
    """A copy whose weights went through float16 and back."""
    return copy.deepcopy(generator).half().float()


def measure(generator, sets, scale, features):
    """({set: mean figures in half precision}, {set: dB that it costs})."""
    figures, costs = {}, {}
    for name in sets:
        pairs = data_lists.data_list(name, scale)
        full, half = (
            evaluate(functools.partial(inference.upscale, g), pairs, features)
            for g in (generator, in_half_precision(generator))
        )
        figures[name] = half["mean"]
        costs[name] = full["mean"]["psnr"] - half["mean"]["psnr"]
        print(f"{name}: {figures[name]}, costs {costs[name]:.4f} dB")
        if costs[name] > MOST_DECIBELS:
            raise UserError(
                f"Half precision costs {costs[name]:.3f} dB on {name}, more "
                f"than {MOST_DECIBELS}; ship other weights."
            )
    return figures, costs


def code_version(folder=PROJECT):
    """The version of the library, and the commit of a folder's checkout."""
    command = ["git", "-C", folder, "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True)
    commit = found.stdout.strip() or "unknown"  # no checkout
    return f"{srgan_lib.__version__}, commit {commit}"


def last_answers(folder):
    """What the discriminator thought, on average over the last epoch."""
    history = read_lines(folder / "history.jsonl")
    last = [r for r in history if r["epoch"] == history[-1]["epoch"]]
    return {
        key: statistics.mean(r[key] for r in last)
        for key in ("D(real)", "D(fake)")
        if key in last[0]
    }


def provenance(games, reach, judge, figures, costs):
    """Where weights come from, for the JSON beside them.

    games: for each run whose mean they are, the descriptions of the runs
    that led to it, its own last.
    """
    description = games[-1][-1]
    settings, network = description.settings, network_of(description)
    legs = [run for g in games for run in g if network_of(run) == network]
    before = [run for run in games[-1] if network_of(run) != network]
    return {
        "run": description.run,
        "network": network,
        "profile": description.profile,
        "mean_of": len(games),
        "start": settings.runs[legs[0].run].start,
        "start_steps": sum(run.steps for run in before),
        "legs": [
            {
                "run": leg.run,
                "key": leg.key,
                "code": leg.code,
                "steps": leg.steps,
                "hours": leg.seconds / 3600,
                "recipe": leg.settings[network],
                "hardware": leg.environment,
            }
            for leg in legs
        ],
        "architecture": {
            "scaling_factor": settings.scaling_factor,
            "G": settings.G,
        },
        "parameters": description.parameters.generator,
        "data": {
            "sets": settings.train_sets,
            "images": description.train_images,
        },
        "steps": sum(leg.steps for leg in legs),
        "seeds": sorted({leg.settings.seed for leg in legs}),
        "hours": sum(leg.seconds for leg in legs) / 3600,
        "reach": reach,
        "batch_norm": (
            f"statistics of {STATISTICS_CROPS} training crops, taken after "
            "training"
        ),
        "shipped_with": code_version(),
        "judge": judge,
        "metrics": figures,
        "half_precision_costs_db": costs,
    }


def model_card(name, found):
    """The Markdown page of what one should know before using weights."""
    headings = [heading for heading, _ in METRICS.values()]
    rows = [
        [test_set, *(f"{mean[key]:.4f}" for key in METRICS)]
        for test_set, mean in found["metrics"].items()
    ]
    table = [["set", *headings], ["---", *["---:"] * len(headings)], *rows]
    costs = found["half_precision_costs_db"]
    start = (
        f", begun from {found['start']} ({found['start_steps']:,} steps)"
        if found["start"]
        else ""
    )
    reach = (
        f"\n| reach | {found['reach']:g} of the way from start to "
        f"{'end' if found['mean_of'] == 1 else 'mean'} |"
        if found["reach"] != 1
        else ""
    )
    games = (
        f", mean of {found['mean_of']} games" if found["mean_of"] > 1 else ""
    )
    legs = [
        f"{leg['steps']:,} steps on {leg['hardware']['processor']}, "
        f"{leg['hardware']['threads']} threads, mixed precision "
        f"{leg['hardware']['precision']}"
        for leg in found["legs"]
    ]
    invents = (
        "Trained with an adversarial loss: it **invents** detail that looks "
        "likely and need not be true. Not for evidence, medicine, or "
        "reading what cannot be read. In busy texture one can see faint "
        "ripples on a close look, in black letters colored specks; chapters "
        "8 to 10 tell of it."
        if found["network"] == "srgan"
        else "Trained on a pixel loss: where several originals are "
        "possible it shows their mean, which is soft."
    )
    return f"""# {name}

A generator of {found["parameters"]:,} parameters that enlarges photographs
{found["architecture"]["scaling_factor"]} times: `load_generator("{name}")`.

{invents}

It was trained on small images made by MATLAB's bicubic `imresize`. On
pictures that were made small in another way, or that carry noise or the
blocks of JPEG, it does worse, and enlarges these faults too.

| | |
|---|---|
| run | {found["run"]} of profile {found["profile"]}{games}{start} |
| steps | {found["steps"]:,} |{reach}
| trained on | {found["data"]["images"]} images: {", ".join(found["data"]["sets"])} |
| batch norm | {found["batch_norm"]} |
| seed | {", ".join(map(str, found["seeds"]))} |
| took | {found["hours"]:.1f} hours: {"; ".join(legs)} |
| shipped with | {found["shipped_with"]} |
| SHA-256 | `{found["sha256"]}` |

Measured as stored, in half precision (Y, 4 pixels cropped; perceptual
distance by {found["judge"]}), which changes PSNR by at most
{max(map(abs, costs.values())):.4f} dB:

{chr(10).join("| " + " | ".join(row) + " |" for row in table)}

License: MIT, as the code. The training images are not in the weights and
keep their own licenses.
"""  # noqa: E501


def ship(folders, name, sets, features, weights=inference.WEIGHTS, reach=1):
    """Measure the weights of runs, and write them with their two records."""
    folders = [Path(folder) for folder in folders]
    trained, descriptions = zip(*map(read_run, folders), strict=True)
    description, folder = descriptions[-1], folders[-1]
    network = (
        copy.deepcopy(mean_network(trained))
        if reach == 1
        else moved(trained, start_of(description, folder), reach)
    )
    generator = measure_batch_norm(network, training_crops(description))
    games = [
        with_earlier(found, place)
        for found, place in zip(descriptions, folders, strict=True)
    ]
    scale = description.settings.scaling_factor
    figures, costs = measure(generator, sets, scale, features)
    found = provenance(games, reach, features.name, figures, costs)
    found["discriminators"] = [last_answers(place) for place in folders]
    if len(folders) == 1:
        found["psnr_with_running_statistics"] = {
            name: validate(trained[0], data_lists.data_list(name, scale))
            for name in sets
        }
    path = weights / f"{name}.safetensors"
    with atomic_write(path) as temporary:  # in place after its two records
        save_weights(
            temporary,
            generator,
            half=True,
            architecture=json.dumps(found["architecture"]),
        )
        content = temporary.read_bytes()
        if len(content) > MOST_BYTES:
            raise UserError(
                f"{name} would have {len(content):,} bytes, more than "
                f"{MOST_BYTES:,}; ship a smaller network."
            )
        found = {"sha256": hashlib.sha256(content).hexdigest()} | found
        write_json(path.with_suffix(".json"), found)
        write_text(path.with_suffix(".md"), model_card(name, found))
    return path


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    name, reach, *folders = sys.argv[1:]
    sets = [
        test_set
        for test_set, found in data_lists.SETS.items()
        if found.role == "test" and data_lists.is_present(test_set)
    ]
    try:
        features = EfficientNetFeatures()
        print(ship(folders, name, sets, features, reach=float(reach)))
    except UserError as error:
        sys.exit(f"ship_weights: {error}")


if __name__ == "__main__":
    main()
