"""The command line: `srgan`, or `python -m srgan_lib`."""

import functools
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from srgan_lib import (
    data_lists,
    evaluation,
    experiments,
    fault_runs,
    faults,
    training,
)
from srgan_lib import doctor as examiner
from srgan_lib.config import load_profile
from srgan_lib.errors import UserError
from srgan_lib.images import read_image, write_image
from srgan_lib.inference import load_generator, upscale
from srgan_lib.losses import EfficientNetFeatures

app = typer.Typer(
    help="Image super-resolution, from interpolation to SRGAN.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ProfileName = Annotated[
    str, typer.Option(envvar="SRGAN_PROFILE", help="Name or YAML file.")
]


def duration(seconds):
    """1 h 05 min, 12 min, 40 s."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"


def seconds_per_step(config, network, pairs):
    """The median time of a few real training steps, on this machine."""
    name = next(n for n, r in config.runs.items() if r.network == network)
    with tempfile.TemporaryDirectory() as folder:
        run = training.Run(config, name, folder, pairs)
        times, begin = [], time.perf_counter()
        for _ in run.epoch_figures():
            times.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            if len(times) == 6:
                break
    return sorted(times)[len(times) // 2]


@app.command("experiments")
def run_experiments(profile: ProfileName = "quick", dry_run: bool = False):
    """Train and measure the runs of a profile that are not up to date."""
    config = load_profile(profile)
    if not dry_run:
        results = experiments.run_experiments(config)
        if config.faults is not None:
            fault_runs.run_faults(config)
            faults.stored_signatures(config)
        folder = experiments.runs_folder(config)
        print(f"{len(results)} methods stand in {folder}")
        return
    pairs = experiments.training_pairs(config)
    rates = {}
    tasks = experiments.make_plan(config, pairs)
    networks = {name: run.network for name, run in config.runs.items()}
    for fault in fault_runs.chosen_faults(config, long=False):
        tasks.append(fault_runs.make_task(config, fault, pairs))
        networks[fault.name] = fault.network
    for task in tasks:
        network, cost = networks[task.name], ""
        if task.steps:
            if network not in rates:
                rates[network] = seconds_per_step(config, network, pairs)
            cost = f", about {duration(task.steps * rates[network])}"
        print(f"{task.name}: {task.state}, for {task.why}{cost}")


@app.command()
def train(
    run: Annotated[str, typer.Argument(help="A run of the profile.")],
    profile: ProfileName = "quick",
):
    """Train one run of a profile, or go on with it."""
    config = load_profile(profile)
    if run not in config.runs:
        raise UserError(
            f"Profile {config.name} has no run '{run}'; it has "
            f"{', '.join(config.runs)}."
        )
    pairs = experiments.training_pairs(config)
    val_pairs = experiments.present_pairs(
        config.val_sets, config.scaling_factor
    )
    tasks = {t.name: t for t in experiments.make_plan(config, pairs)}
    for name in experiments.needed_runs(config, run):
        experiments.perform(tasks[name], config, pairs, val_pairs)
    print(f"{run} stands in {tasks[run].folder}")


@app.command()
def runs(profile: ProfileName = "quick"):
    """List the runs of a profile: their state, and their best PSNR."""
    config = load_profile(profile)
    pairs = experiments.training_pairs(config)
    for task in experiments.make_plan(config, pairs):
        result = experiments.read_result(task.folder)
        best = max((r.get("psnr", 0) for r in result.validation), default=0)
        spent = duration(result.config.get("seconds", 0))
        line = f"{task.name:24} {task.state:9} {spent:>12}"
        print(f"{line}  best {best:.2f} dB  ({task.why})")


@app.command()
def data(
    sets: Annotated[
        list[str] | None, typer.Argument(help="Sets to fetch.")
    ] = None,
):
    """Fetch image sets; without names, tell which are there."""
    for name in sets or ():
        data_lists.get_set(name)  # refuse a wrong name before any download
    for name in sets or ():
        data_lists.fetch(name)
        print(f"{name} is at {data_lists.create_data_list(name)}")
    for found in () if sets else data_lists.status():
        state = found["how_to_get"] or f"{found['images']} images"
        print(f"{found['name']:12} {found['role']:6} {state}")


@app.command()
def evaluate(
    model: Annotated[
        str, typer.Argument(help="bicubic, a name, a file or a run's folder.")
    ],
    sets: Annotated[list[str] | None, typer.Argument()] = None,
):
    """Measure a generator on test sets (all that are there)."""
    if model == experiments.BICUBIC:
        scale = 4
        enlarge = functools.partial(experiments.imresize.imresize, scale=scale)
    else:
        generator = load_generator(model)
        scale = 2 ** len(generator.upscale)
        enlarge = functools.partial(upscale, generator)
    names = sets or [
        name
        for name, found in data_lists.SETS.items()
        if found.role == "test" and data_lists.is_present(name)
    ]
    lists = {name: data_lists.data_list(name, scale) for name in names}
    features = EfficientNetFeatures()
    headings = [heading for heading, _ in evaluation.METRICS.values()]
    print("set        " + "  ".join(headings))
    for name, pairs in lists.items():
        mean = evaluation.evaluate(enlarge, pairs, features)["mean"]
        cells = [
            f"{mean[key]:{len(heading)}.4f}"
            for key, (heading, _) in evaluation.METRICS.items()
        ]
        print(f"{name:10} " + "  ".join(cells))


@app.command()
def doctor(
    model: Annotated[
        str,
        typer.Argument(help="file.py:function, a name, a file or a run."),
    ],
    measure: Annotated[
        str | None, typer.Option(help="file.py:function, sr and hr to PSNR.")
    ] = None,
    shrink: Annotated[
        str | None, typer.Option(help="file.py:function, hr to lr.")
    ] = None,
):
    """Look for the faults of chapter 11; the exit code is 1 if some are."""
    findings = examiner.examine_model(model)
    if measure:
        function = examiner.load_function(measure)
        findings += examiner.examine_measure(function)
    if shrink:
        function = examiner.load_function(shrink)
        findings += examiner.examine_shrinking(function)
    for finding in findings:
        print(finding)
    if findings:
        raise typer.Exit(1)
    print("Healthy, as far as these tests can see.")


@app.command("upscale")
def upscale_files(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN...")],
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder.")],
    model: str = "srgan",
    tile: Annotated[int | None, typer.Option(min=16)] = None,
    force: Annotated[bool, typer.Option(help="Overwrite.")] = False,
):
    """Enlarge photographs."""
    generator = load_generator(model)
    for path in inputs:
        target = out / f"{path.stem}.png"
        if target.exists() and not force:
            raise UserError(f"{target} exists; say --force to overwrite it.")
        write_image(target, upscale(generator, read_image(path), tile))
        print(target)


def main():
    """Run the command; what the user can mend is one line, no traceback."""
    try:
        app()
    except UserError as error:
        sys.exit(f"srgan: {error}")
    except training.Interrupted as stop:
        print(f"srgan: {stop}", file=sys.stderr)
        sys.exit(128 + stop.signum)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
