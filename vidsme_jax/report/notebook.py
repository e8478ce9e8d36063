"""What a notebook shows of a report: self-contained HTML, without network access.

Colours and tables are those of the notebook, light or dark; every text is escaped.
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

_MAX_COMPARISONS = 6  # Rows of a table.
_MAX_FAMILIES = 12  # Of scores.
_MAX_TEXT, _MAX_CELL = 2000, 100  # Characters.
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
      shown: What it shows, in words.
      path: Of the PNG file.
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
    """Returns the result of an audit as HTML.

    Args:
      found: The content of `metrics.json`.
      failures: The number of rows without scores.
      workdir: The folder of the report.
    """
    parts = [
        _paragraph(header.plain(found), tag="strong"),
        *(_paragraph(text) for text in _statements(found)),
    ]
    if rows := _compared(found):
        parts.append(_table(_OF_COMPARISON, rows))
    if rows := _families(found):
        name = printable(found["comparison"], _MAX_CELL)
        head = (f"score, comparison {name}", "AUC", "p, adjusted for all scores")
        parts.append(_table(head, rows))
    if failures:
        parts.append(f"<p>Not scored: {counted(failures, 'row')}.</p>")
    parts.append(f"<p>The whole report: {_link(workdir / 'report.html')}</p>")
    return f"<div>{''.join(parts)}</div>"


def _statements(found: Mapping[str, Any]) -> list[str]:
    """Returns the sentences that are also printed at the end of a run."""
    parts = [found["published"], found, found["gate"], found["declaration"]]
    parts += [found["beside"], found["reference"], found["control"]]
    suspects = found["suspects"]
    parts += [suspects["set"], suspects if suspects["rows"] else None]
    texts = [each["statement"] for each in parts if each and each["statement"]]
    return list(dict.fromkeys(texts))


def _compared(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    headline, rows = found["headline"], list[tuple[str, ...]]()
    for name, compared in list(found["comparisons"].items())[:_MAX_COMPARISONS]:
        counts, blind = compared["counts"], compared["blind"]["auc"]
        rows.append(
            (
                printable(name, _MAX_CELL),
                f"{counts['members']['items']} / {counts['nonmembers']['items']}",
                intervals.in_words(compared["scores"][headline]["auc"]),
                "none" if blind is None else f"{blind:.2f}",
                compared["verdicts"][headline]["verdict"],
            )
        )
    return rows


def _families(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns a row for each family of scores of the declared comparison."""
    compared = found["comparisons"].get(found["comparison"])
    if compared is None:
        return []
    beside, headline = found["beside"], found["headline"]
    declared = [headline, *([beside["score"]] if beside else [])]
    scores, larger = compared["scores"], found["larger_is_member"]
    every = representatives.of_scores(scores, larger, declared)
    rows: list[tuple[str, ...]] = []
    for family in every[:_MAX_FAMILIES]:
        score = scores[family.score]
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
        shown = (f"<{tag}>{_shown(cell)}</{tag}>" for cell in cells)
        return f"<tr>{''.join(shown)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>"


def _paragraph(text: str, tag: str = "span") -> str:
    return f"<p><{tag}>{_shown(text)}</{tag}></p>"


def _shown(text: str) -> markupsafe.Markup:
    return markupsafe.escape(printable(str(text), _MAX_TEXT))


def _link(page: pathlib.Path) -> str:
    """Returns the path of a page, as a link if it is below the notebook's folder.

    Browsers open no other files.
    """
    absolute, here = pathlib.Path(os.path.abspath(page)), pathlib.Path.cwd()
    if not absolute.is_relative_to(here):
        return _shown(str(page))
    relative = os.fsencode(absolute.relative_to(here).as_posix())
    return f'<a href="{urllib.parse.quote(relative)}">{_shown(str(page))}</a>'
