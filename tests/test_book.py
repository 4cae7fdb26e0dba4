"""The book's machinery, and what every chapter must keep to."""

import ast
import importlib.metadata
import json
import re
import sys
import time
import tomllib
from types import SimpleNamespace

import jupytext
import pytest
import yaml
from book_fixtures import PROJECT, load, run
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pybtex.database import parse_file

CHAPTERS = sorted((PROJECT / "book").glob("*.md"))

COUNT = """# Page

```{code-cell} ipython3
with open("../count", "a") as file:
    file.write("x")
```
"""

PICTURE = """# Page

```{{code-cell}} ipython3
from PIL import Image
Image.new("L", (4, 4), {gray})
```
"""


fresh = load(PROJECT / "book/_ext/fresh.py")
labels = load(PROJECT / "book/_ext/labels.py")
twins = load(PROJECT / "book/_ext/twins.py")


# --- What makes a page stale


@pytest.fixture
def project(tmp_path):
    for name in (
        "srgan_lib/models.py",
        "srgan_lib/profiles/quick.yaml",
        "srgan_lib/weights/srgan.safetensors",
        "srgan_lib/__pycache__/models.pyc",
        "runs/quick/one/metrics.json",
        "runs/quick/one/checkpoint.pt",
        "runs/smoke/one/metrics.json",
        "data/Set5/baby.png",
        "data/lists/Set5.csv",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old")
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "srgan_lib/models.py",
        "srgan_lib/profiles/quick.yaml",
        "srgan_lib/weights/srgan.safetensors",
        "srgan_lib/new.py",
        "runs/quick/one/metrics.json",
        "runs/quick/two/metrics.json",
        "data/Set5/baby.png",
        "data/Set14/baboon.png",
    ],
)
def test_state_changes_with(project, name):
    before = fresh.state(project, {})
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).write_text("new!")
    assert fresh.state(project, {}) != before


@pytest.mark.parametrize(
    "name",
    [
        "srgan_lib/__pycache__/models.pyc",
        "runs/quick/one/checkpoint.pt",
        "runs/smoke/one/metrics.json",
        "data/lists/Set5.csv",
    ],
)
def test_state_does_not_change_with(project, name):
    before = fresh.state(project, {})
    (project / name).write_text("new!")
    assert fresh.state(project, {}) == before


def test_state_changes_with_a_removed_file(project):
    before = fresh.state(project, {})
    (project / "data/Set5/baby.png").unlink()
    assert fresh.state(project, {}) != before


def test_state_changes_with_profile_and_data_root(project):
    states = {
        fresh.state(project, {}),
        fresh.state(project, {"SRGAN_PROFILE": "smoke"}),
        fresh.state(project, {"SRGAN_DATA": str(project / "data/Set5")}),
    }
    assert len(states) == 3
    assert fresh.state(project, {"SRGAN_PROFILE": ""}) in states
    file = {"SRGAN_PROFILE": "/far/away/quick.yaml"}
    assert fresh.state(project, file) in states


def test_state_changes_with_a_package(project, monkeypatch):
    before = fresh.state(project, {})
    found = list(importlib.metadata.distributions())
    found.append(SimpleNamespace(name="new", version="1"))
    monkeypatch.setattr(fresh, "distributions", lambda: found)
    assert fresh.state(project, {}) != before


def test_state_is_cheap():
    start = time.perf_counter()
    fresh.state(PROJECT)
    assert time.perf_counter() - start < 3  # 0.3 s when nothing else runs


# --- Building


def test_failing_cell_fails_the_build_every_time(tiny_book):
    tiny_book.page("# Page\n\n```{code-cell} ipython3\n1 / 0\n```\n")
    for _ in range(2):
        status, text = tiny_book.make()
        assert status != 0
        assert "ZeroDivisionError" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    ["{numref}`nowhere`", "{cite:t}`nobody2000`", "{glue:text}`nothing`"],
)
def test_warning_fails_the_build_every_time(tiny_book, fault):
    tiny_book.page(f"# Page\n\n{fault}\n")
    for _ in range(2):
        status, text = tiny_book.make()
        assert status != 0
        assert "WARNING" in text


@pytest.mark.slow
def test_pages_execute_when_and_only_when_they_must(tiny_book):
    def executions(*arguments):
        count = tiny_book.folder / "count"
        count.write_text("")
        status, text = tiny_book.make(*arguments)
        assert status == 0, text
        return len(count.read_text())

    tiny_book.page(COUNT)
    assert executions() == 1
    start = time.perf_counter()
    assert executions() == 0
    assert time.perf_counter() - start < 30
    for name in (
        "srgan_lib/models.py",
        "runs/quick/run/metrics.json",
        "photographs/a.png",
    ):
        tiny_book.write(name, "changed")
        assert executions() == 1, name
        assert executions() == 0, name
    assert executions("PROFILE=smoke") == 1
    assert executions("PROFILE=quick") == 0  # its cache was kept
    tiny_book.page(COUNT + "\nMore prose.\n")
    assert executions() == 0
    assert "More prose" in (tiny_book.html / "book/page.html").read_text()


@pytest.mark.slow
def test_a_number_quoted_from_another_page_follows_it(tiny_book):
    toc = "format: jb-book\nroot: book/page\nchapters:\n- file: book/source\n"
    tiny_book.write("_toc.yml", toc)
    tiny_book.page("# Page\n\nIt is {glue:text}`source.md::answer:d`.\n")
    for answer in ("41", "42"):
        tiny_book.page(
            "# Source\n\n```{code-cell} ipython3\n"
            "from myst_nb import glue\n"
            f'glue("answer", {answer}, display=False)\n```\n',
            name="source",
        )
        status, text = tiny_book.make()
        assert status == 0, text
        page = (tiny_book.html / "book/page.html").read_text()
        assert f">{answer}</span>" in page


@pytest.mark.slow
def test_changed_style_sheet_is_copied(tiny_book):
    assert tiny_book.make()[0] == 0
    tiny_book.write("book/_static/sr.css", "/* changed */")
    assert tiny_book.make()[0] == 0
    copied = tiny_book.html / "_static/sr.css"
    assert copied.read_text() == "/* changed */"


@pytest.mark.slow
def test_no_picture_stays_that_no_page_shows(tiny_book):
    """Nor goes one that a page shows, if the page is not built again."""
    for gray in (0, 255, 255):
        tiny_book.page(PICTURE.format(gray=gray))
        status, text = tiny_book.make()
        assert status == 0, text
        (picture,) = (tiny_book.html / "_images").iterdir()
        page = (tiny_book.html / "book/page.html").read_text()
        assert f"../_images/{picture.name}" in page


def test_one_chapter_is_built(tiny_book):
    tiny_book.write("book/references.md", "# References\n")
    tiny_book.page("# The only one\n")
    status, text = tiny_book.make("CHAPTER=page")
    assert status == 0, text
    built = tiny_book.folder / "_build/chapter/_build/html/book/page.html"
    assert text.endswith(f"Open {built}\n")
    assert "The only one" in built.read_text()
    assert not tiny_book.html.exists()


def test_unknown_chapter_is_explained(tiny_book):
    tiny_book.page("# Another\n", name="another")
    status, text = tiny_book.make("CHAPTER=pages")
    assert status != 0
    said = "There is no chapter pages; CHAPTER is one of: another page\n"
    assert said in text


# --- Notebooks


def test_drive_keeps_what_a_notebook_makes(tmp_path):
    """By its first cell, with a Drive that is a folder here."""
    stub = tmp_path / "site/google/colab/drive.py"
    stub.parent.mkdir(parents=True)
    stub.write_text("import os\n\n\ndef mount(place):\n    os.mkdir(place)\n")
    cell = twins.SETUP.format(library="no.whl", takes="")
    cell = cell.replace("KEEP_ON_DRIVE = False", "KEEP_ON_DRIVE = True")
    cell = cell.replace("/content/drive", str(tmp_path / "drive"))
    cell += "from srgan_lib.config import workspace\n"
    cell += "print(os.getcwd(), workspace(), sep='\\n')\n"
    site = str(tmp_path / "site")
    done = run([sys.executable, "-c", cell], tmp_path, PYTHONPATH=site)
    assert done.returncode == 0, done.stdout
    kept = str(tmp_path / "drive/MyDrive/srgan-book")
    assert done.stdout.splitlines()[-2:] == [kept, kept]


# --- Chapters


def cells(path):
    return jupytext.read(path).cells if has_code(path) else []


def has_code(path):
    return "{code-cell}" in path.read_text()


def prose(path):
    """The text of a page, without fenced blocks and inline code."""
    text = re.sub(r"^(`{3,}).*?^\1", "", path.read_text(), flags=re.M | re.S)
    return re.sub(r"`[^`]*`", "", text)


def figures(path):
    for cell in cells(path):
        options = cell.metadata.get("mystnb", {})
        if "figure" in options or "image" in options:
            yield options


def in_toc(node):
    """Every file named in _toc.yml."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("root", "file"):
                yield value
            else:
                yield from in_toc(value)
    elif isinstance(node, list):
        for value in node:
            yield from in_toc(value)


def test_toc_and_chapters_agree():
    toc = yaml.safe_load((PROJECT / "_toc.yml").read_text())
    assert sorted(in_toc(toc)) == [f"book/{path.stem}" for path in CHAPTERS]


NUMBERED = [
    chapter["file"].rpartition("/")[2]
    for part in yaml.safe_load((PROJECT / "_toc.yml").read_text())["parts"]
    if part.get("numbered")
    for chapter in part["chapters"]
]


def test_the_first_chapter_names_all_others():
    first, *others = NUMBERED
    text = (PROJECT / "book" / f"{first}.md").read_text()
    assert others
    assert [n for n in others if f"| {{doc}}`{n}` |" not in text] == []


SOLUTION = re.compile(r"^(:{3,})\{dropdown\} Solution.*?^\1$", re.M | re.S)


@pytest.mark.parametrize("name", NUMBERED)
def test_chapters_have_one_shape(name):
    text = (PROJECT / "book" / f"{name}.md").read_text()
    parts = ["What you will learn", "What to remember", "## Exercises"]
    places = [text.find(part) for part in parts]
    assert -1 not in places and places == sorted(places)
    exercises = text[places[-1] :]
    for kind in ("predict", "measure", "change the code"):
        assert f"Exercise ({kind})" in exercises
    solutions = [found[0] for found in SOLUTION.finditer(exercises)]
    assert len(solutions) == exercises.count("{admonition} Exercise")
    for solution in solutions:
        assert "\n```python\n" in solution


every_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)


@every_chapter
def test_header_is_complete(path):
    """Without all of it myst-nb reads a notebook as plain Markdown."""
    if has_code(path):
        header = yaml.safe_load(path.read_text().split("---\n")[1])
        text = header["jupytext"]["text_representation"]
        assert text["format_name"] == "myst"
        assert header["kernelspec"]["name"] == "python3"


@every_chapter
def test_code_fits_the_page(path):
    for cell in cells(path):
        unseen = {"remove-input", "remove-cell"} & {
            *cell.metadata.get("tags", [])
        }
        if cell.cell_type == "code" and not unseen:
            long = [s for s in cell.source.splitlines() if len(s) > 79]
            assert not long


@every_chapter
def test_figures_have_name_caption_and_alt_text(path):
    for options in figures(path):
        assert options["figure"]["name"].startswith("fig-")
        assert len(options["figure"]["caption"]) > 20
        assert len(options.get("image", {}).get("alt", "in the HTML")) > 10


def test_figure_names_are_unique():
    names = [o["figure"]["name"] for p in CHAPTERS for o in figures(p)]
    assert len(names) == len(set(names))


@every_chapter
def test_numbers_of_figures_and_chapters_are_not_typed(path):
    """Those of this book come from {numref}; a paper's are lower case."""
    typed = r"\b(Figure|Fig\.|Table|Chapter|Section|Listing) \d"
    assert not re.search(typed, prose(path))


# Names of tables that a page puts together: what comes of them.
PUT_TOGETHER = {
    "tab-eval-{key.replace('_', '-')}": [
        "tab-eval-psnr",
        "tab-eval-ssim",
        "tab-eval-ssim-daala",
        "tab-eval-perceptual",
        "tab-eval-spectrum",
    ],
    "tab-report-attempts-{stage}": [
        "tab-report-attempts-srresnet",
        "tab-report-attempts-srgan",
    ],
}


def tables(text):
    """The names of all numbered tables of a page."""
    yield from re.findall(r'"(tab-[\w-]+)"', text)
    yield from re.findall(r":name: (tab-[\w-]+)", text)
    for name in re.findall(r'f"(tab-[^"]*\{[^"]*)"', text):
        yield from PUT_TOGETHER[name]


@every_chapter
def test_every_table_is_cited(path):
    """By {numref}, on its own page or on another."""
    book = "\n".join(page.read_text() for page in CHAPTERS)
    cited = set(re.findall(r"\{numref\}+`(?:[^`<]*<)?([\w-]+)", book))
    assert {*tables(path.read_text())} <= cited


def test_every_module_is_in_the_reference():
    text = (PROJECT / "book/api.md").read_text()
    listed = re.findall(r"^.. automodule:: srgan_lib\.(\w+)$", text, re.M)
    modules = {p.stem for p in (PROJECT / "srgan_lib").glob("[!_]*.py")}
    assert sorted(listed) == sorted(modules)


def imports(code):
    """The packages that code imports, wherever in it."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def test_what_is_imported_is_declared():
    """Then a notebook needs nothing but the wheel, wherever it runs."""
    code = [p.read_text() for p in (PROJECT / "srgan_lib").glob("*.py")]
    for path in CHAPTERS:
        code += [c.source for c in cells(path) if c.cell_type == "code"]
    imported = {name for source in code for name in imports(source)}
    # Notebooks go without myst_nb, only Colab has google, and losses.py says
    # what to do where h5py is missing.
    imported -= {"srgan_lib", "myst_nb", "google", "h5py"}
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    declared = {
        canonicalize_name(Requirement(line).name)
        for line in project["project"]["dependencies"]
    }
    owners = importlib.metadata.packages_distributions()
    for name in imported - sys.stdlib_module_names:
        assert declared & {*map(canonicalize_name, owners[name])}, name


# --- The list of references


def test_references_are_labeled_as_the_text_cites_them():
    entries = parse_file(PROJECT / "book/references.bib").entries
    found = {key: labels.label(entry) for key, entry in entries.items()}
    assert found["keys1981"] == "Keys, 1981"
    assert found["blau2018"] == "Blau and Michaeli, 2018"
    assert found["ledig2017"] == "Ledig et al., 2017"
    assert found["vanderwalt2014"] == "van der Walt et al., 2014"
    assert len(set(found.values())) == len(found)  # no two alike


def test_references_say_where_they_are():
    """By DOI or on arXiv, but for standards, data sheets and programs."""
    entries = parse_file(PROJECT / "book/references.bib").entries
    others = {
        key: entry.fields
        for key, entry in entries.items()
        if "doi" not in entry.fields and "eprint" not in entry.fields
    }
    programs = {"daala", "tensorlayer", "vinodababu2020"}
    sheets = {f"nvidia_{card}" for card in ("t4", "l4", "a100", "h200")}
    assert others.keys() == {"bt500", "bt601", *sheets, *programs}
    assert all("url" in fields for fields in others.values())


# --- Published figures


def test_published_figures_are_whole_and_as_the_text_says():
    """Chapter 9 tells in words how the opinions are ordered."""
    path = PROJECT / "srgan_lib/records/published.json"
    paper = json.loads(path.read_text())
    entry = parse_file(PROJECT / "book/references.bib").entries[paper["cite"]]
    assert labels.label(entry) == "Ledig et al., 2017"
    figures = paper["figures"]
    for name in ("bicubic", *paper["training"]):
        assert list(figures[name]) == paper["sets"]
    for sets in figures.values():
        for found in sets.values():
            assert list(found) == ["psnr", "ssim_daala", "mos"]
            assert 25 < found["psnr"] < 33
            assert 0.6 < found["ssim_daala"] < 1 <= found["mos"] <= 5
    opinions = {
        s: {n: f[s]["mos"] for n, f in figures.items() if s in f}
        for s in paper["sets"]
    }
    best = {s: max(found, key=found.get) for s, found in opinions.items()}
    for test_set, name in best.items():
        known = [
            f[test_set]["psnr"] for f in figures.values() if test_set in f
        ]
        assert figures[name][test_set]["psnr"] < max(known)
    third, second, first = sorted(opinions["Set5"].values())[-3:]
    assert round(first - second, 2) == 0.01 < round(second - third, 2)
    assert best["Set14"] != best["Set5"]
