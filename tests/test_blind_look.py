"""The tool that asks an eye, on a set and with networks of a second."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import ship, tiny_config, write_pictures

from srgan_lib import data_lists, inference
from srgan_lib.data_lists import ImageSet, data_list
from srgan_lib.images import read_image
from srgan_lib.models import Generator

TOOL = Path(__file__).parents[1] / "tools" / "blind_look.py"


@pytest.fixture
def tool(tmp_path, monkeypatch, one_thread):
    spec = importlib.util.spec_from_file_location("blind_look", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inference, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(module, "RECORDS", tmp_path / "records")
    for folder in ("weights", "records"):
        (tmp_path / folder).mkdir()
    for seed, name in enumerate(module.NETWORKS):
        torch.manual_seed(seed)
        path = tmp_path / "weights" / f"{name}.safetensors"
        ship(path, Generator(tiny_config()))
    write_pictures(tmp_path / "pictures", [(120, 140)] * 11)
    pictures = ImageSet("test", 11, (tmp_path / "pictures",))
    monkeypatch.setitem(data_lists.SETS, "Set14", pictures)
    return module


def test_each_crop_is_shown_by_both_and_the_key_says_which(tool, tmp_path):
    look = tmp_path / "look"
    tool.draw(look)
    key = json.loads((look / "key.json").read_text())
    assert len(key) == len({crop["image"] for crop in key}) == 10
    sides = {crop["left"] for crop in key}
    assert sides == set(tool.NETWORKS)  # the order is drawn anew each time
    lrs = {hr.stem: lr for hr, lr in data_list("Set14")}
    for k, crop in enumerate(key, 1):
        shown = read_image(look / f"{k:02}.png")
        top, left, height, width = crop["box"]
        halves = shown[:, : width * 4], shown[:, -width * 4 :]
        for side, half in zip(("left", "right"), halves, strict=True):
            generator = inference.load_generator(crop[side])
            sr = inference.upscale(generator, read_image(lrs[crop["image"]]))
            sr = sr[top : top + height, left : left + width]
            for row in range(4):
                assert np.array_equal(half[row::4, 3::4], sr)


def test_answers_are_joined_with_the_key(tool, tmp_path):
    look = tmp_path / "look"
    tool.draw(look)
    key = json.loads((look / "key.json").read_text())
    tool.count(look, "l" * 9 + "r", "r" * 10, "me")
    record = json.loads((tmp_path / "records/blind_look.json").read_text())
    sharper = [crop["sharper"] for crop in record["crops"]]
    assert sharper == [crop["left"] for crop in key[:9]] + [key[9]["right"]]
    nicer = [crop["nicer"] for crop in record["crops"]]
    assert nicer == [crop["right"] for crop in key]
    assert record["judge"] == "me"
    assert set(record["weights"]) == set(tool.NETWORKS)
    with pytest.raises(ValueError, match="zip"):
        tool.count(look, "l" * 9, "l" * 10, "me")
