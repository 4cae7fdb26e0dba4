"""A Jupyter notebook of every chapter, for Colab, made as the book is built.

The notebooks lie in notebooks/ beside the pages. Their first cell installs the
library; what only Sphinx understands, directives and roles, is turned into
plain Markdown, with the numbers and titles that the book has.
"""

import json
import os
import posixpath
import re
import subprocess
from base64 import b64encode
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import nbformat
import yaml
from docutils import nodes
from myst_nb.core.read import read_myst_markdown_notebook
from myst_nb.core.variables import format_plain_text
from myst_nb.sphinx_ import NbMetadataCollector
from pybtex.plugin import find_plugin
from sphinx.directives.code import LiteralIncludeReader
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
FOLDER = "notebooks"
WHEEL = f"srgan_lib-{version('srgan-lib')}-py3-none-any.whl"
COLAB = "https://colab.research.google.com/github"
BRANCH = "gh-pages"  # where .github/workflows/publish.yml puts the pages

FENCE = re.compile(r"^( *)(`{3,}|:{3,}|~{3,})(?:\{([\w:-]+)\} *(.*)|(.*))$")
OPTION = re.compile(r"^:([\w-]+): *(.*)$")
ROLE = re.compile(r"\{{1,2}([a-z:]+)\}{1,2}`([^`]+)`")
# In code, {name}`...` may be a part of an f-string that has nothing to do
# with Sphinx.
IN_CODE = re.compile(
    r"\{{1,2}(doc|ref|numref|eq|term|cite:[pt])\}{1,2}`([^`{}]+)`"
)
CODE_OR_ROLE = re.compile(rf"{ROLE.pattern}|(`+)(?!`).*?(?<!`)\3(?!`)", re.S)
EXPLICIT = re.compile(r"^(.*?)\s*<([^<>]+)>$", re.S)  # text <target>
LABEL = re.compile(r"^\([\w-]+\)=\n", re.M)
EQUATION = re.compile(r"^\$\$ *\(([\w-]+)\)", re.M)
GLUE = re.compile(r"\{glue:text\}`(?:[\w.]+::)?(\w+):?([^`]*)`")
HIDDEN = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
BOXES = {"note", "tip", "hint", "important", "warning", "caution", "seealso"}

SETUP = """\
# @title Run this first: it installs the library
PROFILE = "quick"  # @param ["quick", "smoke", "course"]
KEEP_ON_DRIVE = False  # @param {{type: "boolean"}}

import importlib.util
import os
import re
import subprocess
import sys

from IPython.display import Markdown, display

LIBRARY = {library!r}
DRIVE = "/content/drive/MyDrive/srgan-book"

os.environ["SRGAN_PROFILE"] = PROFILE
if KEEP_ON_DRIVE:  # runs go on from there after a disconnect
    from google.colab import drive

    drive.mount("/content/drive")
    os.makedirs(DRIVE, exist_ok=True)
    os.chdir(DRIVE)
if importlib.util.find_spec("srgan_lib") is None:
    if "://" not in LIBRARY and not os.path.exists(LIBRARY):
        raise FileNotFoundError(
            f"Put {{LIBRARY}} into {{os.getcwd()}}; the book's page offers it "
            "for download."
        )
    pip = [sys.executable, "-m", "pip", "install", "--quiet", LIBRARY]
    subprocess.run(pip, check=True)
    importlib.invalidate_caches()

import torch

if torch.cuda.is_available():
    print(f"GPU: {{torch.cuda.get_device_name()}}")
else:
    print("No GPU. On Colab: Runtime, Change runtime type, choose a GPU.")
print({takes!r})
"""
TO_TRAIN = """\
from srgan_lib import experiments

_config = experiments.current_profile()
_plan = experiments.make_plan(_config, experiments.training_pairs(_config))
_steps = sum(task.steps for task in _plan)
print(f"Still to be trained: {_steps:,} steps of profile {PROFILE}.")
"""
SENTENCES = r'''
_glued = {}


def glue(name, value, display=False):
    """Keep a value for the sentences below."""
    _glued[name] = value


def _prose(text):
    """Show a paragraph with the values measured above."""

    def value(found):
        name, spec, built = found.groups()
        return format(_glued[name], spec) if name in _glued else built

    pattern = r"⟦(\w+):([^|]*)\|([^⟧]*)⟧"
    display(Markdown(re.sub(pattern, value, text)))
'''


# --- Where the project is published


def github(project):
    """ "owner/name" of the project's remote on GitHub, or None."""
    command = ["git", "-C", str(project), "remote", "get-url", "origin"]
    if not (Path(project) / ".git").exists():
        return None
    done = subprocess.run(command, capture_output=True, text=True)
    address = r"(?:https://|git@|ssh://git@)github\.com[:/](.+?/.+?)(\.git)?"
    found = re.fullmatch(address, done.stdout.strip())
    return found and found[1]


def site(repository):
    """The address of its pages."""
    owner, name = repository.split("/")
    return f"https://{owner.lower()}.github.io/{name}"


# --- From MyST to plain Markdown


class Page:
    """One chapter: what its references mean, and its text without MyST."""

    def __init__(self, app, name, repository):
        self.app, self.env, self.name = app, app.env, name
        self.home = repository and site(repository)
        self.cited = {}

    @cached_property
    def glued(self):
        """{name: what the build measured, as text}"""
        executed = Path(self.app.outdir).parent / "jupyter_execute"
        path = executed / f"{self.name}.glue.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        return {k: v["data"].get("text/plain", "") for k, v in found.items()}

    def warn(self, what):
        LOGGER.warning("no notebook form of %s", what, location=self.name)

    # References

    def linked(self, text, page, anchor=""):
        if not self.home:
            return f"*{text}*"
        anchor = anchor and f"#{anchor}"
        return f"[{text}]({self.home}/{page}.html{anchor})"

    def doc(self, target, text):
        page = posixpath.join(posixpath.dirname(self.name), target)
        page = posixpath.normpath(page)
        if page not in self.env.titles:
            return text or target
        return self.linked(text or self.env.titles[page].astext(), page)

    def ref(self, target, text):
        labels = self.env.get_domain("std").labels
        page, anchor, title = labels.get(target.lower(), ("", "", target))
        return self.linked(text or title, page, anchor) if page else title

    def numref(self, target, text):
        number = self.number(target.lower())
        if text and number:
            digits = number.rpartition(" ")[2]
            return text.replace("%s", digits).replace("{number}", digits)
        return number or text or target

    def number(self, label):
        """Table 9.2, say, for the label of a table; None if unknown."""
        std = self.env.get_domain("std")
        page, anchor, *_ = std.anonlabels.get(label, ("", ""))
        kinds = self.env.toc_fignumbers.get(page, {})
        for kind, pattern in self.app.config.numfig_format.items():
            if anchor in kinds.get(kind, {}):
                digits = ".".join(map(str, kinds[kind][anchor]))
                return pattern.replace("%s", digits)
        sections = self.env.toc_secnumbers.get(page, {})
        found = sections.get(f"#{anchor}") or sections.get("")
        return found and "Section " + ".".join(map(str, found))

    def eq(self, target, text=None):
        numbers = self.env.toc_fignumbers.get(
            self.env.get_domain("math").equations.get(target, ("",))[0], {}
        ).get("displaymath", {})
        digits = numbers.get(nodes.make_id(f"equation-{target}"), ())
        return f"({'.'.join(map(str, digits))})"

    @cached_property
    def entries(self):
        data = self.env.get_domain("cite").bibdata.data
        return data.entries

    def citation(self, keys, textual):
        texts = []
        for key in re.split(r",\s*", keys):
            entry = self.entries.get(key)
            if entry is None:
                return keys
            self.cited[key] = entry
            people = entry.persons.get("author", ())
            names = [" ".join(map(str, p.rich_last_names)) for p in people]
            if len(names) > 2:
                names = [f"{names[0]} et al."]
            who = " and ".join(names) or entry.fields.get("title", key)
            year = entry.fields.get("year", "")
            texts.append(f"{who} ({year})" if textual else f"{who}, {year}")
        return "; ".join(texts) if textual else f"({'; '.join(texts)})"

    def references(self):
        """A list of what was cited."""
        style = find_plugin("pybtex.style.formatting", "plain")()
        backend = find_plugin("pybtex.backends", "markdown")()
        lines = (
            f"* {entry.text.render(backend)}"
            for entry in style.format_entries(self.cited.values())
        )
        return "## References\n\n" + "\n".join(lines)

    def role(self, name, content):
        explicit = EXPLICIT.match(content)
        text, target = explicit.groups() if explicit else (None, content)
        if name in ("doc", "ref", "numref", "eq"):
            return getattr(self, name)(target, text)
        if name in ("cite:t", "cite:p", "cite"):
            return self.citation(content, textual=name == "cite:t")
        if name == "glue:text":
            return GLUE.sub(self.built, f"{{glue:text}}`{content}`")
        if name == "term":
            return text or target
        if name == "math":
            return f"${content}$"
        if name in ("sub", "sup"):
            return f"<{name}>{content}</{name}>"
        if name.startswith("py:") or name in ("func", "class", "mod"):
            return f"`{(text or target).lstrip('~')}`"
        self.warn(f"the role {name}")
        return content

    def built(self, found):
        """The glued value as the build has it."""
        key, spec = found.groups()
        return format_plain_text(self.glued.get(key, key), spec or "s")

    def marked(self, found):
        """The glued value as `_prose` of the first cell takes it."""
        return f"⟦{found[1]}:{found[2]}|{self.built(found)}⟧"

    def inline(self, text, glued=None):
        """Text without directives: roles resolved, labels dropped."""
        text = GLUE.sub(glued or self.built, text)
        text = LABEL.sub("", text)
        text = EQUATION.sub(
            lambda m: rf"\tag{{{self.eq(m[1]).strip('()')}}}" + "\n$$", text
        )

        def replace(found):
            return self.role(found[1], found[2]) if found[1] else found[0]

        return CODE_OR_ROLE.sub(replace, text)

    # Blocks

    def blocks(self, text):
        """Paragraphs and fences of a text, converted, one at a time."""
        lines, plain = text.splitlines(), []
        while lines:
            line = lines.pop(0)
            fence = FENCE.match(line)
            if not fence:
                plain.append(line)
                continue
            yield from self.paragraphs(plain)
            plain, body = [], []
            indent, mark, name, argument, _ = fence.groups()
            end = re.compile(rf"^ *{re.escape(mark[0])}{{{len(mark)},}} *$")
            while lines and not end.match(lines[0]):
                body.append(lines.pop(0).removeprefix(indent))
            if lines:
                lines.pop(0)
            if name:
                yield self.directive(name, argument, body)
            else:
                yield "\n".join((line, *body, indent + mark))
        yield from self.paragraphs(plain)

    def paragraphs(self, lines):
        text = "\n".join(lines).strip("\n")
        # Display math may hold blank lines' worth of nothing, never text.
        for part in re.split(r"\n\s*\n", text):
            if part.strip():
                converted = self.inline(part + "\n", self.marked).rstrip()
                if converted:
                    yield converted

    def convert(self, lines):
        return "\n\n".join(self.blocks("\n".join(lines)))

    def directive(self, name, argument, body):
        options = {}
        if body and body[0].strip() == "---":
            end = body.index("---", 1)
            options = yaml.safe_load("\n".join(body[1:end]))
            body = body[end + 1 :]
        while body and (found := OPTION.match(body[0])):
            options[found[1]] = re.sub(r'^"(.*)"$', r"\1", found[2])
            body = body[1:]
        if name == "admonition" or name in BOXES:
            title = self.inline(argument) or name.capitalize()
            text = f"**{title}**\n\n{self.convert(body)}"
            return re.sub(r"^", "> ", text, flags=re.M).replace("> \n", ">\n")
        if name == "dropdown":
            title, text = self.inline(argument), self.convert(body)
            head = f"<details>\n<summary><b>{title}</b></summary>"
            return f"{head}\n\n{text}\n\n</details>"
        if name == "literalinclude":
            return self.listing(argument, options)
        if name in ("code-block", "code"):
            return "\n".join((f"```{argument}", *body, "```"))
        if name == "math":
            tag = ""
            if label := options.get("label"):
                tag = rf"\tag{{{self.eq(label).strip('()')}}}"
            return "\n".join(("$$", *body, tag, "$$")).replace("\n\n", "\n")
        if name == "table":
            title = self.caption(options.get("name"), argument)
            return f"{title}\n\n{self.convert(body)}"
        if name in ("figure", "image"):
            return self.figure(argument, options, body)
        self.warn(f"the directive {name}")
        return self.convert(body)

    def caption(self, label, text):
        number = label and self.number(label)
        text = self.inline(text, self.marked)
        return f"**{number}.** {text}" if number else text

    def listing(self, argument, options):
        _, path = self.env.relfn2path(argument, self.name)
        caption = self.caption(options.get("name"), options.get("caption", ""))
        if "dedent" in options:
            options = options | {"dedent": int(options["dedent"] or 0) or None}
        reader = LiteralIncludeReader(path, options, self.app.config)
        code = reader.read()[0].rstrip()
        return f"{caption}\n\n```python\n{code}\n```"

    def figure(self, argument, options, body):
        _, path = self.env.relfn2path(argument, self.name)
        kind = Path(path).suffix.lstrip(".").replace("svg", "svg+xml")
        data = b64encode(Path(path).read_bytes()).decode()
        image = f"![{options.get('alt', '')}](data:image/{kind};base64,{data})"
        text = self.caption(options.get("name"), "\n".join(body))
        return f"{image}\n\n{text}"

    # Cells

    def code(self, cell, labels):
        """A code cell, and the captions that the book sets around it."""
        source = re.sub(
            r"^from myst_nb import glue\n", "", cell.source, flags=re.M
        )
        source = IN_CODE.sub(lambda m: self.role(m[1], m[2]), source)
        numbers = [n for n in map(self.number, labels) if n]
        hidden = HIDDEN & {*cell.metadata.get("tags", ())}
        title = f"Code: {', '.join(numbers)}" if numbers else "Code"
        tables = [number for number in numbers if number.startswith("Table")]
        if tables:
            yield nbformat.v4.new_markdown_cell(f"**{', '.join(tables)}**")
        if hidden:
            yield hidden_cell(f"# @title {title}\n{source}")
        else:
            yield nbformat.v4.new_code_cell(source)
        figure = cell.metadata.get("mystnb", {}).get("figure")
        if figure:
            text = self.caption(figure.get("name"), figure.get("caption", ""))
            yield from text_cells([text])

    def labels(self):
        """{index of a code cell: names of the figures and tables in it}"""
        found = {}
        for cell in self.env.get_doctree(self.name).findall(nodes.container):
            if "cell_index" in cell:
                found[cell["cell_index"]] = [
                    name
                    for kind in (nodes.figure, nodes.table)
                    for node in cell.findall(kind)
                    for name in node["names"]
                ]
        return found

    def cells(self):
        path = self.env.doc2path(self.name)
        text = Path(path).read_text(encoding="utf-8")
        labels = self.labels()
        read = read_myst_markdown_notebook(text)
        for index, cell in enumerate(read.cells):
            if cell.cell_type == "code":
                yield from self.code(cell, labels.get(index, ()))
            else:
                yield from text_cells(self.blocks(cell.source))
        if self.cited:
            yield nbformat.v4.new_markdown_cell(self.references())


def hidden_cell(source):
    """Code that is folded away, on Colab and in Jupyter."""
    metadata = {"cellView": "form", "jupyter": {"source_hidden": True}}
    return nbformat.v4.new_code_cell(source, metadata=metadata)


def text_cells(blocks):
    """Markdown cells; blocks with measured values become hidden code."""
    plain = []

    def flush():
        if plain:
            yield nbformat.v4.new_markdown_cell("\n\n".join(plain))
            plain.clear()

    for block in blocks:
        if "⟦" in block:
            yield from flush()
            yield hidden_cell(f'# @title\n_prose(r"""\n{block}\n""")')
        else:
            plain.append(block)
    yield from flush()


# --- The notebooks


def chapters(env):
    """The pages that get a notebook: numbered, with code."""
    return [
        page
        for page in env.found_docs
        if env.toc_secnumbers.get(page)
        and NbMetadataCollector.get_doc_data(env)[page].get("exec_data")
    ]


def in_words(seconds):
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def what_it_takes(app, page, trains):
    """A sentence: how long this page took, and on what."""
    data = NbMetadataCollector.get_doc_data(app.env)[page]["exec_data"]
    text = f"this page took {in_words(data['runtime'])}"
    profile = Path(os.environ.get("SRGAN_PROFILE") or "quick").stem
    folder = Path(app.srcdir) / "runs" / profile
    runs = [json.loads(p.read_text()) for p in folder.glob("*/config.json")]
    if trains and runs:
        spent = sum(
            run["seconds"]
            for run in runs
            if not run["settings"]["runs"][run["run"]]["snapshot_of"]
        )
        machine = runs[0]["environment"]["processor"]
        text += f", and training all runs {in_words(spent)} on {machine}"
    return f"When the book was built, with profile {profile}, {text}."


def first_cell(app, page, repository):
    library = f"{site(repository)}/{FOLDER}/{WHEEL}" if repository else WHEEL
    path = Path(app.env.doc2path(page))
    trains = "run_experiments" in path.read_text(encoding="utf-8")
    takes = what_it_takes(app, page, trains)
    source = SETUP.format(library=library, takes=takes)
    return hidden_cell(source + (TO_TRAIN if trains else "") + SENTENCES)


def write_notebooks(app, exception):
    if exception or app.builder.name != "html":
        return
    folder = Path(app.outdir) / FOLDER
    folder.mkdir(exist_ok=True)
    repository = github(app.srcdir)
    for page in chapters(app.env):
        cells = [
            first_cell(app, page, repository),
            *Page(app, page, repository).cells(),
        ]
        for number, cell in enumerate(cells):
            cell.id = f"cell-{number}"  # the same in every build
        notebook = nbformat.v4.new_notebook(cells=cells, metadata=METADATA)
        nbformat.validate(notebook)
        nbformat.write(notebook, folder / f"{posixpath.basename(page)}.ipynb")


METADATA = {
    "kernelspec": {"name": "python3", "display_name": "Python 3"},
    "language_info": {"name": "python"},
    "accelerator": "GPU",
    "colab": {"provenance": [], "toc_visible": True},
}


# --- The buttons at the head of a page


def add_buttons(app, pagename, templatename, context, doctree):
    if pagename not in chapters(app.env):
        return
    name = f"{FOLDER}/{posixpath.basename(pagename)}.ipynb"
    local = context["pathto"]
    links = [
        ("Notebook (.ipynb)", local(name, 1), "fas fa-code"),
        ("Library (.whl)", local(f"{FOLDER}/{WHEEL}", 1), "fas fa-cube"),
    ]
    repository = github(app.srcdir)
    if repository:
        pdf = f"{site(repository)}/book.pdf"
        links.append(("The book (.pdf)", pdf, "fas fa-file-pdf"))
        context["header_buttons"].append(
            {
                "type": "link",
                "url": f"{COLAB}/{repository}/blob/{BRANCH}/{name}",
                "tooltip": "Open in Colab",
                "text": "Colab",
                "icon": "fas fa-rocket",
                "label": "colab-button",
            }
        )
    context["header_buttons"].append(
        {
            "type": "group",
            "tooltip": "Download",
            "icon": "fas fa-download",
            "label": "download-buttons",
            "buttons": [
                {"type": "link", "text": text, "url": url, "icon": icon}
                for text, url, icon in links
            ],
        }
    )


def setup(app):
    # After the theme has filled the list of buttons.
    app.connect("html-page-context", add_buttons, priority=502)
    app.connect("build-finished", write_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
