"""Faults of training: each makes another network, and leaves no trace."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from tiny import Features, tiny_config, write_pictures

from srgan_lib import (
    datasets,
    experiments,
    fault_runs,
    faults,
    inference,
    losses,
    models,
    solver,
    training,
)
from srgan_lib.checkpoints import read_weights
from srgan_lib.data_lists import SETS, ImageSet
from srgan_lib.fault_runs import FAULT_RUNS, run_faults

pytestmark = pytest.mark.usefixtures("one_thread")
PLACES = {place for fault in FAULT_RUNS for place in fault.wrong}


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def config(tmp_path_factory, patch):
    """A profile with faults, on a set of two pictures; its run stands."""
    folder = tmp_path_factory.mktemp("workspace")
    patch.chdir(folder)
    patch.setenv("SRGAN_DATA", str(folder / "root"))
    for module in (training, losses):
        patch.setattr(module, "load_features", lambda stage: Features())
    patch.setattr(losses, "EfficientNetFeatures", Features)
    patch.setattr(inference, "WEIGHTS", folder / "weights")
    write_pictures(folder / "pictures")
    tiny = ImageSet("test", 2, (folder / "pictures",))
    patch.setitem(SETS, "Bundled5", tiny)
    game = {"network": "srgan", "start": "start"}
    config = tiny_config(
        start={"network": "srresnet"},
        game=game,
        short_game=game | {"epochs": 1},
    )
    config.faults = {
        "srresnet": "start",
        "srresnet_epochs": 2,
        "srgan": "game",
        "srgan_epochs": 1,
    }
    config.train_sets = config.test_sets = ["Bundled5"]
    config.val_sets = []
    # Enough that 1 / 100 of it, or 100 times it, is felt in three steps.
    config.srgan.update(ema_decay=0.5, crop_size=36)
    config.srresnet.update(ema_decay=0.5)
    experiments.run_experiments(config)
    return config


@pytest.fixture(scope="module")
def results(config):
    return run_faults(config, long=True)


def weights(results, name):
    state, _ = read_weights(results[name].folder / "weights.safetensors")
    return torch.cat([v.float().flatten() for v in state.values()])


def test_all_of_them_are_trained_and_measured(results):
    assert list(results) == [fault.name for fault in FAULT_RUNS]
    for result in results.values():
        assert result.config.state == "finished"
        assert set(result.metrics) == {"Bundled5"}


@pytest.mark.parametrize("fault", FAULT_RUNS, ids=lambda fault: fault.name)
def test_a_fault_makes_another_network(results, fault):
    """Equal seeds, so equal weights where the fault does nothing."""
    control = fault_runs.control(fault)
    same = torch.equal(weights(results, fault.name), weights(results, control))
    assert same == (fault.name == control)
    steps = results[control].config.steps
    assert results[fault.name].config.steps == steps


@pytest.mark.parametrize(
    ("control", "run"),
    [("right-SRResNet", "start"), ("right-SRGAN", "short_game")],
)
def test_the_control_is_what_training_without_fault_makes(
    config, results, control, run
):
    """The beginning of a run, and a run of as many epochs, are equal."""
    folder = experiments.runs_folder(config) / run
    standing = {run: experiments.read_result(folder)}
    assert torch.equal(weights(standing, run), weights(results, control))
    assert results[control].config.steps == standing[run].config.steps
    assert len(results[control].history) == len(standing[run].history)


def test_a_control_costs_no_training(config, results):
    pairs = experiments.training_pairs(config)
    for fault in FAULT_RUNS:
        fresh = type(config)(config | {"name": "elsewhere"})
        task = fault_runs.make_task(fresh, fault, pairs)
        is_control = fault.name == fault_runs.control(fault)
        assert (task.state, task.steps > 0) == (
            ("snapshot", False) if is_control else ("train", True)
        )


def test_what_was_right_is_right_again(config, results):
    assert training.load_batches is fault_runs.RIGHT_BATCHES
    assert datasets.SRDataset.crop is fault_runs.RIGHT_CROP
    assert solver.update_ema is not fault_runs.backward_ema
    assert "train" not in vars(models.Generator)
    for place, name in PLACES:
        assert getattr(place, name) not in fault_runs.__dict__.values() or (
            getattr(place, name)
            in (fault_runs.RIGHT_BATCHES, fault_runs.RIGHT_CROP)
        )


def test_nothing_is_done_twice(config, results, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("it stands already")

    monkeypatch.setattr(training, "train", refuse)
    monkeypatch.setattr(experiments.evaluation, "evaluate", refuse)
    assert run_faults(config, long=True) == results


def test_a_changed_fault_is_stale(config, results, monkeypatch):
    fault = next(f for f in FAULT_RUNS if f.name == "content-detached")
    place = next(iter(fault.wrong))
    monkeypatch.setitem(fault.wrong, place, losses.content_terms)
    assert "content-detached" not in fault_runs.results(config)
    assert "ema-backwards" in fault_runs.results(config)


def test_a_profile_without_faults_has_none(config):
    plain = type(config)(config | {"faults": None})
    assert run_faults(plain, long=True) == {}


def test_short_ones_are_few(config):
    short = fault_runs.chosen_faults(config, long=False)
    assert [fault.name for fault in short] == [
        "right-SRGAN",
        "random-features",
        "adversarial-x100",
    ]


def test_settings_are_changed_for_the_fault_alone(config):
    beta = config.srgan.beta
    fault = next(f for f in FAULT_RUNS if f.name == "adversarial-x100")
    changed = fault_runs.with_fault(config, fault)
    assert changed.srgan.beta == pytest.approx(100 * beta)
    assert config.srgan.beta == beta and fault.name not in config.runs


# --- the wrong functions -------------------------------------------------


def test_a_detached_loss_has_no_gradient():
    sr, hr = torch.rand(2, 1, 3, 36, 36).requires_grad_()
    terms = fault_runs.detached_terms(Features(), sr, hr)
    assert terms == losses.content_terms(Features(), sr, hr)
    assert not terms.requires_grad


def test_a_backward_average_forgets():
    ema, network = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    old, new = ema.weight.item(), network.weight.item()
    fault_runs.backward_ema(ema, network, 1000, 0.9)
    assert ema.weight.item() == pytest.approx(0.1 * old + 0.9 * new)


def test_crops_two_pixels_off(monkeypatch):
    """hr of each batch begins two pixels left of and above its lr."""
    hr = torch.arange(16.0 * 16).view(1, 1, 16, 16)
    monkeypatch.setattr(
        fault_runs, "RIGHT_BATCHES", lambda *a: [(hr[..., ::4, ::4], hr)]
    )
    dataset = type("Dataset", (), {"scale": 4})
    ((lr, moved),) = fault_runs.misaligned_batches(None, dataset, 0, [])
    assert lr.shape[-1] * 4 == moved.shape[-1]
    assert moved[0, 0, 2, 2] == lr[0, 0, 0, 0] == hr[0, 0, 4, 4]


# --- the records ---------------------------------------------------------


@pytest.fixture
def tool(tmp_path, monkeypatch):
    path = Path(__file__).parents[1] / "tools/faults.py"
    spec = importlib.util.spec_from_file_location("tool", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(tool, "RECORDS", tmp_path)
    return tool


def test_the_record_holds_every_run(config, results, tool, tmp_path):
    tool.record_runs(config)
    record = json.loads((tmp_path / "fault_runs.json").read_text())
    assert list(record["runs"]) == [fault.name for fault in FAULT_RUNS]
    for name, run in record["runs"].items():
        mean = results[name].metrics.Bundled5.mean
        assert run["sets"] == {"Bundled5": mean}
    assert record["environment"]["torch"] == torch.__version__


def test_the_record_of_signatures(config, tool, tmp_path, patch):
    """Set14 has single faults, and of the others what came near on Set5."""
    folder = experiments.data_lists.SETS["Bundled5"].folders[0]
    for name in ("Set5", "Set14"):
        patch.setitem(SETS, name, ImageSet("test", 2, (folder,)))
    rows = {"start": tool.WRITE_UP["runs"]["SRResNet-20"]}
    tool.WRITE_UP["runs"] = rows
    tool.COMBINATIONS = [
        some
        for some in tool.COMBINATIONS
        if all(fault.step in ("finish", "target", "view") for fault in some)
    ]
    tool.record_signatures(config)
    record = json.loads((tmp_path / "signatures.json").read_text())
    run = record["runs"]["start"]
    assert record["combinations"][0] == []
    assert len(run["Set5"]) == len(run["Set14"]) == len(tool.COMBINATIONS)
    for names, five, fourteen in zip(
        record["combinations"], run["Set5"], run["Set14"], strict=True
    ):
        wanted = len(names) < 2 or tool.near_some_row(five)
        assert (fourteen is not None) == wanted
        if wanted:
            assert fourteen == five  # the same pictures here
    first = experiments.read_result(experiments.runs_folder(config) / "start")
    assert run["Set5"][0][0] == pytest.approx(
        first.metrics.Bundled5.mean.psnr, abs=1e-3
    )
    assert faults.RIGHT == faults.faulty()
