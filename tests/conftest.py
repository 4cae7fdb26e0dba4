"""What several test modules share."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def benchmark():
    """benchmark("Set5/HR", ...) -> the folder in SRGAN_DATA, or a skip.

    The oracles of imresize and the metrics are other people's images, so
    they do not come with the project: SRGAN_DATA says where they are.
    """

    def folder(name):
        root = os.environ.get("SRGAN_DATA", "")
        if not os.path.isabs(root):
            pytest.skip("SRGAN_DATA does not name an absolute folder")
        if not (Path(root) / name).is_dir():
            pytest.skip(f"SRGAN_DATA has no folder {name}")
        return Path(root) / name

    return folder
