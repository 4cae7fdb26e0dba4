"""The long faults of chapter 11, and the records that the chapter shows.

make faults, after the runs of the profile stand. Goes on where it was
stopped. Writes srgan_lib/records/fault_runs.json (every fault of training)
and, where Set5 and Set14 are, signatures.json: every fault alone, and every
two of different steps, for each of the five runs.
"""

import sys
from dataclasses import replace

from srgan_lib import experiments, fault_runs, faults
from srgan_lib.data_lists import data_list, is_present
from srgan_lib.files import read_json, write_json

RECORDS = experiments.RECORDS
WRITE_UP = experiments.read_record("write_up")
# scikit-image's SSIM stands beside Wang's, for every combination.
COMBINATIONS = list(
    faults.combinations([f for f in faults.FAULTS if f.step != "similarity"])
)


def record_runs(config):
    """Train what is not trained; write what each fault run reached."""
    results = fault_runs.run_faults(config, long=True)
    environment = next(iter(results.values())).config.environment
    record = {
        "profile": config.name,
        "environment": environment,
        "runs": {
            name: {
                "steps": result.config.steps,
                "seconds": round(result.config.seconds),
                "sets": {
                    test_set: figures.mean
                    for test_set, figures in result.metrics.items()
                },
            }
            for name, result in results.items()
        },
    }
    write_json(RECORDS / "fault_runs.json", record)


def three_figures(generator, test_set, chosen):
    """[PSNR, SSIM after Wang, scikit-image's] of each combination."""
    pipelines = {}
    for some in chosen:
        pipeline = faults.faulty(*some)
        pipelines[some, "wang"] = pipeline
        pipelines[some, "skimage"] = replace(
            pipeline, similarity=faults.skimage_default
        )
    paths = [hr for hr, _ in data_list(test_set)]
    found = faults.signatures(generator, paths, pipelines)
    return {
        some: [
            round(v, 4)
            for v in (*found[some, "wang"], found[some, "skimage"][1])
        ]
        for some in chosen
    }


def near_some_row(figures):
    """Whether it comes, generously, near a row of the write-up on Set5."""
    psnr, wang, skimage = figures
    return any(
        faults.distance((psnr, s), (row["psnr"][0], row["ssim"][0])) < 2
        for row in WRITE_UP["runs"].values()
        for s in (wang, skimage)
    )


def record_signatures(config):
    """All combinations on Set5; on Set14 single faults and what came near."""
    file = RECORDS / "signatures.json"
    names = [[fault.name for fault in some] for some in COMBINATIONS]
    record = read_json(file)
    if record.get("combinations") != names:
        record = {"profile": config.name, "runs": {}, "combinations": names}
    keys = experiments.run_keys(config, experiments.training_pairs(config))
    for name in WRITE_UP["runs"]:
        if record["runs"].get(name, {}).get("key") == keys[name]:
            continue
        print(f"signatures of {name}", flush=True)
        generator = experiments.read_result(
            experiments.runs_folder(config) / name
        ).generator()
        first = three_figures(generator, "Set5", COMBINATIONS)
        chosen = [
            some
            for some, figures in first.items()
            if len(some) < 2 or near_some_row(figures)
        ]
        second = three_figures(generator, "Set14", chosen)
        record["runs"][name] = {
            "key": keys[name],
            "Set5": list(first.values()),
            "Set14": [second.get(some) for some in COMBINATIONS],
        }
        write_json(file, record)


def main():
    config = experiments.current_profile()
    if config.faults is None:
        sys.exit(f"The profile {config.name} has no fault runs.")
    experiments.run_experiments(config)
    if is_present("Set5") and is_present("Set14"):
        record_signatures(config)
    record_runs(config)


if __name__ == "__main__":
    main()
