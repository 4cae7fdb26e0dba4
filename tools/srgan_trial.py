"""Add a game at full size to the record of chapter 8, "A recipe for the full
size": python tools/srgan_trial.py RUN SEEN

By hand. RUN is the folder of an SRGAN, finished or still training; SEEN says
in a few words what one sees in its pictures. Measured on BSDSVal. (The rows
before this tool were measured by such code, but outside the project.)
"""

import sys
from pathlib import Path

import numpy as np
from ship_weights import (
    read_description,
    read_run,
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
            }
        )
    return {
        key: float(np.mean([f[key] for f in figures])) for key in figures[0]
    }


def row(folder, seen):
    """How far a run is, by which rules it is trained, and what it reaches."""
    generator, run = read_run(Path(folder))
    generator = training.measure_batch_norm(generator, training_crops(run))
    settings, whole = run.settings, read_description(Path(folder))
    before = with_earlier(whole, Path(folder))[:-1]
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


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    record = read_json(RECORD)
    try:
        record["trials"].append(row(*sys.argv[1:]))
    except UserError as error:
        sys.exit(f"srgan_trial: {error}")
    write_json(RECORD, record)
    print(record["trials"][-1])


if __name__ == "__main__":
    main()
