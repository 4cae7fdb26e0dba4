"""Several processes: as one, step by step; and what ends one ends all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from test_training import assert_equal_runs, lines
from tiny import write_pictures
from worker import one_step

from srgan_lib import training
from srgan_lib.images import read_image, write_image
from srgan_lib.imresize import imresize

pytestmark = pytest.mark.usefixtures("one_thread")
HERE = Path(__file__).parent
LAUNCH = (
    *(sys.executable, "-m", "torch.distributed.run"),
    *("--standalone", "--nproc-per-node", "2"),
)
NETWORKS = pytest.mark.parametrize("network", ["srresnet", "srgan"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two processes have done what worker.py tells."""
    folder = tmp_path_factory.mktemp("processes")
    for hr in write_pictures(folder / "hr"):
        write_image(folder / "lr" / hr.name, imresize(read_image(hr), 0.25))
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    subprocess.run(
        [*LAUNCH, HERE / "worker.py", folder],
        check=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    return folder


@pytest.fixture(scope="module")
def seen(folder):
    """What each of the two processes saw."""
    return [
        torch.load(folder / f"seen{rank}.pt", weights_only=True)
        for rank in (0, 1)
    ]


@pytest.fixture
def alone(folder, monkeypatch):
    """alone(network): the same step, by one process."""
    pairs = sorted(
        (hr, folder / "lr" / hr.name) for hr in (folder / "hr").iterdir()
    )
    monkeypatch.setattr(training, "native_precision", lambda: "no")
    AcceleratorState._reset_state()  # of another precision, it may be
    yield lambda network: one_step(network, pairs)
    AcceleratorState._reset_state()


# --- one step ------------------------------------------------------------


@NETWORKS
def test_two_processes_share_the_crops_of_one(seen, alone, network):
    crops = [s[network]["crops"] for s in seen]
    together = torch.stack(crops, dim=1).flatten(0, 1)  # they take turns
    assert torch.equal(together, alone(network)["crops"])
    different = {tuple(crop.flatten()[:50].tolist()) for crop in together}
    assert len(different) == 4


@NETWORKS
def test_gradients_of_two_processes_are_those_of_one(seen, alone, network):
    """To 1e-5 of each network's; a tensor alone may nearly cancel out."""
    expected = alone(network)["gradients"]
    for found in (s[network]["gradients"] for s in seen):
        assert found.keys() == expected.keys()
        for part in {key.split(".")[0] for key in expected}:
            keys = [key for key in expected if key.startswith(part)]
            a, b = (
                torch.cat([g[key].flatten() for key in keys])
                for g in (found, expected)
            )
            assert 0 < (a - b).norm() < 1e-5 * b.norm()
        for key, gradient in expected.items():
            error = (found[key] - gradient).norm()
            assert error < 1e-3 * gradient.norm(), key


@NETWORKS
def test_figures_are_means_over_the_processes(seen, alone, network):
    expected = alone(network)["figures"]
    for found in (s[network]["figures"] for s in seen):
        assert found == pytest.approx(expected, rel=1e-5)


# --- whole runs ----------------------------------------------------------


@NETWORKS
def test_only_the_main_process_writes(folder, seen, network):
    assert not (folder / "own1").exists()
    own = folder / "own0" / network
    assert {path.name for path in own.iterdir()} == {
        *("checkpoint.pt", "config.json", "history.jsonl"),
        *("validation.jsonl", "weights-1.safetensors", "weights.safetensors"),
    }
    assert [r["step"] for r in lines(own / "history.jsonl")] == [2, 4, 6]
    assert len(lines(own / "validation.jsonl")) == 2
    assert '"processes": 2' in (own / "config.json").read_text()


@NETWORKS
def test_the_processes_have_learned_the_same(seen, network):
    one, two = (s[f"{network} weights"] for s in seen)
    for key, value in one.items():
        if "running" not in key:  # each has seen other crops
            assert torch.equal(value, two[key]), key


@NETWORKS
def test_a_signal_to_one_stops_all_and_the_run_goes_on(folder, seen, network):
    place = folder / "broken" / network
    for stops in (s[f"{network} stops"] for s in seen):
        assert [signum for signum, _ in stops] == [15, 2]
        assert all(f"saved {place}/checkpoint.pt" in text for _, text in stops)
    assert_equal_runs(folder / "whole" / network, place)


def test_a_batch_that_cannot_be_shared_is_refused(folder, seen):
    for s in seen:
        assert "batch_size 5 cannot be shared" in s["odd batch"]
        assert "by 2 processes" in s["odd batch"]
    assert not (folder / "odd").exists()
