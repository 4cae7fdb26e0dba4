"""The tool that ships weights, on runs of a second."""

import hashlib
import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
from tiny import Features, tiny_config, write_pictures

from srgan_lib import inference, training
from srgan_lib.checkpoints import read_weights
from srgan_lib.data_lists import SETS, ImageSet
from srgan_lib.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")
TOOL = Path(__file__).parents[1] / "tools" / "ship_weights.py"


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("ship_weights", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Trains a run beside its set `Tiny`, where the weights go too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inference, "WEIGHTS", tmp_path / "weights")
    paths = write_pictures(tmp_path / "pictures", ((64, 56), (64, 56)))
    tiny_set = ImageSet("test", 2, (tmp_path / "pictures",))
    monkeypatch.setitem(SETS, "Tiny", tiny_set)
    config = tiny_config(
        first={"network": "srresnet"},
        second={"network": "srresnet", "start": "first"},
        third={"network": "srgan", "start": "second"},
    )
    monkeypatch.setattr(training, "load_features", lambda stage: Features())
    config.name, config.train_sets = "tiny", ["Tiny"]
    lrs = write_pictures(tmp_path / "lr", ((16, 14), (16, 14)))
    pairs = list(zip(paths, lrs, strict=True))

    def train(name="first", start=None, beside=tmp_path, seed=0):
        folder = beside / name
        config.seed = seed
        training.train(config, name, folder, pairs, start=start, key=name)

    return train


def ship(tool, folder, **options):
    folders = folder if isinstance(folder, list) else [folder]
    return tool.ship(
        folders, "mine", ["Tiny"], Features(), inference.WEIGHTS, **options
    )


def test_what_is_shipped_is_loaded_by_its_name(tool, run, tmp_path):
    run()
    path = ship(tool, tmp_path / "first")
    loaded = inference.load_generator("mine").state_dict()
    trained = inference.load_generator(tmp_path / "first").state_dict()
    state, _ = read_weights(path)
    for key, value in trained.items():
        if "running" in key or "tracked" in key:
            continue  # measured by the tool, on crops of its own
        torch.testing.assert_close(loaded[key], value, atol=1e-3, rtol=1e-3)
        if value.is_floating_point():
            assert state[key].dtype == torch.float16


def test_the_provenance_tells_where_weights_come_from(tool, run, tmp_path):
    run()
    path = ship(tool, tmp_path / "first")
    found = json.loads(path.with_suffix(".json").read_text())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found["sha256"] == digest
    assert found["architecture"]["G"]["n_channels"] == 4
    assert found["data"] == {"sets": ["Tiny"], "images": 2}
    assert found["profile"] == "tiny" and found["run"] == "first"
    assert found["steps"] == 6 and found["start"] is None
    assert found["seeds"] == [0] and found["hours"] > 0
    (leg,) = found["legs"]
    assert leg["key"] == leg["run"] == "first" and leg["steps"] == 6
    assert leg["hardware"]["torch"] == torch.__version__
    for code in leg["code"], found["shipped_with"]:
        assert re.fullmatch(r"\d+\.\d+\.\d+, commit \S+", code)
    assert found["judge"] == Features.name
    assert 5 < found["metrics"]["Tiny"]["psnr"] < 50
    assert abs(found["half_precision_costs_db"]["Tiny"]) < 0.01
    card = path.with_suffix(".md").read_text()
    assert digest in card and "| steps | 6 |" in card
    assert f"{found['metrics']['Tiny']['psnr']:.4f}" in card


def test_the_legs_of_a_long_training_are_told_in_order(tool, run, tmp_path):
    run()
    run("second", tmp_path / "first" / "weights.safetensors")
    path = ship(tool, tmp_path / "second")
    found = json.loads(path.with_suffix(".json").read_text())
    assert [leg["run"] for leg in found["legs"]] == ["first", "second"]
    assert found["run"] == "second" and found["start"] is None
    assert found["steps"] == 12
    hours = sum(leg["hours"] for leg in found["legs"])
    assert found["hours"] == pytest.approx(hours)
    (tmp_path / "first").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="first is not the folder of a run"):
        ship(tool, tmp_path / "second")


def test_an_srgan_tells_its_start_and_its_discriminator(tool, run, tmp_path):
    run()
    run("second", tmp_path / "first" / "weights.safetensors")
    run("third", tmp_path / "second" / "weights.safetensors")
    path = ship(tool, tmp_path / "third")
    found = json.loads(path.with_suffix(".json").read_text())
    assert found["network"] == "srgan" and found["steps"] == 6
    assert [leg["run"] for leg in found["legs"]] == ["third"]
    assert (found["start"], found["start_steps"]) == ("second", 12)
    history = training.read_lines(tmp_path / "third" / "history.jsonl")
    for key in ("D(real)", "D(fake)"):
        last = [line[key] for line in history if line["epoch"] == 2]
        mean = sum(last) / len(last)
        assert found["discriminators"][0][key] == pytest.approx(mean)
    card = path.with_suffix(".md").read_text()
    assert "begun from second (12 steps)" in card and "invents" in card


def test_weights_past_the_end_of_a_run_lie_on_its_line(tool, run, tmp_path):
    run()
    with pytest.raises(UserError, match="began from no other run"):
        ship(tool, tmp_path / "first", reach=20)
    run("second", tmp_path / "first" / "weights.safetensors")
    path = ship(tool, tmp_path / "second", reach=20)
    first, second, found = (
        dict(inference.load_generator(name).named_parameters())
        for name in (tmp_path / "first", tmp_path / "second", "mine")
    )
    for key, value in found.items():
        expected = first[key] + 20 * (second[key] - first[key])
        torch.testing.assert_close(value, expected, atol=1e-3, rtol=1e-3)
    assert any((second[k] - first[k]).abs().max() > 0.001 for k in found)
    assert json.loads(path.with_suffix(".json").read_text())["reach"] == 20
    card = path.with_suffix(".md").read_text()
    assert "| reach | 20 of the way from start to end |" in card
    path = ship(tool, tmp_path / "second")
    assert "| reach |" not in path.with_suffix(".md").read_text()


def test_the_mean_of_two_games_from_one_start(tool, run, tmp_path):
    places = tmp_path / "a", tmp_path / "b"
    for seed, place in enumerate(places):
        run(beside=place)
        start = places[0] / "first" / "weights.safetensors"
        run("second", start, beside=place, seed=seed)
    path = ship(tool, [place / "second" for place in places], reach=20)
    found = json.loads(path.with_suffix(".json").read_text())
    assert found["mean_of"] == 2 and found["seeds"] == [0, 1]
    assert len(found["legs"]) == 4 and found["steps"] == 24
    assert len(found["discriminators"]) == 2
    assert "psnr_with_running_statistics" not in found
    card = path.with_suffix(".md").read_text()
    assert "mean of 2 games" in card
    assert "| reach | 20 of the way from start to mean |" in card
    start, a, b, mean = (
        dict(inference.load_generator(name).named_parameters())
        for name in (
            places[1] / "first",
            *(place / "second" for place in places),
            "mine",
        )
    )
    assert any((a[key] - b[key]).abs().max() > 0.001 for key in a)
    for key, value in mean.items():
        expected = start[key] + 20 * ((a[key] + b[key]) / 2 - start[key])
        torch.testing.assert_close(value, expected, atol=2e-3, rtol=2e-3)


def test_the_mean_of_three_weighs_each_alike(tool):
    networks = [torch.nn.PReLU(init=value) for value in (1.0, 2.0, 6.0)]
    with torch.no_grad():
        assert tool.mean_network(networks).weight.item() == pytest.approx(3)
    assert [n.weight.item() for n in networks] == [1, 2, 6]


def test_a_run_that_still_trains_is_shipped_as_far_as_it_is(
    tool, run, tmp_path
):
    run()
    finished = inference.load_generator(tmp_path / "first").state_dict()
    (tmp_path / "first" / "weights.safetensors").unlink()
    path = ship(tool, tmp_path / "first")
    assert json.loads(path.with_suffix(".json").read_text())["steps"] == 6
    found = inference.load_generator("mine").state_dict()
    for key, value in finished.items():
        if "running" not in key and "num" not in key:
            torch.testing.assert_close(found[key], value.half().float())


def test_the_card_can_say_what_running_statistics_would_give(
    tool, run, tmp_path
):
    run()
    trained, description = tool.read_run(tmp_path / "first")
    measured = inference.load_generator(tmp_path / "first")
    mean = "residual_blocks.0.body.0.1.running_mean"
    assert not torch.equal(
        trained.state_dict()[mean], measured.state_dict()[mean]
    )
    path = ship(tool, tmp_path / "first")
    found = json.loads(path.with_suffix(".json").read_text())
    pairs = tool.data_lists.data_list("Tiny", 4)
    expected = training.validate(trained, pairs)
    assert expected != training.validate(measured, pairs)
    assert found["psnr_with_running_statistics"] == {"Tiny": expected}
    crops = tool.training_crops(description)
    measured = training.measure_batch_norm(trained, crops).state_dict()[mean]
    shipped = inference.load_generator("mine").state_dict()[mean]
    torch.testing.assert_close(shipped, measured.half().float())


def test_weights_that_half_precision_harms_are_not_shipped(
    tool, run, tmp_path, monkeypatch
):
    run()
    spoiled = inference.load_generator(tmp_path / "first")
    spoiled.tail[0].bias.data.add_(1)
    monkeypatch.setattr(tool, "in_half_precision", lambda g: spoiled)
    with pytest.raises(UserError, match=r"Half precision costs .* on Tiny"):
        ship(tool, tmp_path / "first")
    assert not inference.WEIGHTS.exists()
