"""Chooses the figures of a report, and writes their files."""

import dataclasses
import io
import pathlib
import re
from collections.abc import Callable
from typing import Any

from absl import logging

from vidsme_jax.base import ScoreTable
from vidsme_jax.evaluation import groups
from vidsme_jax.report import drawings, inline
from vidsme_jax.report.drawings import Drawing
from vidsme_jax.report.notebook import Picture
from vidsme_jax.report.plots import ClipCurve
from vidsme_jax.store.files import write_atomically
from vidsme_jax.wording import printable

_MAX_COMPARISONS = 6  # With ROC figures.
_MAX_OVERVIEWS = 3  # Of these, with figures of all scores and of fewer sources.
_DPI = 110
_MAX_CAUSE = 200  # Characters.
_MAX_TITLE, _MAX_DESCRIPTION = 200, 3000  # Characters.
# The files of an audit's figures, also half written.
_OWN = re.compile(
    r"((roc|roc-log|auc|growth|clip)-\d+-[a-z0-9-]+|scores|orders|growth-suspects)"
    r"\.(png|pdf)(\.tmp)?"
)


def draw(
    table: ScoreTable,
    compared: dict[str, Any],
    curves: list[ClipCurve],
    headline: str,
    beside: str = "",
    suspects: dict[str, Any] | None = None,
) -> list[Drawing]:
    """Draws the figures of an audit, in the order of the page.

    Args:
      table: The scores.
      compared: The results of each comparison, by name.
      curves: The clips to show frame by frame.
      headline: The score that the verdict is about.
      beside: The further score; "" for none.
      suspects: The result of `suspects.suspects`.
    """
    second = beside or drawings.classical(table, headline)
    every = groups.comparisons(table)
    largest = sorted(every, key=lambda name: -len(every[name].nonmembers))
    found: list[Drawing] = []
    for place, name in enumerate(largest[:_MAX_COMPARISONS]):
        results = compared.get(name, {})
        slug = f"{place}-{_slug(name)}"
        args = table, name, slug, every[name], results, headline, second
        drawn = attempted(f"roc-{slug}", f"ROC: {name}", drawings.rocs, *args)
        whole = place < _MAX_OVERVIEWS
        if whole and results.get("scores"):
            title, declared = f"AUC by score: {name}", [headline, beside]
            args = table, f"auc-{slug}", title, results, [x for x in declared if x]
            drawn += attempted(f"auc-{slug}", title, drawings.aucs, *args)
        if whole and results.get("growth"):
            title = f"p by number of sources: {name}"
            args = f"growth-{slug}", title, results["growth"], headline
            drawn += attempted(f"growth-{slug}", title, drawings.growth, *args)
        found += [dataclasses.replace(each, of=name) for each in drawn]
    args = table, headline
    found += attempted("scores", "The scores", drawings.distributions, *args)
    if suspects and suspects.get("set"):
        title = "p by number of suspects"
        args = title, suspects
        found += attempted(drawings.OF_SUSPECTS, title, drawings.suspects, *args)
    for place, curve in enumerate(curves):
        stem = f"clip-{place}-{_slug(curve.label)}"
        title = f"The {curve.label} clip"
        found += attempted(stem, title, drawings.clip, curve, stem, title)
    return found


def attempted(
    name: str, title: str, make: Callable[..., list[Drawing]], *args: Any
) -> list[Drawing]:
    """Returns what a function draws; if it fails, a drawing that says why.

    A report without one of its figures is better than none.
    """
    try:
        return make(*args)
    except Exception as error:
        return [_left_out(name, title, error)]


def _left_out(name: str, title: str, error: Exception) -> Drawing:
    kind = type(error).__name__
    cause = printable(f"{kind}: {error}" if str(error) else kind, _MAX_CAUSE)
    logging.warning("the figure %s is left out: %s", name, cause)
    return Drawing(name, None, title, f"This figure could not be drawn: {cause}.")


def write(
    folder: pathlib.Path, drawn: list[Drawing], own: re.Pattern[str] = _OWN
) -> list[tuple[Drawing, bytes]]:
    """Writes each figure as PNG and PDF; returns the figures with their SVGs.

    The SVG of a figure that could not be drawn is empty. Files of figures that only an
    earlier report had are removed.

    Args:
      folder: Created if absent.
      drawn: In the order of the page.
      own: Matches the names of files that may be removed.
    """
    folder.mkdir(exist_ok=True)
    written, names = list[tuple[Drawing, bytes]](), set[str]()
    for drawing in drawn:
        files: dict[str, bytes] = {}
        if drawing.figure is not None:
            try:
                files = _rendered(drawing)
            except Exception as error:
                drawing = _left_out(drawing.name, drawing.title, error)
        svg = files.pop("svg", b"")
        for kind, content in files.items():
            write_atomically(folder / f"{drawing.name}.{kind}", content)
            names.add(f"{drawing.name}.{kind}")
        written.append((drawing, svg))
    for path in folder.iterdir():
        if own.fullmatch(path.name) and path.name not in names:
            path.unlink(missing_ok=True)
    return written


def pictures(
    folder: pathlib.Path, written: list[tuple[Drawing, bytes]]
) -> tuple[Picture, ...]:
    """Returns the figures of `write` that could be drawn, for a notebook."""
    return tuple(
        Picture(
            name=drawing.name,
            title=drawing.title,
            caption=drawing.caption,
            shown=drawing.shown,
            path=folder / f"{drawing.name}.png",
        )
        for drawing, _ in written
        if drawing.figure is not None
    )


def _rendered(drawing: Drawing) -> dict[str, bytes]:
    """Returns a figure as PNG, PDF and SVG, by suffix."""
    contents, figure = dict[str, bytes](), drawing.figure
    assert figure is not None
    for kind, metadata in (("png", {}), ("pdf", {"CreationDate": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=_DPI, metadata=metadata)
        contents[kind] = buffer.getvalue()
        figure.set_layout_engine("none")  # The others reuse it.
    title = printable(drawing.title, _MAX_TITLE)
    description = printable(drawing.shown or drawing.caption, _MAX_DESCRIPTION)
    shown = drawing.inline or figure
    contents["svg"] = inline.svg(shown, drawing.name, title, description)
    return contents


def _slug(text: str) -> str:
    """Returns text as part of a file name; the number before it makes it unique."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "group"
