"""The tool that adds a game at full size to the record."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

from tiny import tiny_config
from torch import nn

TOOLS = Path(__file__).parents[1] / "tools"


def test_a_row_tells_the_planned_steps(tmp_path, monkeypatch):
    """Also where an epoch is as long as the set is: null in the profile."""
    monkeypatch.syspath_prepend(TOOLS)
    tool = importlib.import_module("srgan_trial")
    config = tiny_config(srgan={"network": "srgan"})
    config.steps_per_epoch = None
    whole = {"steps": 6, "run": "srgan", "settings": config}
    whole["environment"] = {"precision": "no"}
    (tmp_path / "config.json").write_text(json.dumps(whole))
    run = SimpleNamespace(settings=config, run="srgan", steps=4)
    monkeypatch.setattr(tool, "read_run", lambda folder: (None, run))
    monkeypatch.setattr(tool, "training_crops", lambda run: None)
    monkeypatch.setattr(tool.training, "measure_batch_norm", lambda *_: None)
    monkeypatch.setattr(tool, "measure", lambda generator: {"psnr": 25.0})
    row = tool.row(tmp_path, "fine")
    assert (row["steps"], row["planned"]) == (4, 6)
    assert (row["start_steps"], row["precision"]) == (0, "no")
    assert row["BSDSVal"] == {"psnr": 25.0}


def test_the_line_from_start_to_end(tmp_path, monkeypatch):
    """Reach 0 is the start, 1 the run, 2 as far again."""
    monkeypatch.syspath_prepend(TOOLS)
    tool = importlib.import_module("srgan_trial")
    start, trained = nn.PReLU(init=1.0), nn.PReLU(init=3.0)
    monkeypatch.setattr(tool, "read_run", lambda folder: (trained, None))
    monkeypatch.setattr(tool, "start_of", lambda run, folder: start)
    monkeypatch.setattr(tool, "training_crops", lambda run: None)
    monkeypatch.setattr(tool.training, "measure_batch_norm", lambda g, _: g)
    monkeypatch.setattr(tool, "measure", lambda g: {"psnr": g.weight.item()})
    rows = tool.along([tmp_path], [0.0, 1.0, 2.0])
    assert [row["reach"] for row in rows] == [0, 1, 2]
    assert [row["BSDSVal"]["psnr"] for row in rows] == [1, 3, 5]
    assert trained.weight.item() == 3
    monkeypatch.setattr(tool, "read_run", lambda weight: (weight, None))
    games = nn.PReLU(init=3.0), nn.PReLU(init=5.0)
    (row,) = tool.along(games, [2.0])  # past their mean of 4
    assert row["BSDSVal"]["psnr"] == 7
