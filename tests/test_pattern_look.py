"""The tool that asks an eye for regular patterns, on a set of its own."""

import importlib
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

TOOLS = Path(__file__).parents[1] / "tools"
NAMES = ("srresnet", "srgan", "before")


@pytest.fixture
def look(tmp_path, monkeypatch, one_thread):
    """(tool, folder of a look at two pictures)."""
    monkeypatch.syspath_prepend(TOOLS)
    tool = importlib.import_module("pattern_look")
    monkeypatch.setattr(tool, "RECORDS", tmp_path)
    files = {name: tmp_path / f"{name}.safetensors" for name in NAMES}
    for seed, path in enumerate(files.values()):
        torch.manual_seed(seed)
        ship(path, Generator(tiny_config()))
    write_pictures(tmp_path / "pictures", [(120, 140)] * 2)
    pictures = ImageSet("test", 2, (tmp_path / "pictures",))
    monkeypatch.setitem(data_lists.SETS, "Set14", pictures)
    tool.draw(tmp_path / "look", files)
    return tool, tmp_path / "look"


def test_each_crop_is_shown_by_all_and_the_key_says_which(look):
    _, folder = look
    key = json.loads((folder / "key.json").read_text())
    shown = {(crop["image"], crop["by"]) for crop in key["crops"]}
    assert len(key["crops"]) == len(shown) == 2 * 4
    assert [crop["by"] for crop in key["crops"][:4]] != ["original", *NAMES]
    lrs = {hr.stem: (hr, lr) for hr, lr in data_list("Set14")}
    for k, crop in enumerate(key["crops"], 1):
        hr, lr = map(read_image, lrs[crop["image"]])
        if crop["by"] != "original":
            path = folder.parent / f"{crop['by']}.safetensors"
            hr = inference.upscale(inference.load_generator(path), lr)
        top, left, height, width = crop["box"]
        part = hr[top : top + height, left : left + width]
        part = part.repeat(4, axis=0).repeat(4, axis=1)
        assert np.array_equal(read_image(folder / f"{k:02}.png"), part)


def test_answers_are_joined_with_the_key(look):
    tool, folder = look
    tool.count(folder, "nscnnnnc", "me")
    record = json.loads((folder.parent / "pattern_look.json").read_text())
    found = [crop["pattern"] for crop in record["crops"]]
    assert found == [tool.ANSWERS[letter] for letter in "nscnnnnc"]
    assert record["judge"] == "me" and set(record["weights"]) == set(NAMES)
    with pytest.raises(ValueError, match="zip"):
        tool.count(folder, "nnn", "me")
