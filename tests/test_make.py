"""The Makefile's promises, in a copy where nothing is installed."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    shutil.which("make") is None, reason="needs make"
)


@pytest.fixture
def make(tmp_path, monkeypatch):
    for name in ("PYTHON", "PROFILE", "SRGAN_DATA", "MAKEFLAGS", "MAKELEVEL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(PROJECT / name, tmp_path)

    def run(*arguments, status=0):
        done = subprocess.run(
            ["make", "-s", *arguments],
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    return run


@pytest.fixture
def python_where(tmp_path):
    """An interpreter that believes what the given line of Python says."""

    def pretend(line):
        site = tmp_path / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(f"import sys; {line}\n")
        script = tmp_path / "python"
        script.write_text(
            f'#!/bin/sh\nPYTHONPATH="{site}" exec "{sys.executable}" "$@"\n'
        )
        script.chmod(0o755)
        return script

    return pretend


NO_TORCH = 'sys.modules["torch"] = None'


def test_help_is_the_default_and_lists_every_target(make):
    text = make()
    assert text == make("help")
    makefile = (PROJECT / "Makefile").read_text().replace("\\\n", " ")
    targets = re.search(r"\.PHONY: (.*)", makefile)
    for target in targets[1].split():
        assert f"make {target} " in text


@pytest.mark.parametrize(
    "given, seen",
    [
        ("photos", "{here}/photos"),
        ("../my photos", "{here}/../my photos"),
        ("/far/away", "/far/away"),
        ("~/photos", "{home}/photos"),
    ],
)
def test_data_root_is_absolute(make, tmp_path, given, seen):
    text = make(
        "--eval=see: ; @echo $$SRGAN_DATA", "see", f"SRGAN_DATA={given}"
    )
    assert text.strip() == seen.format(here=tmp_path, home=Path.home())


def test_profile_reaches_the_chapters(make):
    see = ("--eval=see: ; @echo $$SRGAN_PROFILE", "see")
    assert make(*see).strip() == "quick"
    assert make(*see, "PROFILE=smoke").strip() == "smoke"
    assert "--profile smoke" in make("-n", "book", "PROFILE=smoke")


def test_a_profile_of_your_own_is_found_from_inside_the_book(make, tmp_path):
    text = make("-n", "book", "PROFILE=mine.yaml")
    assert f"--for-book --profile {tmp_path / 'mine.yaml'}" in text


def test_make_data_fetches_every_set_if_none_is_named(make):
    assert "data Set5 Set14 B100 " in make("-n", "data")
    assert "data Set5\n" in make("-n", "data", "SETS=Set5")


def test_environment_with_torch_is_used_as_it_is(make):
    text = make("-n", "book", f"PYTHON={sys.executable}")
    assert f'"{sys.executable}" -m srgan_lib experiments' in text
    assert "venv --clear" not in text


def test_own_torch_is_not_replaced(make):
    text = make("-n", "book", f"PYTHON={sys.executable}")
    assert "-c _build/keep.txt" in text
    assert '"torch", "torchvision"' in text


def test_old_python_is_refused(make, python_where):
    old = python_where(
        f'{NO_TORCH}; sys.version_info = (3, 10); sys.version = "3.10.2 x"'
    )
    text = make("book", f"PYTHON={old}", status=2)
    assert "Python 3.11 or later is needed, and this is 3.10.2" in text


def test_missing_venv_is_explained(make, python_where):
    bare = python_where(f'{NO_TORCH}; sys.modules["ensurepip"] = None')
    text = make("book", f"PYTHON={bare}", status=2)
    assert "sudo apt install python3-venv" in text


def test_missing_python_is_explained(make):
    assert "There is no nopython" in make("book", "PYTHON=nopython", status=2)


def test_environment_of_a_moved_project_is_made_again(make, tmp_path):
    ready = tmp_path / ".venv/ready"
    ready.parent.mkdir()
    ready.write_text("/where/it/was\n")
    make("help")
    assert not ready.exists()


def test_clean_keeps_what_was_expensive(make, tmp_path):
    for name in ("_build", "runs", "data"):
        (tmp_path / name).mkdir()
    make("clean")
    assert not (tmp_path / "_build").exists()
    assert (tmp_path / "runs").exists() and (tmp_path / "data").exists()


def pins():
    lines = (PROJECT / "requirements.txt").read_text().splitlines()
    found = [Requirement(s) for s in lines if s and not s.startswith("#")]
    return {canonicalize_name(r.name): r for r in found}


def test_everything_is_pinned():
    for requirement in pins().values():
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier))


def test_pins_are_within_the_ranges():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())[
        "project"
    ]
    extras = project["optional-dependencies"].values()
    wanted = [
        *project["dependencies"],
        *(r for extra in extras for r in extra),
    ]
    for line in wanted:
        requirement = Requirement(line)
        pin = pins()[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(str(pin.specifier)[2:])


def test_cuda_is_left_to_torch():
    """A pin of CUDA would be wrong everywhere but on this kind of machine."""
    for name in pins():
        assert not name.startswith(("nvidia-", "cuda-", "triton"))


@pytest.mark.skipif(
    not (Path(sys.prefix) / "ready").exists(), reason="not make's own .venv"
)
def test_environment_is_the_pinned_one():
    for name, requirement in pins().items():
        if requirement.marker is None or requirement.marker.evaluate():
            assert requirement.specifier.contains(version(name)), name


def test_packages_of_the_wheel_are_there():
    """Git keeps no empty folder, and a clone would fail to install."""
    tool = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]
    for name in tool["setuptools"]["packages"]:
        assert any((PROJECT / name.replace(".", "/")).glob("*.*")), name
