"""The command line: `srgan`, or `python -m srgan_lib`."""

import functools
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from tqdm import tqdm

from srgan_lib import (
    data_lists,
    evaluation,
    experiments,
    fault_runs,
    faults,
    inference,
    photographs,
    training,
)
from srgan_lib import doctor as examiner
from srgan_lib.config import load_profile
from srgan_lib.errors import UserError
from srgan_lib.imresize import imresize
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


def seconds_per_step(config, name, pairs):
    """The median time of a few real steps of a run, on this machine."""
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
def run_experiments(
    profile: ProfileName = "quick",
    dry_run: bool = False,
    for_book: Annotated[
        bool, typer.Option(help="Stop if the pages need other runs.")
    ] = False,
):
    """Train and measure the runs of a profile that are not up to date."""
    config = load_profile(profile)
    lacking = [n for n in experiments.CASE_RUNS if n not in config.runs]
    if for_book and lacking:
        raise UserError(
            f"The book shows the case's five runs, and profile {config.name} "
            f"has no {lacking[0]}; train it with `make experiments`, and "
            "build the book with another profile."
        )
    if not dry_run:
        results = experiments.run_experiments(config)
        if config.faults is not None:
            fault_runs.run_faults(config)
            faults.stored_signatures(config, config.faults.srresnet)
        if training.processes().is_main_process:
            folder = experiments.runs_folder(config)
            print(f"{len(results)} methods stand in {folder}")
        return
    pairs = experiments.training_pairs(config)
    jobs = [(task, config) for task in experiments.make_plan(config, pairs)]
    for fault in fault_runs.chosen_faults(config, long=False):
        task = fault_runs.make_task(config, fault, pairs)
        jobs.append((task, fault_runs.with_fault(config, fault)))
    rates = {}
    for task, settings in jobs:
        network, cost = settings.runs[task.name].network, ""
        if task.steps:
            if network not in rates:
                rates[network] = seconds_per_step(settings, task.name, pairs)
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
    names = experiments.needed_runs(config, run)
    tasks = experiments.train_runs(config, names)
    if training.processes().is_main_process:
        print(f"{run} stands in {tasks[-1].folder}")


@app.command()
def runs(profile: ProfileName = "quick"):
    """List the runs of a profile: state, figures, what is to do and why."""
    config = load_profile(profile)
    sets = experiments.present_sets(config)
    line = "{:24}  {:8}  {:>15}  {:>11}  {:>15}  {:>18}  {}".format
    heading = ("run", "state", "steps", "time", "best (epoch)")
    print(line(*heading, *(sets or ["no test set"])[:1], "to do"))
    pairs = experiments.training_pairs(config)
    for task in experiments.make_plan(config, pairs):
        print(line(task.name, task.state, *run_cells(config, task, sets)))


def run_cells(config, task, sets):
    """Steps, time, figures of a run; what is to do for it, or why.

    No figures of settings or code that changed. The best PSNR is that on
    the validation images; on the first test set stand PSNR and perceptual
    distance.
    """
    result = experiments.read_result(task.folder)
    fits = result.config.get("key") == task.key
    validation = result.validation if fits else []
    spent = duration(validation[-1]["seconds"]) if validation else "-"
    scores = [(r["psnr"], r["epoch"]) for r in validation if "psnr" in r]
    best = "{:.2f} dB ({})".format(*max(scores)) if scores else "-"
    steps, figures, todo = f"{task.total}", "-", task.why
    if task.state in ("train", "resume"):
        steps = f"{task.total - task.steps} / {task.total}"
    if task.state == "finished":
        missing = experiments.unmeasured_sets(config, task)
        todo = f"measure on {', '.join(missing)}" if missing else "nothing"
        if sets and sets[0] not in missing:
            mean = result.metrics[sets[0]].mean
            figures = f"{mean.psnr:.2f} dB, {mean.perceptual:.4f}"
    return steps, spent, best, figures, todo


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
        enlarge = functools.partial(imresize, scale=scale)
    else:
        generator = inference.load_generator(model)
        scale = inference.scale_of(generator)
        enlarge = functools.partial(inference.upscale, generator)
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
        str | None,
        typer.Argument(help="file.py:function, a name, a file or a run."),
    ] = None,
    measure: Annotated[
        str | None, typer.Option(help="file.py:function, sr and hr to PSNR.")
    ] = None,
    shrink: Annotated[
        str | None, typer.Option(help="file.py:function, hr to lr.")
    ] = None,
    step: Annotated[
        str | None,
        typer.Option(
            help="file.py:function, of nothing, to the arguments of "
            "examine_training, by name."
        ),
    ] = None,
):
    """Look for the faults of chapter 11; the exit code is 1 if some are."""
    if not (model or measure or shrink or step):
        raise UserError("Name what to examine; `srgan doctor --help` says it.")
    findings = examiner.examine_model(model) if model else []
    if measure:
        function = examiner.load_function(measure)
        findings += examiner.examine_measure(function)
    if shrink:
        function = examiner.load_function(shrink)
        findings += examiner.examine_shrinking(function)
    if step:
        arguments = examiner.load_function(step)()
        findings += examiner.examine_training(**arguments)
    for finding in findings:
        print(finding)
    if findings:
        raise typer.Exit(1)
    print("Healthy, as far as these tests can see.")


@app.command("upscale")
def upscale_photographs(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="IN...", help="Files and folders.")
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="A folder; a file for one.")
    ],
    model: Annotated[
        str,
        typer.Option(
            help="A name, a file or a run's folder. srgan invents likely "
            "detail; srresnet is softer and does not."
        ),
    ] = "srgan",
    tile: Annotated[
        int | None, typer.Option(min=16, help="Pixels; else as memory allows.")
    ] = None,
    ensemble: Annotated[
        bool, typer.Option(help="The mean of eight answers: 8 times longer.")
    ] = False,
    force: Annotated[bool, typer.Option(help="Overwrite.")] = False,
):
    """Enlarge photographs; their alpha, profile and EXIF are kept."""
    paths = photographs.find_photographs(inputs)
    outputs = photographs.plan_outputs(paths, out)
    accelerator = training.make_accelerator()
    generator = inference.load_generator(model)
    scale = inference.scale_of(generator)
    generator = inference.Frugal(inference.fold_batch_norm(generator))
    generator.to(accelerator.device)
    if ensemble:
        generator = inference.SelfEnsemble(generator)
    if tile is None:
        free = inference.free_memory(accelerator.device)
        tile = inference.fitting_tile(generator, free)

    def enlarge(image):
        bar = functools.partial(tqdm, desc=path.name, unit="tile", leave=False)
        with accelerator.autocast():
            return inference.upscale(generator, image, tile, bar)

    refused = []
    for path, target in outputs.items():
        try:
            if target.exists() and not force:
                raise UserError(f"{target} exists; --force overwrites it.")
            photograph = photographs.read_photograph(path)
            photographs.check_fits(target, photograph, scale)
            photograph = photographs.enlarge_photograph(photograph, enlarge)
            photographs.write_photograph(target, photograph)
            print(target, flush=True)
        except UserError as error:  # the others can still be done
            refused.append(str(error))
        except (MemoryError, torch.cuda.OutOfMemoryError):
            refused.append(
                f"{path} needs more memory than there is; try a smaller "
                "--tile."
            )
    if refused:
        raise UserError("\nsrgan: ".join(refused))


@app.command("export")
def export_onnx(
    model: Annotated[
        str, typer.Argument(help="A name, a file or a run's folder.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.onnx")],
):
    """Write a generator as an ONNX file, for programs without PyTorch."""
    inference.export_onnx(inference.load_generator(model), out)
    print(f"{out}: `lr` to `sr`, RGB from 0 to 1, any number and size")


# --- srgan opinion -------------------------------------------------------

opinion_app = typer.Typer(
    help="Ask people: a blind rating study, and its analysis.",
    no_args_is_help=True,
)
app.add_typer(opinion_app, name="opinion")


@opinion_app.command("sheet")
def opinion_sheet(
    folder: Annotated[
        Path, typer.Argument(help="METHOD/IMAGE.png, hr/IMAGE.png; or runs.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="An HTML file.")],
    test_set: Annotated[
        str | None, typer.Option("--set", help="Of a folder of runs.")
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Compare, instead of scoring.")
    ] = False,
    crop: Annotated[
        int | None, typer.Option(min=16, help="Central pixels a side.")
    ] = None,
    zoom: Annotated[int, typer.Option(min=1, max=8)] = 1,
    seed: int = 0,
    title: str = "",
    note: Annotated[str, typer.Option(help="A word to the raters.")] = "",
    force: Annotated[bool, typer.Option(help="Overwrite.")] = False,
):
    """Make the page that raters open, and the key that they must not see."""
    from srgan_lib import opinion  # takes a second: not for every command

    mode = "pairs" if pairs else "mos"
    pictures = opinion.read_pictures(folder, test_set)
    if crop:
        pictures = opinion.central(pictures, crop)
    study, key = opinion.make_study(pictures, mode, seed, title, note, zoom)
    for path in opinion.write_sheet(out, study, key, force):
        print(path)
    print(f"{len(key['trials'])} questions about {len(key['images'])} images")


@opinion_app.command("analyze")
@opinion_app.command("analyse", hidden=True)
def opinion_analyze(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...")],
    key: Annotated[Path, typer.Option(help="The .key.json of the sheet.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder.")],
    incomplete: Annotated[bool, typer.Option(help="Use them too.")] = False,
):
    """Say what the saved answers say: a table, a plot, and JSON."""
    from srgan_lib import opinion

    result = opinion.analyze(opinion.read_key(key), files, incomplete)
    print(opinion.report(result))
    for path in opinion.write_result(out, result):
        print(path)


def main():
    """Run the command; what the user can mend is one line, no traceback."""
    # A file's name may hold bytes that are no UTF-8.
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except UserError as error:
        sys.exit(f"srgan: {error}")
    except training.Interrupted as stop:
        if training.processes().is_main_process:  # it alone has saved
            print(f"srgan: {stop}", file=sys.stderr)
            sys.exit(128 + stop.signum)


if __name__ == "__main__":
    main()
