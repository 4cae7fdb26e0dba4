"""Labels of the list of references: authors and year, as the text cites."""

from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style
from pybtex.style.labels import BaseLabelStyle


def label(entry):
    """Ledig et al., 2017."""
    names = [
        " ".join(map(str, [*p.rich_prelast_names, *p.rich_last_names]))
        for p in entry.persons["author"]
    ]
    who = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
    return f"{who}, {entry.fields['year']}"


class AuthorYear(BaseLabelStyle):
    def format_labels(self, entries):
        return map(label, entries)


class AuthorYearList(Style):
    default_label_style = "author_year"


def setup(app):
    register_plugin("pybtex.style.labels", "author_year", AuthorYear)
    register_plugin("pybtex.style.formatting", "author_year", AuthorYearList)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
