"""Figures as SVG inside a page: small, in the page's own colours, with words.

matplotlib draws; here its SVG loses what a page has no use for (fonts, frames of white,
digits beyond a tenth of a point), takes the page's variables in place of colours, so
that it is as readable on dark paper, and gets a title and a description. Nothing in it
is a style attribute, which a page's policy may forbid.
"""

import io
import re
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

# Drawn in these, shown in the variables of `page.css`.
COLOURS = {
    "#000000": "var(--ink)",
    "#222222": "var(--ink)",
    "#999999": "var(--pale)",
    "#eeeeee": "var(--shade)",
    "#ffffff": "var(--paper)",
    "#0072b2": "var(--first)",
    "#d55e00": "var(--second)",
    "#009e73": "var(--third)",
    "#cc79a7": "var(--fourth)",
}
_SETTINGS: dict[Any, str] = {"svg.fonttype": "none", "svg.hashsalt": "vidsme"}
_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_LINK = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_SIZE = re.compile(r"(?:(bold|\d{3})\s+)?([\d.]+)px")
_NUMBERS = ("d", "x", "y", "width", "height", "transform", "points", "font-size")
# What matplotlib says of every path, and the page says once for all.
_USUAL = {"stroke-linejoin": ("miter", "round"), "stroke-miterlimit": ("10",)}


def svg(figure: Figure, name: str, title: str, description: str) -> bytes:
    """Returns a figure as an element of HTML; the same figure gives the same bytes.

    Args:
      figure: To be drawn.
      name: Begins its ids; unique in the page.
      title: In words, what it is.
      description: In words, what it shows.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(buffer, format="svg", transparent=True, metadata=_METADATA)
    root = ElementTree.fromstring(buffer.getvalue())
    box = root.get("viewBox", "")
    drawn = _cleaned(root, name)
    drawn.attrib.clear()
    about = {"title": title, "desc": description}
    for place, (tag, text) in enumerate(about.items()):
        words = ElementTree.Element(tag, {"id": f"{name}-{tag}"})
        words.text = text
        drawn.insert(place, words)
    drawn.attrib |= {
        "viewBox": box,
        "role": "img",
        "aria-labelledby": f"{name}-title",
        "aria-describedby": f"{name}-desc",
    }
    return ElementTree.tostring(drawn, encoding="utf-8")


def _cleaned(element: ElementTree.Element, name: str) -> ElementTree.Element:
    """Returns an element of HTML for one of matplotlib's; see the module."""
    referred = {
        link
        for each in element.iter()
        for value in each.attrib.values()
        for link in re.findall(r"^#(.+)$|url\(#(.+?)\)", value)
    }
    kept = {first or second for first, second in referred}
    for each in list(element.iter()):
        each.tag = each.tag.rpartition("}")[2]
        each.text = each.text if each.tag in ("text", "tspan") else None
        each.tail = None
        _attributes(each, name, kept)
        for child in list(each):
            if _unneeded(child):
                each.remove(child)
    _flattened(element)
    return element


def _unneeded(element: ElementTree.Element) -> bool:
    """Returns whether an element is invisible: a comment, a style, a white frame."""
    if not isinstance(element.tag, str):
        return True
    tag, style = element.tag.rpartition("}")[2], element.get("style", "")
    unseen = "fill: none" in style and "stroke:" not in style
    return tag in ("metadata", "style") or (tag == "path" and unseen)


def _flattened(element: ElementTree.Element) -> None:
    """Puts what bare groups hold in their place, and nothing for an empty one."""
    kept: list[ElementTree.Element] = []
    for child in list(element):
        _flattened(child)
        bare = child.tag == "g" and not child.attrib
        kept += list(child) if bare else [child] * bool(len(child) or child.tag != "g")
    element[:] = kept


def _attributes(element: ElementTree.Element, name: str, kept: set[str]) -> None:
    found = dict(element.attrib)
    element.attrib.clear()
    style = found.pop("style", "")
    for part in style.split(";"):
        key, _, value = part.partition(":")
        key, value = key.strip(), value.strip()
        if key in ("font", "font-size"):
            if written := _SIZE.search(value):
                found["font-size"] = written[2]
                found |= {"font-weight": written[1]} if written[1] else {}
        elif key and key != "font-family" and value not in _USUAL.get(key, ()):
            found[key] = value
    if _LINK in found:
        found["href"] = found.pop(_LINK)
    for key, value in found.items():
        key = key.rpartition("}")[2]
        if key == "id":
            if value not in kept:
                continue
            value = f"{name}-{value}"
        elif key == "href" and value.startswith("#"):
            value = f"#{name}-{value[1:]}"
        elif value.startswith("url(#"):
            value = f"url(#{name}-{value[5:]}"
        elif key in _NUMBERS:
            if value.startswith("rotate(-0 "):
                continue
            value = " ".join(_NUMBER.sub(_rounded, value).split())
        element.set(key, COLOURS.get(value.lower(), value))


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}".removesuffix(".0")
