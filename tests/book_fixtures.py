"""Books to test with: a tiny one, and the real one with the smoke profile."""

import functools
import http.server
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock

PROJECT = Path(__file__).parents[1]

HEADER = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
    format_version: 0.13
    jupytext_version: 1.19.6
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---
"""


def load(path):
    """The module in a file that belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def environment(**changes):
    """This process's variables, less those that `make` reads."""
    ours = {"PYTHON", "PROFILE", "SRGAN_DATA", "MAKEFLAGS", "MAKELEVEL"}
    kept = {k: v for k, v in os.environ.items() if k not in ours}
    return kept | {"COLUMNS": "200"} | changes


def run(command, folder, **changes):
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(**changes),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def call_ready(folder):
    """Tell make that the environment of these tests is complete."""
    stamp = folder / f"_build/.ready{sys.executable.replace('/', '-')}"
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text("")


class TinyBook:
    """One chapter under the real Makefile, configuration and extensions."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("Makefile", "pyproject.toml", "_config.yml"):
            shutil.copy(PROJECT / name, folder)
        for name in ("book/_ext", "book/_static"):
            shutil.copytree(PROJECT / name, folder / name)
        shutil.copy(PROJECT / "book/references.bib", folder / "book")
        self.write("srgan_lib/__init__.py", '__version__ = "0.1.0"')
        self.write("srgan_lib/__main__.py", "")
        for name in ("photos", "profiles", "records", "weights"):
            self.write(f"srgan_lib/{name}/a.json", "1")
        self.write("README.md", "")
        self.write("LICENSE", "")
        self.write("NOTICE", "")
        self.write("runs/quick/run/metrics.json", "1")
        self.write("photographs/a.png", "1")
        self.write("_toc.yml", "format: jb-book\nroot: book/page\n")
        self.page("# Page\n")
        call_ready(folder)

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def page(self, text, name="page"):
        self.write(f"book/{name}.md", HEADER + "\n" + text)

    def make(self, *arguments):
        """(exit status, what was printed)"""
        command = ["make", "book", f"PYTHON={sys.executable}", *arguments]
        done = run(command, self.folder, SRGAN_DATA="photographs")
        return done.returncode, done.stdout

    @property
    def html(self):
        return self.folder / "_build/html"


@pytest.fixture
def tiny_book(tmp_path):
    return TinyBook(tmp_path)


@pytest.fixture(scope="session")
def built_book(tmp_path_factory):
    """The folder of the real book's pages, built with the smoke profile.

    SRGAN_HTML names a book that is already built, to save the time.
    """
    if "SRGAN_HTML" in os.environ:
        return Path(os.environ["SRGAN_HTML"]).resolve()
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # one book for all workers
    folder = shared / "project"
    with FileLock(shared / "project.lock"):
        if not folder.exists():
            keep = shutil.ignore_patterns(
                *(".*", "_build", "runs", "data", "__pycache__", "*.egg-info")
            )
            shutil.copytree(PROJECT, folder, ignore=keep)
            call_ready(folder)
            make = ["make", "book", f"PYTHON={sys.executable}"]
            done = run(
                [*make, "PROFILE=smoke"], folder, PYTHONPATH=str(folder)
            )
            said = done.stdout[-5000:] if done.returncode else ""
            (folder / "failure").write_text(said)
    failure = (folder / "failure").read_text()
    assert not failure, failure
    return folder / "_build/html"


# Playwright's event loop runs until it is closed, and one thread has one.
@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--disable-background-networking"],
        )
        yield opened
        opened.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve():
    """serve(folder) -> the address where its pages can be had."""
    servers = []

    def start(folder):
        handler = functools.partial(Quiet, directory=folder)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
