"""The library's docstrings as a page, and links to it from the chapters.

A listing's caption links to the object it shows, and so does the first
mention of an object in the text of each page, where the name is no plain
word.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx.util.nodes import make_refnode

LIBRARY = "srgan_lib"
DEFINITION = re.compile(r"^(?:def|class) (\w+)", re.M)


def read_as_markdown(app, what, name, object, options, lines):
    """Single backticks mean code in docstrings, as in Markdown."""
    lines[:] = [re.sub(r"`+([^`]+)`+", r"``\1``", line) for line in lines]


def documented(env):
    """{name: (page, anchor)} of all objects, by full and by short names.

    A short name that two modules share is left out.
    """
    found, counts = {}, {}
    for name, entry in env.get_domain("py").objects.items():
        if name.startswith(LIBRARY):
            found[name] = found[name.removeprefix(f"{LIBRARY}.")] = entry
            short = name.rpartition(".")[2]
            counts[short] = counts.get(short, 0) + 1
            found.setdefault(short, entry)
    ambiguous = {short for short, count in counts.items() if count > 1}
    return {
        name: (entry.docname, entry.node_id)
        for name, entry in found.items()
        if name not in ambiguous
    }


def is_no_plain_word(name):
    return bool(re.search(r"[a-z0-9][A-Z_.]\w", name))


def link(app, docname, node, target):
    """Put a link to target = (page, anchor) around what is in the node."""
    text = nodes.inline("", "", *node.children)
    node.children = []
    node += make_refnode(app.builder, docname, *target, text)


def link_listings(app, doctree, docname, objects):
    for caption in doctree.findall(nodes.caption):
        box = caption.parent
        source = Path(box[-1].get("source") or "")
        shows = isinstance(box[-1], nodes.literal_block)
        if not shows or source.parent.name != LIBRARY:
            continue
        names = DEFINITION.findall(box[-1].astext())
        module = f"{LIBRARY}.{source.stem}"
        for name in (*(f"{module}.{n}" for n in names[:1]), module):
            if name in objects:
                link(app, docname, caption, objects[name])
                break


def link_mentions(app, doctree, docname, objects):
    seen = set()
    for literal in list(doctree.findall(nodes.literal)):
        name = literal.astext().removesuffix("()")
        parents = iter_parents(literal)
        if (
            name in objects
            and is_no_plain_word(name)
            and objects[name] not in seen
            and not any(
                isinstance(p, (nodes.reference, nodes.title)) for p in parents
            )
        ):
            seen.add(objects[name])
            link(app, docname, literal, objects[name])


def iter_parents(node):
    while node.parent:
        node = node.parent
        yield node


def link_page(app, doctree, docname):
    objects = documented(app.env)
    pages = {page for page, _ in objects.values()}
    if app.builder.format == "html" and docname not in pages:
        link_listings(app, doctree, docname, objects)
        link_mentions(app, doctree, docname, objects)


def setup(app):
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", read_as_markdown)
    app.connect("doctree-resolved", link_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
