"""The tool that adds a game at full size to the record."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

from tiny import tiny_config

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
