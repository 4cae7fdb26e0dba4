"""What the runs of `quick` must reach, wherever `make book` has made them."""

import pytest

from srgan_lib.config import load_profile
from srgan_lib.experiments import (
    BICUBIC,
    make_plan,
    measure_runs,
    read_result,
    runs_folder,
    training_pairs,
)

pytestmark = pytest.mark.slow
SRRESNET, SCRATCH = "SRResNet-20", "SRGAN-10"
PRETRAINED = ("SRResNet-10+SRGAN-20", "SRResNet-20+SRGAN-20")


@pytest.fixture(scope="module")
def means():
    """{run: {test set: mean figures}} of finished, measured runs."""
    config = load_profile("quick")
    tasks = make_plan(config, training_pairs(config))
    late = [task.name for task in tasks if task.state != "finished"]
    if late:
        pytest.skip(f"not trained yet, call make book: {', '.join(late)}")
    measure_runs(config, tasks)
    return {
        name: {
            test_set: figures.mean
            for test_set, figures in read_result(
                runs_folder(config) / name
            ).metrics.items()
        }
        for name in [BICUBIC, *config.runs]
    }


def gains(means, run, base, key):
    """What `run` has more of `key` than `base`, by test set."""
    return {s: means[run][s][key] - means[base][s][key] for s in means[run]}


def test_srresnet_is_half_a_decibel_above_bicubic(means):
    gained = gains(means, SRRESNET, BICUBIC, "psnr")
    main = {"Bundled5", "Set5", "Set14"} & gained.keys()
    assert "Bundled5" in main
    assert all(gained[s] >= 0.5 for s in main), gained
    assert all(gain > 0 for gain in gained.values()), gained


# The first is reached by a hair, and may be missed on another machine; the
# second is not. Whatever makes the adversarial stage faster brings the first
# nearer and takes the second away: SRGAN-10 learns faster, too.
short = pytest.mark.xfail(reason="not reached safely within the budget")


@pytest.mark.parametrize(
    ("run", "key"),
    [
        (PRETRAINED[0], "spectrum"),
        (PRETRAINED[1], "spectrum"),
        pytest.param(PRETRAINED[0], "perceptual", marks=short),
        (PRETRAINED[1], "perceptual"),
    ],
)
def test_srgan_is_nearer_to_hr_than_srresnet(means, run, key):
    gained = gains(means, run, SRRESNET, key)
    assert all(gain < 0 for gain in gained.values()), gained


@short
@pytest.mark.parametrize("run", PRETRAINED)
def test_pretraining_is_worth_a_decibel(means, run):
    gained = gains(means, run, SCRATCH, "psnr")
    assert all(gain >= 1 for gain in gained.values()), gained
