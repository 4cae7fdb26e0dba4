"""`course` and `paper`, from the folders as downloaded to the last table.

As they are, but for the number of steps and crops; on three images a set and a
VGG19 of torchvision's keys and shapes, with weights of chance.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tiny import smooth_image
from torchvision.models import vgg19

from srgan_lib.config import PROFILES
from srgan_lib.experiments import read_result
from srgan_lib.images import write_image
from srgan_lib.imresize import imresize
from srgan_lib.inference import shipped_names

pytestmark = pytest.mark.slow
TEST_SETS = ("Set5", "Set14", "B100", "Urban100")


def write_set(hr_folder, lr_folder, names, seed):
    """Three images of other sizes, and their LR twins."""
    for k, (name, height) in enumerate(
        zip(names, (96, 132, 112), strict=True)
    ):
        hr = smooth_image(height, 120, seed + k)
        write_image(hr_folder / f"{name}.png", hr)
        write_image(lr_folder / f"{name}x4.png", imresize(hr, 0.25))


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """A data root of the official layout, and a home for PyTorch's files."""
    root = tmp_path_factory.mktemp("downloads")
    for part, first in (("train", 1), ("valid", 801)):
        write_set(
            root / f"DIV2K_{part}_HR",
            root / f"DIV2K_{part}_LR_bicubic" / "X4",
            [f"{first + k:04}" for k in range(3)],
            first,
        )
    for seed, name in enumerate(TEST_SETS):
        folder = root / "benchmark" / name
        write_set(
            folder / "HR", folder / "LR_bicubic" / "X4", "abc", 10 * seed
        )
    with torch.device("meta"):
        shapes = vgg19(weights=None).state_dict()
    draw = torch.Generator().manual_seed(0)
    state = {}
    for key, value in shapes.items():
        one = torch.zeros([1] * value.dim())
        if value.dim() == 4:  # a kernel that keeps the scale of its input
            one = torch.rand(1, 1, 3, 3, generator=draw)
            one /= 4.5 * value.shape[1]
        state[key] = one.expand(value.shape)  # stored once
    path = root / "torch" / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth"
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    return root


@pytest.fixture
def srgan(downloads, tmp_path):
    """srgan("runs", ...) -> what it prints, in an empty folder."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "SRGAN_DATA": str(downloads),
        "TORCH_HOME": str(downloads / "torch"),
    }
    environment.pop("SRGAN_PROFILE", None)

    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "srgan_lib", *arguments],
            cwd=tmp_path,
            env=environment,
            check=True,
            timeout=900,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    return call


@pytest.mark.parametrize("name", ["course", "paper"])
def test_a_profile_of_the_full_size(srgan, tmp_path, name):
    profile = yaml.safe_load((PROFILES / f"{name}.yaml").read_text())
    profile["steps_per_epoch"] = 1
    profile["crops_per_image"] = 10  # also what batch norm is measured on
    for run in profile["runs"].values():
        run["epochs"] = min(2, run["epochs"] // 10)
    text = yaml.safe_dump(profile, sort_keys=False)  # runs have an order
    (tmp_path / f"small-{name}.yaml").write_text(text)
    options = ("--profile", f"small-{name}.yaml")
    out = srgan("experiments", *options)
    count = len(profile["runs"]) + 1
    shipped = len(shipped_names())  # they are measured along
    assert out.count("measuring ") == 6 * (count + shipped)
    assert f"{count} methods stand in" in out
    for run, settings in profile["runs"].items():
        result = read_result(tmp_path / "runs" / f"small-{name}" / run)
        assert result.config.state == "finished"
        assert result.config.train_images == 3
        assert result.config.parameters.generator == 1_549_462
        assert set(result.metrics) == {
            *(*TEST_SETS, "DIV2K-valid", "Bundled5")
        }
        assert len(result.validation) == settings["epochs"]
        if settings["network"] == "srgan":
            assert result.config.features == "VGG19(5,4)"
            assert result.config.content_weights[0] > 0
    lines = srgan("runs", *options).splitlines()[1:]
    assert len(lines) == count - 1
    assert all(line.endswith("  nothing") for line in lines)
    assert "measuring" not in srgan("experiments", *options)
