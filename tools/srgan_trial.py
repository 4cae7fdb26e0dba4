"""Add to the record of chapter 8, "A recipe for the full size", by hand.

python tools/srgan_trial.py RUN SEEN adds a game. RUN is the folder of an
SRGAN, finished or still training; SEEN says in a few words what one sees in
its pictures. Measured on BSDSVal. (The rows before this tool were measured by
such code, but outside the project.)

python tools/srgan_trial.py NAME 0,0.5,1,1.1 RUN [RUN ...] measures the
networks that far along the line from the run's start through its end, or
through the mean of several runs; the page knows the line by its NAME.
"""

import sys
from pathlib import Path

import numpy as np
from ship_weights import (
    moved,
    read_description,
    read_run,
    start_of,
    training_crops,
    with_earlier,
)

from srgan_lib import experiments, inference, training
from srgan_lib.data_lists import data_list
from srgan_lib.errors import UserError
from srgan_lib.files import read_json, write_json
from srgan_lib.images import read_image, read_original
from srgan_lib.imresize import imresize
from srgan_lib.metrics import (
    color_shift,
    grid_amplitude,
    mesh_share,
    psnr,
    spectrum_distance,
)

RECORD = experiments.RECORDS / "srgan_trials.json"
SET = "BSDSVal"
RULES = (
    *("pixel_loss", "pixel_weight", "tint_weight", "mesh_weight"),
    *("chroma_weight", "beta", "d_pace"),
)


def measure(generator):
    """Mean figures on BSDSVal; none of its images is learned from."""
    figures = []
    for hr_path, lr_path in data_list(SET):
        lr = read_image(lr_path)
        sr = inference.upscale(generator, lr)
        hr = read_original(hr_path, sr)
        figures.append(
            {
                "psnr": psnr(sr, hr),
                "spectrum": spectrum_distance(sr, hr),
                "grid": grid_amplitude(sr, hr),
                "color": color_shift(sr, imresize(lr, 4)),
                "mesh": mesh_share(sr),
            }
        )
    return {
        key: float(np.mean([f[key] for f in figures])) for key in figures[0]
    }


def row(folder, seen):
    """How far a run is, by which rules it is trained, and what it reaches."""
    generator, run = read_run(folder)
    generator = training.measure_batch_norm(generator, training_crops(run))
    settings, whole = run.settings, read_description(folder)
    before = with_earlier(whole, folder)[:-1]
    return {
        "steps": run.steps,
        "planned": whole.steps,
        "start_steps": sum(earlier.steps for earlier in before),
        "precision": whole.environment.precision,
        "content": 1,
        **{rule: settings.srgan[rule] for rule in RULES},
        SET: measure(generator),
        "seen": seen,
    }


def along(folders, reaches):
    """What networks on the line from a start through runs' mean reach."""
    trained, runs = zip(*map(read_run, folders), strict=True)
    start, crops = start_of(runs[-1], folders[-1]), training_crops(runs[-1])
    rows = []
    for reach in reaches:
        network = moved(trained, start, reach)
        found = measure(training.measure_batch_norm(network, crops))
        rows.append({"reach": reach, SET: found})
        print(rows[-1], flush=True)
    return rows


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    first, second, *folders = sys.argv[1:]
    record = read_json(RECORD)
    try:
        if folders:
            reaches = map(float, second.split(","))
            folders = [Path(folder) for folder in folders]
            record["lines"][first] = along(folders, reaches)
        else:
            record["trials"].append(row(Path(first), second))
            print(record["trials"][-1])
    except UserError as error:
        sys.exit(f"srgan_trial: {error}")
    write_json(RECORD, record)


if __name__ == "__main__":
    main()
