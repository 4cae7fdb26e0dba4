"""What several test modules share."""

import os
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from book_fixtures import browser, built_book, serve, tiny_book  # noqa: F401

# The tests compare bit for bit, with networks of their own on the CPU; so a
# GPU, where there is one, is hidden from them before it is first asked for.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
if WORKERS > 1:  # so many share the processors, and so do what they start
    torch.set_num_threads(max(1, torch.get_num_threads() // WORKERS))
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))


@pytest.fixture(autouse=True, scope="module")
def own_precision():
    """Accelerate keeps one precision for a process; here, for a module."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


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


@pytest.fixture
def one_thread():
    """Tiny networks on one thread: more only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
