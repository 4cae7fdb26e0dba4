"""The library's docstrings as a page, and links to it from the chapters.

A listing's caption links to the object it shows, and so does the first
mention of an object in the text of each page, and in each docstring, where
the name is no plain word.
"""

import re
from dataclasses import MISSING, fields, is_dataclass
from inspect import isfunction
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import desc
from sphinx.transforms import SphinxTransform
from sphinx.util.nodes import make_refnode

LIBRARY = "srgan_lib"
NO_LINKS = (nodes.reference, nodes.title, nodes.entry)
DEFINITION = re.compile(r"^(?:def|class) (\w+)", re.M)


def read_as_markdown(app, what, name, object, options, lines):
    """Single backticks mean code in docstrings, as in Markdown."""
    lines[:] = [re.sub(r"`+([^`]+)`+", r"``\1``", line) for line in lines]


def parameter(field):
    """A field of a dataclass, as one would write it: name=default."""
    if field.default_factory is not MISSING:
        return f"{field.name}={field.default_factory.__name__}()"
    if field.default is MISSING:
        return field.name
    default = getattr(field.default, "__name__", repr(field.default))
    return f"{field.name}={default}"


def signature(app, what, name, object, options, found, result):
    """No <function ...> in it, and nothing that says nothing."""
    if found == "(*args, **kwargs)":
        return "", result
    if what == "class" and is_dataclass(object):
        names = [parameter(f) for f in fields(object) if f.init]
        return f"({', '.join(names)})", result
    return None


def leave_out(app, what, name, object, skip, options):
    """A field whose default is a function is no method."""
    alias = isfunction(object) and object.__name__ != name
    return True if what == "class" and alias else None


class KeepQuotes(SphinxTransform):
    """In docstrings quotes belong to values, so they stay as they are."""

    default_priority = 700  # before Sphinx makes them typographic

    def apply(self):
        has_docstrings = any(self.document.findall(desc))
        self.document.settings.smart_quotes = not has_docstrings


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


def link_mentions(app, doctree, docname, objects, known=()):
    """known: (page, anchor) of what needs no link."""
    seen = set(known)
    for literal in list(doctree.findall(nodes.literal)):
        name = literal.astext().removesuffix("()")
        parents = iter_parents(literal)
        if (
            name in objects
            and is_no_plain_word(name)
            and objects[name] not in seen
            and not any(isinstance(p, NO_LINKS) for p in parents)
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
    if app.builder.format != "html":
        return
    if docname not in pages:
        link_listings(app, doctree, docname, objects)
        link_mentions(app, doctree, docname, objects)
    for thing in list(doctree.findall(desc)):
        own = [(docname, anchor) for anchor in thing[0]["ids"]]
        link_mentions(app, thing[-1], docname, objects, own)


def setup(app):
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", read_as_markdown)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", leave_out)
    app.add_transform(KeepQuotes)
    app.connect("doctree-resolved", link_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
