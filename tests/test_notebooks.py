"""The chapters as notebooks, run as a reader runs them on Colab."""

import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from book_fixtures import PROJECT, run
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

TOC = yaml.safe_load((PROJECT / "_toc.yml").read_text())
CHAPTERS = [
    Path(chapter["file"]).stem
    for part in TOC["parts"]
    if part.get("numbered")
    for chapter in part["chapters"]
]
# What is left of MyST: a directive, a role, a label.
MYST = re.compile(
    r"^[ >]*(?:`{3,}|:{3,})\{|\{(?:[a-z]+:)?[a-z]+\}`|^\([\w-]+\)=$", re.M
)

# A Python as on Colab: neither the book's tools, nor this checkout.
COLAB = """\
import sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("myst_nb", "sphinx", "jupyter_book", "jupytext"):
            raise ModuleNotFoundError(f"{name} is not on Colab", name=name)


sys.meta_path = [
    finder for finder in sys.meta_path if "ditable" not in str(finder)
]
sys.meta_path.insert(0, Absent())
"""


def read(folder, name):
    return nbformat.read(folder / f"notebooks/{name}.ipynb", as_version=4)


def markdown(notebook):
    cells = (c for c in notebook.cells if c.cell_type == "markdown")
    return "\n\n".join(cell.source for cell in cells)


def without_code(text):
    """A text less its listings and inline code, which may show MyST."""
    text = re.sub(r"^([ >]*```)\w*\n.*?^\1$", "", text, flags=re.M | re.S)
    return re.sub(r"(?<!\})`[^`\n]+`", "", text)


def test_what_is_left_of_myst_is_found():
    for text in (
        "a {doc}`data`",
        "see {cite:p}`x`",
        "```{note}\nx\n```",
        "> :::{tip}\n> x\n> :::",
        "(sec-a)=",
    ):
        assert MYST.search(without_code(text)), text
    assert not MYST.search(without_code("`{doc}` and\n```python\n{x}\n```"))


@pytest.mark.parametrize("name", CHAPTERS)
def test_no_myst_is_left(name, built_book):
    left = MYST.findall(without_code(markdown(read(built_book, name))))
    assert not left


@pytest.fixture
def colab(built_book, tmp_path):
    """(empty folder with nothing but the wheel, where pip installs it)"""
    folder, site = tmp_path / "content", tmp_path / "site"
    folder.mkdir()
    site.mkdir()
    (wheel,) = (built_book / "notebooks").glob("*.whl")
    shutil.copy(wheel, folder)
    (site / "sitecustomize.py").write_text(COLAB)
    return folder, site


@pytest.mark.parametrize("name", CHAPTERS)
def test_notebook_runs(name, built_book, colab, monkeypatch):
    folder, site = colab
    monkeypatch.delenv("SRGAN_DATA", raising=False)
    monkeypatch.delenv("SRGAN_PROFILE", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("PIP_TARGET", str(site))
    monkeypatch.setenv("PIP_NO_DEPS", "1")
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), ":")
    notebook = read(built_book, name)
    first = notebook.cells[0]
    assert 'PROFILE = "quick"' in first.source
    first.source = first.source.replace('"quick"', '"smoke"', 1)
    first.source += "\nimport srgan_lib\nprint(srgan_lib.__file__)"
    NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    said = "".join(o.get("text", "") for o in first.outputs)
    assert "GPU" in said
    assert "When the book was built" in said
    assert f"{site}/srgan_lib" in said
    shown = [
        output.data["text/markdown"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "text/markdown" in output.get("data", ())
        and "text/html" not in output.data
    ]
    assert not [t for t in shown if MYST.search(without_code(t)) or "⟦" in t]


SOURCE = r"""# Page

Intro.
"""
CHAPTER = r"""# Chapter

(sec-here)=
## Section with $x$

See {doc}`page`, {ref}`sec-here`, {numref}`fig-a`, {numref}`tab-a`,
{numref}`code-a` and {eq}`eq-a`; {cite:t}`ledig2017` did it, others
too {cite:p}`wang2004,he2016`. Code `{doc}` stays. The answer is
{glue:text}`answer:.1f`.

$$
x = 1
$$ (eq-a)

::::{admonition} Look
:class: tip
One {math}`y`:

:::{note}
Inner.
:::
::::

:::{dropdown} Solution
```python
1 + 1
```
:::

```{literalinclude} ../srgan_lib/code.py
:pyobject: f
:caption: the code
:name: code-a
```

```{table} A table
:name: tab-a

| a |
|---|
| 1 |
```

```{code-cell} ipython3
from myst_nb import glue
glue("answer", 41.96, display=False)
```

```{code-cell} ipython3
---
tags: [hide-input]
mystnb:
  image:
    alt: a white square
  figure:
    name: fig-a
    caption: White, see {eq}`eq-a`.
---
from PIL import Image
name = "x"
print(f"`{name}` and `{name}`: {{numref}}`tab-a`")
Image.new("L", (4, 4), 255)
```
"""
EXPECTED = r"""# Chapter

## Section with $x$
@
See *Page*, *Section with x*, Fig. 1.1, Table 1.1,
Listing 1.1 and (1.1); Ledig et al. (2017) did it, others
too (Wang et al., 2004; He et al., 2016). Code `{doc}` stays. The answer is
⟦answer:.1f|42.0⟧.
@
$$
x = 1
\tag{1.1}
$$

> **Look**
>
> One $y$:
>
> > **Note**
> >
> > Inner.

<details>
<summary><b>Solution</b></summary>

```python
1 + 1
```

</details>

**Listing 1.1.** the code

```python
def f():
    return 1
```

**Table 1.1.** A table

| a |
|---|
| 1 |
@
glue("answer", 41.96, display=False)
@
# @title Code: Fig. 1.1
from PIL import Image
name = "x"
print(f"`{name}` and `{name}`: Table 1.1")
Image.new("L", (4, 4), 255)
@
**Fig. 1.1.** White, see (1.1).
@
## References"""


@pytest.fixture
def small_book(tiny_book):
    """Two pages, one of them a numbered chapter."""
    tiny_book.write(
        "_toc.yml",
        "format: jb-book\nroot: book/page\nparts:\n"
        "- numbered: 2\n  chapters:\n  - file: book/chapter\n"
        "- chapters:\n  - file: book/references\n",
    )
    tiny_book.page(SOURCE)
    tiny_book.page(CHAPTER, "chapter")
    tiny_book.write("book/references.md", "# R\n\n```{bibliography}\n```\n")
    tiny_book.write(
        "srgan_lib/code.py",
        '__version__ = "0.1.0"\n\n\ndef f():\n    return 1\n',
    )
    return tiny_book


def test_myst_becomes_markdown(small_book):
    status, text = small_book.make()
    assert status == 0, text
    first, *cells = read(small_book.html, "chapter").cells
    prose = re.compile(r'# @title\n_prose\(r"""\n(.*)\n"""\)', re.S)
    got = [prose.sub(r"\1", cell.source) for cell in cells]
    wanted = EXPECTED.split("\n@\n")
    assert got[:-1] == wanted[:-1]
    assert got[-1].startswith(wanted[-1])
    assert got[-1].count("\n* ") == 3
    assert "srgan_lib-0.1.0-py3-none-any.whl'" in first.source
    page = (small_book.html / "book/chapter.html").read_text()
    assert "../notebooks/chapter.ipynb" in page
    assert "../notebooks/srgan_lib-0.1.0-py3-none-any.whl" in page
    assert "colab.research.google.com" not in page
    names = {p.name for p in (small_book.html / "notebooks").glob("[!.]*")}
    assert names == {"chapter.ipynb", "srgan_lib-0.1.0-py3-none-any.whl"}


@pytest.mark.parametrize(
    "address",
    ["https://github.com/Some/book.git", "git@github.com:Some/book.git"],
)
def test_a_remote_on_github_makes_a_colab_button(small_book, address):
    run(["git", "init"], small_book.folder)
    run(["git", "remote", "add", "origin", address], small_book.folder)
    status, text = small_book.make()
    assert status == 0, text
    page = (small_book.html / "book/chapter.html").read_text()
    colab = "https://colab.research.google.com/github/Some/book/blob/gh-pages"
    assert f'href="{colab}/notebooks/chapter.ipynb"' in page
    home = "https://some.github.io/book"
    assert f'href="{home}/book.pdf"' in page
    notebook = read(small_book.html, "chapter")
    wheel = f"{home}/notebooks/srgan_lib-0.1.0-py3-none-any.whl"
    assert repr(wheel) in notebook.cells[0].source
    assert f"[Page]({home}/book/page.html)" in str(notebook.cells[2].source)
