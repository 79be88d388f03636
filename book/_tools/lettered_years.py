"""A Sphinx extension that tells papers of the same authors and year apart by letters.

In the text a paper is cited by its authors' names, shortened after the first of more than two, and
its year. Where two papers would have the same citation, their years become 2021a and 2021b, in the
order of the list of references, there and in the text.
"""

from collections import defaultdict
from collections.abc import Iterable
from string import ascii_lowercase
from typing import Any

from pybtex.plugin import register_plugin
from pybtex.style.formatting.alpha import Style
from pybtex.style.labels.alpha import LabelStyle


def letter(entries: Iterable[Any]) -> None:
    """Put a letter behind the year of each of pybtex's entries that is not alone with its citation.

    Years that have one stay as they are, so that entries may be given again.
    """
    alike = defaultdict(list)
    for entry in entries:
        names = [" ".join(p.last_names) for p in entry.persons["author"]]
        cited = names if len(names) < 3 else [names[0], "et al."]
        alike[*cited, entry.fields["year"]].append(entry)
    for group in alike.values():
        if len(group) > 1:
            ordered = Style().sort(group)
            for entry, mark in zip(ordered, ascii_lowercase, strict=False):
                entry.fields["year"] += mark


class LetteredLabels(LabelStyle):
    """The labels of the list of references: initials, two digits of the year and its letter."""

    def format_label(self, entry: Any) -> str:
        initials = self.format_lab_names(entry.persons["author"])
        return f"{initials}{entry.fields['year'][2:]}"


class LetteredStyle(Style):
    """The list of references."""

    default_label_style = LetteredLabels


def setup(app: Any) -> dict[str, Any]:
    """Register the extension, and the style `lettered` of `bibtex_default_style`."""
    register_plugin("pybtex.style.formatting", "lettered", LetteredStyle)
    app.connect(
        "builder-inited",
        lambda app: letter(
            app.env.get_domain("cite").bibdata.data.entries.values()
        ),
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
