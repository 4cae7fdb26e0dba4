"""{page-times}: how long the code of each page took when it last ran."""

from docutils import nodes
from docutils.parsers.rst.directives.tables import Table
from myst_nb.sphinx_ import NbMetadataCollector


class page_times(nodes.General, nodes.Element):
    """Where the rows go, once every page has been executed."""


class PageTimes(Table):
    """As {table}, whose argument is the caption, but without content."""

    def run(self):
        caption, messages = self.make_title()
        table = nodes.table("", caption, page_times())
        self.add_name(table)
        return [table, *messages]


def runtimes(env):
    """{page: seconds}, in the order of the book; executed pages only."""
    pages = [env.config.root_doc, *env.toctree_includes[env.config.root_doc]]
    data = NbMetadataCollector.get_doc_data(env)
    found = {page: data[page].get("exec_data") for page in pages}
    return {page: run["runtime"] for page, run in found.items() if run}


def row(text, number):
    cells = nodes.entry("", text), nodes.entry("", nodes.paragraph("", number))
    cells[1]["classes"] = ["text-right"]
    return nodes.row("", *cells)


def columns(head, rows):
    widths = [nodes.colspec(colwidth=width) for width in (80, 20)]
    group = nodes.tgroup("", *widths, cols=2)
    group += [nodes.thead("", head), nodes.tbody("", *rows)]
    return group


def fill(app, doctree, docname):
    for place in list(doctree.findall(page_times)):
        rows, times = [], runtimes(app.env)
        for page, seconds in times.items():
            link = nodes.reference(
                "",
                app.env.titles[page].astext(),
                internal=True,
                refuri=app.builder.get_relative_uri(docname, page),
            )
            text = nodes.paragraph("", "", link)
            rows.append(row(text, f"{seconds:.1f}"))
        total = nodes.paragraph("", "together")
        rows.append(row(total, f"{sum(times.values()):.1f}"))
        head = row(nodes.paragraph("", "page"), "seconds")
        place.replace_self(columns(head, rows))


def setup(app):
    app.add_node(page_times)
    app.add_directive("page-times", PageTimes)
    app.connect("doctree-resolved", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
