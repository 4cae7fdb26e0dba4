"""Profiles: what an experiment trains, on which images, for how long."""

import json
import re
from pathlib import Path

import yaml
from easydict import EasyDict

from srgan_lib.errors import UserError

PROFILES = Path(__file__).parent / "profiles"
SCHEDULES = ("constant", "half", "one_cycle", "cosine")
FEATURES = ("efficientnet-lite0", "vgg16-hed", "vgg19")


def workspace():
    """The folder that holds runs/ and data/: the book's, else this one."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "_toc.yml").exists():
            return folder
    return here


def whole(least):
    """A check for integers from `least` on."""
    return (
        lambda v: type(v) is int and v >= least,
        f"a whole number, {least} or more",
    )


def number(above=None, least=None, below=None):
    """A check for real numbers within the given limits."""

    def fits(v):
        return (
            type(v) in (int, float)
            and (above is None or v > above)
            and (least is None or v >= least)
            and (below is None or v < below)
        )

    limits = (("above", above), ("at least", least), ("below", below))
    wanted = [f"{word} {v}" for word, v in limits if v is not None]
    return fits, "a number " + " and ".join(wanted)


def one_of(*choices):
    """A check for one of a few values, none of them true or false."""
    return (
        lambda v: type(v) in (int, str) and v in choices,
        "one of " + ", ".join(map(str, choices)),
    )


def or_null(check):
    """The same check, or nothing at all."""
    fits, wanted = check
    return lambda v: v is None or fits(v), wanted + ", or null"


TRUTH = (lambda v: type(v) is bool, "true or false")
SET_NAMES = (
    lambda v: isinstance(v, list) and all(isinstance(s, str) for s in v),
    "a list of set names",
)
SOME_SETS = (lambda v: v and SET_NAMES[0](v), SET_NAMES[1])
BETAS = (
    lambda v: (
        isinstance(v, list)
        and len(v) == 2
        and all(number(least=0, below=1)[0](b) for b in v)
    ),
    "two numbers from 0 to below 1",
)

# What both stages of training are told.
STAGE = {
    "batch_size": whole(1),
    "crop_size": whole(8),
    "learning_rate": number(above=0),
    "warmup_steps": whole(0),
    "schedule": one_of(*SCHEDULES),
    "betas": BETAS,
    "clip_norm": or_null(number(above=0)),
    "ema_decay": or_null(number(above=0, below=1)),
    "pixel_loss": one_of("mse", "l1"),
}
SCHEMA = {
    "seed": whole(0),
    "scaling_factor": one_of(2, 4, 8),
    "train_sets": SOME_SETS,
    "val_sets": SET_NAMES,
    "test_sets": SET_NAMES,
    "crops_per_image": whole(1),
    "steps_per_epoch": or_null(whole(1)),
    "augment": TRUTH,
    "cache_gigabytes": number(least=0),
    "checkpoint_minutes": number(above=0),
    "history_every": whole(1),
    "G": {
        "large_kernel_size": one_of(3, 5, 7, 9, 11),
        "small_kernel_size": one_of(3, 5, 7),
        "n_channels": whole(1),
        "n_blocks": whole(1),
    },
    "D": {
        "kernel_size": one_of(3, 5, 7),
        "n_channels": whole(1),
        "n_blocks": whole(1),
        "fc_size": whole(1),
    },
    "srresnet": STAGE,
    "srgan": STAGE
    | {
        "features": one_of(*FEATURES),
        "vgg19_i": one_of(1, 2, 3, 4, 5),
        "vgg19_j": one_of(1, 2, 3, 4),
        "pixel_weight": number(least=0),
        "grid_weight": number(least=0),
        "mesh_weight": number(least=0),
        "tint_weight": number(least=0),
        "chroma_weight": number(least=0),
        "content_weight": (
            lambda v: v == "calibrated" or number(above=0)[0](v),
            "a number above 0, or calibrated",
        ),
        "beta": number(least=0),
        "d_pace": number(above=0),
    },
    "runs": (lambda v: isinstance(v, dict) and v, "a table of runs"),
    "faults": or_null(
        (lambda v: isinstance(v, dict), "a table of runs and epochs")
    ),
}
RUN_NAME = "[A-Za-z][A-Za-z0-9+_-]*"
# Folders beside those of the runs, and what a study calls its anchors.
TAKEN = ("bicubic", "shipped", "faults", "hr", "nearest")
RUN = {
    "network": one_of("srresnet", "srgan"),
    "epochs": whole(1),
    "start": or_null((lambda v: isinstance(v, str), "the name of a run")),
    "snapshot_of": or_null(
        (lambda v: isinstance(v, str), "the name of a run")
    ),
}
# The fault runs of chapter 11: of one run of each network the first epochs
# once more, with a fault. What the run itself was after them has none.
FAULTS = {
    "srresnet": (lambda v: isinstance(v, str), "the name of a run"),
    "srresnet_epochs": whole(1),
    "srgan": (lambda v: isinstance(v, str), "the name of a run"),
    "srgan_epochs": whole(1),
}


def check(values, schema, place):
    """Compare `values` with `schema`; raise UserError at the first fault."""
    if not isinstance(values, dict):
        raise UserError(f"{place} must be a table of keys and values.")
    good = ", ".join(schema)
    for key in values:
        if key not in schema:
            raise UserError(f"{place} has no key '{key}'; it takes: {good}.")
    for key, rule in schema.items():
        if key not in values:
            raise UserError(f"{place} lacks the key '{key}'.")
        value = values[key]
        if isinstance(rule, dict):
            check(value, rule, f"{place}: {key}")
            continue
        fits, wanted = rule
        if not fits(value):
            raise UserError(
                f"{place}: {key} must be {wanted}, not "
                f"{json.dumps(value, default=str)}{yaml_trap(value)}."
            )


def yaml_trap(value):
    """Why a number was read as text: YAML's want a point before the e."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+", value):
        return f" as text (write {value.replace('e', '.0e')})"
    return ""


def check_runs(runs, place):
    """Runs begin from, or are snapshots of, SRResNet runs above them."""
    for name, run in runs.items():
        if not (isinstance(name, str) and re.fullmatch(RUN_NAME, name)):
            raise UserError(
                f"{place}: a run cannot be called '{name}', since its folder "
                "is; take a letter, then letters, digits, +, - and _."
            )
        if name in TAKEN:
            raise UserError(
                f"{place}: a run cannot be called '{name}', for other figures "
                "have that name; choose another."
            )
        if isinstance(run, dict):
            run.setdefault("start", None)
            run.setdefault("snapshot_of", None)
        check(run, RUN, f"{place}: run {name}")
    seen = {}
    for name, run in runs.items():
        for source in (run["start"], run["snapshot_of"]):
            if source is None:
                continue
            if seen.get(source, {}).get("network") != "srresnet":
                raise UserError(
                    f"{place}: run {name} builds on '{source}', which is "
                    "not an srresnet run above it."
                )
        if run["snapshot_of"]:
            check_snapshot(run, seen[run["snapshot_of"]], f"{place}: {name}")
        seen[name] = run


def check_snapshot(run, source, place):
    """A snapshot trains nothing: all it has of its own are its epochs."""
    if run["network"] != "srresnet" or run["start"] or source["snapshot_of"]:
        raise UserError(
            f"{place} must be an srresnet run without start, to be a "
            "snapshot, and of a run that is none itself."
        )
    if run["epochs"] > source["epochs"]:
        raise UserError(
            f"{place} is a snapshot after epoch {run['epochs']} of a run of "
            f"{source['epochs']} epochs; take an earlier one."
        )


def check_faults(config, place):
    """Fault runs, where a profile has them, are beginnings of its runs."""
    faults, scale = config["faults"], config["scaling_factor"]
    if faults is None:
        return
    check(faults, FAULTS, f"{place}: faults")
    if scale != 4:
        raise UserError(
            f"{place}: faults are made for a scaling_factor of 4, not "
            f"{scale}; set faults to null."
        )
    for network in ("srresnet", "srgan"):
        name, epochs = faults[network], faults[f"{network}_epochs"]
        run = config["runs"].get(name, {})
        if run.get("network") != network or run["snapshot_of"]:
            raise UserError(
                f"{place}: faults: {network} is '{name}', which is not an "
                f"{network} run that the profile trains."
            )
        if epochs > run["epochs"]:
            raise UserError(
                f"{place}: faults: {network}_epochs is {epochs}, and {name} "
                f"has {run['epochs']}; take no more."
            )
        if config[network]["schedule"] != "constant":
            raise UserError(
                f"{place}: faults compare beginnings of runs, so {network} "
                "needs the schedule constant; take it, or set faults to null."
            )


def check_stages(config, place):
    """Values that are good alone, and must fit each other."""
    scale, srgan = config["scaling_factor"], config["srgan"]
    for stage in ("srresnet", "srgan"):
        if config[stage]["crop_size"] % scale:
            raise UserError(
                f"{place}: {stage}: crop_size must be a multiple of "
                f"scaling_factor ({scale})."
            )
    least = max(32, 8 * scale)
    if srgan["crop_size"] < least:
        raise UserError(
            f"{place}: srgan: crop_size must be {least} or more, for the "
            "discriminator and for the mesh term's windows of 8 cells."
        )
    if srgan["vgg19_i"] < 3 and srgan["vgg19_j"] > 2:
        raise UserError(
            f"{place}: srgan: vgg19_j must be 1 or 2 where vgg19_i is 1 or "
            "2: VGG19 has no more convolutions there."
        )


def load_profile(name):
    """Read a profile by its name, or from the path of a YAML file.

    Returns an EasyDict, checked: an unknown key or a bad value is a
    UserError that says what is taken instead.
    """
    names = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    path = PROFILES / f"{name}.yaml" if name in names else Path(name)
    if not path.is_file():
        raise UserError(
            f"There is no profile '{name}'; take one of "
            f"{', '.join(names)}, or the path of a YAML file."
        )
    if path.stem in names and path.parent.resolve() != PROFILES.resolve():
        raise UserError(
            f"{path} has the name of one of the library's profiles, whose "
            "runs it would replace; rename it."
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())  # on one line
        raise UserError(
            f"{path} is not valid YAML: {reason}; mend it there."
        ) from error
    place = f"profile {path.stem}"
    if isinstance(values, dict):
        values.setdefault("faults", None)
    check(values, SCHEMA, place)
    check_runs(values["runs"], place)
    check_faults(values, place)
    check_stages(values, place)
    return EasyDict(values, name=path.stem)
