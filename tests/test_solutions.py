"""Every chapter beside finished runs, and every solution after its cells."""

import re
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from srgan_lib.config import load_profile
from srgan_lib.experiments import run_experiments

pytestmark = pytest.mark.slow
BOOK = Path(__file__).parents[1] / "book"
DROPDOWN = re.compile(r"^(:{3,})\{dropdown\}.*?^\1\s*$", re.M | re.S)
PYTHON = re.compile(r"^```python\n(.*?)^```\s*$", re.M | re.S)
CHAPTERS = sorted(
    path for path in BOOK.glob("*.md") if "kernelspec" in path.read_text()
)


def solutions(text):
    """The Python blocks of a page's dropdowns, in order."""
    return [
        code
        for dropdown in DROPDOWN.finditer(text)
        for code in PYTHON.findall(dropdown[0])
    ]


@pytest.fixture(scope="module")
def folder_with_runs(tmp_path_factory):
    """Nothing but the smoke runs, and no data sets."""
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("SRGAN_DATA", raising=False)
        run_experiments(load_profile("smoke"))
    return folder


def test_solutions_are_found():
    text = ":::{dropdown} Solution\nSo:\n```python\n1 / 0\n```\n:::\n"
    assert solutions("```python\nno\n```\n" + text) == ["1 / 0\n"]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_and_solutions_run(path, folder_with_runs, monkeypatch):
    monkeypatch.delenv("SRGAN_DATA", raising=False)
    monkeypatch.setenv("SRGAN_PROFILE", "smoke")
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), ":")
    text = path.read_text()
    notebook = jupytext.reads(text, fmt="md:myst")
    notebook.cells += map(nbformat.v4.new_code_cell, solutions(text))
    NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder_with_runs)}},
    ).execute()
