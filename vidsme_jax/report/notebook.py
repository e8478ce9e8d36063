"""What a notebook shows of a report: HTML that needs nothing else and no network.

Colours and tables are as the notebook has them, light or dark; every text is escaped.
"""

import base64
import dataclasses
import os
import pathlib
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import markupsafe

from vidsme_jax.evaluation import intervals
from vidsme_jax.evaluation.verdicts import p_words
from vidsme_jax.report import header, representatives
from vidsme_jax.wording import counted, printable

_COMPARISONS = 6  # In a table.
_FAMILIES = 12  # Of scores.
_TEXT, _CELL = 2000, 100  # Characters.
_OF_COMPARISON = (
    *("comparison", "members / non-members", "AUC of the headline"),
    *("AUC without the model", "verdict"),
)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure of a report.

    Attributes:
      name: The stem of its files.
      title: What it is.
      caption: How to read it.
      shown: In words, what it shows.
      path: Of the PNG file, which has a white ground.
    """

    name: str
    title: str
    caption: str
    shown: str
    path: pathlib.Path

    def _repr_png_(self) -> bytes:
        """Returns the content of the file."""
        return self.path.read_bytes()

    def _repr_html_(self) -> str:
        """Returns the figure with its title and its caption."""
        data = base64.b64encode(self._repr_png_()).decode()
        words = self.shown or self.title
        return (
            "<figure>"
            f'<img src="data:image/png;base64,{data}" alt="{_shown(words)}">'
            f"<figcaption><b>{_shown(self.title)}</b> {_shown(self.caption)}"
            "</figcaption></figure>"
        )


def of_audit(found: Mapping[str, Any], failures: int, workdir: pathlib.Path) -> str:
    """Returns the result of an audit.

    Args:
      found: The content of `metrics.json`.
      failures: Rows without scores.
      workdir: Where the report is.
    """
    parts = [
        _paragraph(header.plain(found), tag="strong"),
        *(_paragraph(text) for text in _statements(found)),
    ]
    if rows := _compared(found):
        parts.append(_table(_OF_COMPARISON, rows))
    if rows := _families(found):
        named = printable(found["comparison"], _CELL)
        head = (f"score, comparison {named}", "AUC", "p, adjusted for all scores")
        parts.append(_table(head, rows))
    if failures:
        parts.append(f"<p>Not scored: {counted(failures, 'row')}.</p>")
    parts.append(f"<p>The whole report: {_link(workdir / 'report.html')}</p>")
    return f"<div>{''.join(parts)}</div>"


def _statements(found: Mapping[str, Any]) -> list[str]:
    """Returns the sentences that the end of a run prints."""
    its = [found["published"] or {}, found, found["gate"], found["declaration"]]
    its += [found["beside"], found["reference"], found["control"]]
    suspects = found["suspects"]
    its += [suspects["set"], suspects if suspects["rows"] else None]
    texts = [each["statement"] for each in its if each and each.get("statement")]
    return list(dict.fromkeys(texts))


def _compared(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    headline, rows = found["headline"], []
    for name, its in list(found["comparisons"].items())[:_COMPARISONS]:
        counts, blind = its["counts"], its["blind"]["auc"]
        rows.append(
            (
                printable(name, _CELL),
                f"{counts['members']['items']} / {counts['nonmembers']['items']}",
                intervals.in_words(its["scores"][headline]["auc"]),
                "none" if blind is None else f"{blind:.2f}",
                its["verdicts"][headline]["verdict"],
            )
        )
    return rows


def _families(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns a row for each family of scores of the declared comparison."""
    its = found["comparisons"].get(found["comparison"])
    if its is None:
        return []
    beside, headline = found["beside"], found["headline"]
    declared = [headline, *([beside["score"]] if beside else [])]
    every = representatives.of_scores(
        its["scores"], found["larger_is_member"], declared
    )
    rows = []
    for family in every[:_FAMILIES]:
        score = its["scores"][family.score]
        role = "headline" if family.score == headline else "exploratory"
        p = score["adjusted_p"]
        rows.append(
            (
                f"{family.score} ({role})",
                intervals.in_words(score["auc"]),
                "not tested" if p is None else p_words(p),
            )
        )
    return rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        its = (f"<{tag}>{_shown(cell)}</{tag}>" for cell in cells)
        return f"<tr>{''.join(its)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>"


def _paragraph(text: str, tag: str = "span") -> str:
    return f"<p><{tag}>{_shown(text)}</{tag}></p>"


def _shown(text: str) -> markupsafe.Markup:
    return markupsafe.escape(printable(str(text), _TEXT))


def _link(page: pathlib.Path) -> str:
    """Returns the path of a page; a link where a notebook can follow one.

    It must be below the notebook's folder: browsers open no other files.
    """
    absolute, here = pathlib.Path(os.path.abspath(page)), pathlib.Path.cwd()
    if not absolute.is_relative_to(here):
        return _shown(str(page))
    relative = os.fsencode(absolute.relative_to(here).as_posix())
    return f'<a href="{urllib.parse.quote(relative)}">{_shown(str(page))}</a>'
