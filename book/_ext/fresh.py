"""Never show stale output.

The notebook cache knows a page by its code cells alone. Here the cache gets a
folder named after everything else that a page can see. When any of it
changes, the folder is new and empty; and because the folder's name is part of
the configuration, Sphinx reads every page again.
"""

import hashlib
import os
import shutil
import sys
from importlib.metadata import distributions
from pathlib import Path

from sphinx.application import ENV_PICKLE_FILENAME

KEEP = 4  # caches, so that going back to another profile costs nothing


def contents(folder, skip=()):
    """Name and digest of each file below a folder, in order."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not {*path.parts} & {"__pycache__", *skip}:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            yield f"{path.relative_to(folder)} {digest}"


def listing(folder, skip=()):
    """Name, size and time of each file: photographs are too many to read."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - set(skip))
        for name in sorted(files):
            stat = os.stat(os.path.join(root, name))
            yield f"{root}/{name} {stat.st_size} {stat.st_mtime_ns}"


def state(project, environ=os.environ):
    """A name for all that pages can see besides their own code."""
    profile = Path(environ.get("SRGAN_PROFILE") or "quick").stem
    data = environ.get("SRGAN_DATA") or project / "data"
    digest = hashlib.sha256()
    for line in (
        f"Python {sys.version} {profile} {data}",
        *sorted(f"{d.name} {d.version}" for d in distributions()),
        *contents(project / "srgan_lib"),
        # A checkpoint is the means to go on, and no result.
        *contents(project / "runs" / profile, skip={"checkpoint.pt"}),
        # The lists are made from what else lies there.
        *listing(data, skip={"lists"}),
    ):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()[:16]


def name_cache(app, config):
    caches = Path(app.outdir).parent / ".jupyter_cache"
    cache = caches / state(Path(app.srcdir))
    cache.mkdir(parents=True, exist_ok=True)
    os.utime(cache)
    newest = sorted(caches.iterdir(), key=os.path.getmtime, reverse=True)
    for old in newest[KEEP:]:
        shutil.rmtree(old, ignore_errors=True)
    config.nb_execution_cache_path = str(cache)


def name_looks(app, config):
    """Sphinx copies a changed style sheet only when it writes a page."""
    config.looks = list(contents(Path(app.srcdir) / "book/_static"))


def note_reading(app, env, docnames):
    app.pages_were_read = bool(docnames)


def write_every_page(app, env):
    """A page may quote another's numbers, so write all when one was read."""
    return sorted(env.found_docs) if app.pages_were_read else []


def forget_warned(app, exception):
    """A page with a warning is read again, or the next build looks green."""
    if app._warncount:
        pages = Path(app.doctreedir) / ENV_PICKLE_FILENAME
        pages.unlink(missing_ok=True)


def setup(app):
    app.add_config_value("looks", [], "html")
    app.connect("config-inited", name_cache, priority=0)
    app.connect("config-inited", name_looks)
    app.connect("env-before-read-docs", note_reading)
    app.connect("env-updated", write_every_page)
    app.connect("build-finished", forget_warned)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
