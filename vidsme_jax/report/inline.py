"""Figures as SVG inside a page: small, in the page's colours, with descriptions.

The SVG of matplotlib is reduced to what a page needs (no fonts, no white frames, no
digits beyond a tenth of a point). Colours become CSS variables of the page, for dark
mode, and a title and a description are added. There are no style attributes, which the
page's security policy forbids.
"""

import io
import re
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

# Colours of the plots, and the variables of `page.css` that replace them.
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
# Properties of every path of matplotlib, which `page.css` sets once.
_USUAL = {"stroke-linejoin": ("miter", "round"), "stroke-miterlimit": ("10",)}


def svg(figure: Figure, name: str, title: str, description: str) -> bytes:
    """Returns a figure as an HTML element; equal figures give equal bytes.

    Args:
      figure: The figure.
      name: The prefix of its ids; unique in the page.
      title: What it is, for screen readers.
      description: What it shows, for screen readers.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(buffer, format="svg", transparent=True, metadata=_METADATA)
    root = ElementTree.fromstring(buffer.getvalue())
    box = root.get("viewBox", "")
    drawn = _cleaned(root, name)
    drawn.attrib.clear()
    about = {"title": title, "desc": description}
    for index, (tag, text) in enumerate(about.items()):
        words = ElementTree.Element(tag, {"id": f"{name}-{tag}"})
        words.text = text
        drawn.insert(index, words)
    drawn.attrib |= {
        "viewBox": box,
        "role": "img",
        "aria-labelledby": f"{name}-title",
        "aria-describedby": f"{name}-desc",
    }
    return ElementTree.tostring(drawn, encoding="utf-8")


def _cleaned(element: ElementTree.Element, name: str) -> ElementTree.Element:
    """Reduces an SVG element of matplotlib, in place, to an element of HTML."""
    referred = {
        link
        for each in element.iter()
        for value in each.attrib.values()
        for link in re.findall(r"^#(.+)$|url\(#(.+?)\)", value)
    }
    ids = {first or second for first, second in referred}
    for each in list(element.iter()):
        each.tag = each.tag.rpartition("}")[2]
        each.text = each.text if each.tag in ("text", "tspan") else None
        each.tail = None
        _rewrite_attributes(each, name, ids)
        for child in list(each):
            if _unneeded(child):
                each.remove(child)
    _flatten(element)
    return element


def _unneeded(element: ElementTree.Element) -> bool:
    """Returns whether an element is invisible: a style, or a path without a line."""
    tag, style = element.tag.rpartition("}")[2], element.get("style", "")
    unseen = "fill: none" in style and "stroke:" not in style
    return tag in ("metadata", "style") or (tag == "path" and unseen)


def _flatten(element: ElementTree.Element) -> None:
    """Replaces groups without attributes by their members; removes empty groups."""
    found: list[ElementTree.Element] = []
    for child in list(element):
        _flatten(child)
        bare = child.tag == "g" and not child.attrib
        found += list(child) if bare else [child] * bool(len(child) or child.tag != "g")
    element[:] = found


def _rewrite_attributes(element: ElementTree.Element, name: str, ids: set[str]) -> None:
    """Replaces styles by attributes and colours by variables; drops all but `ids`."""
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
            if value not in ids:
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
