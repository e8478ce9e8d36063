"""A page with all that a page can have, and with names that try to break it."""

import dataclasses
import html.parser

import numpy as np

from report_test import NASTY, PROCEDURE, _curve, _table, _write
from vidsme_jax import scores
from vidsme_jax.base import Failure
from vidsme_jax.evaluation import metrics, suspects
from vidsme_jax.report import page

LONG = "a-name-without-any-space-in-it-" * 6
HOSTILE = f'"><img src=x onerror=alert(1)>&lt;$\\frac{{\u202e{LONG}'
EXTRA = {
    "published": {
        "statement": "2 of 40 videos are in lists of training data.",
        "lists": [
            {"name": f"list {LONG}", "rows": 10**7, "sha256": "0" * 64, "notes": []}
        ],
        "looked_up": 40,
        "files": 40,
        "hits": [
            {
                "id": f"item-{k}",
                "video": NASTY,
                "role": "suspects",
                "list": "a list",
                "row": 10**6 + k,
                "how": "id",
                "identity": True,
                "entry": HOSTILE,
            }
            for k in range(2)
        ],
    },
    "gate": {
        "passed": False,
        "result": "exceeded",
        "statement": "Gate exceeded: 1 of 2 checks.",
        "checks": [
            {
                "name": "AUC",
                "limit": 0.6,
                "found": 0.9,
                "result": "exceeded",
                "statement": "the AUC's lower end is above 0.6",
            },
            {
                "name": "p",
                "limit": 0.01,
                "found": None,
                "result": "not evaluable",
                "statement": "nothing was tested",
            },
        ],
    },
    "scope": {
        "statement": "Evidence of what these attacks show, and of no others.",
        "run": [{"name": "Min-K%++", "what": "of answers"}],
        "not_run": [{"name": "canaries", "why": "none were planted"}],
    },
}
RUN = {
    "date": "2026-11-30T06:37:02Z",
    "command": f"vidsme audit --config {HOSTILE}",
    "config": {
        "model.checkpoint": NASTY,
        "slices": ("video",),
        "video.num_frames": 8,
        "corpus.members": (f"/data/{LONG}.jsonl", "tfds:set/train", "c.csv", "d.csv"),
        "report.num_permutations": 199,
    },
    "model": {"checkpoint": f"/models/{NASTY}", "family": "made_up"},
    "fingerprints": {"model": "f" * 64, "corpus": "e" * 64, "code": "d" * 64},
    "versions": {"vidsme_jax": "0.1.0"},
    "device": {"kernels": {"tower": "splash", LONG: LONG}},
}


def table(counts=(40, 40, 30, 25), groups=("", HOSTILE, "<b>day & night</b>")):
    """Returns a table of scores of several families, with equal columns."""
    made = _table(counts, groups=groups)
    rng = np.random.default_rng(5)
    base = made.scores["vid_sme"]
    for name in ("vid_sme_max_0", "vid_sme_mean", "min_k_prob_30", "min_k_prob_10"):
        made.scores[name] = base + rng.normal(0, 1, len(base))
    made.scores["min_k_prob_5"] = made.scores["min_k_prob_10"].copy()
    # The members move more: suspects and calibration clips are to be alike.
    made.scores["perplexity"][:3] = np.nan
    return made


def write(folder, patch, **changes):
    """Writes a report of everything; returns `metrics.json` and the page.

    Args:
      folder: Of the work directory.
      patch: A monkeypatch.
      changes: Of the arguments of `report_test._write`, or of the table.
    """
    its = changes.pop("table", None)
    its = table() if its is None else its
    extra = changes.pop("extra", EXTRA)
    real = page.render
    patch.setattr(
        page, "render", lambda found, *args, **more: real(found | extra, *args, **more)
    )
    curves = [
        dataclasses.replace(_curve(label), id=str(its.id[place]), role=its.role[place])
        for place, label in enumerate(("most member-like", "least member-like"))
    ]
    given = dict(
        evaluation=metrics.evaluate(its, (0.001, 0.05, 0.1), 200, 0),
        suspects=suspects.suspects(its, "vid_sme", 0.05, PROCEDURE),
        curves=curves,
        run=RUN,
        failures=[Failure(id=LONG, video=HOSTILE, stage="decode", cause=LONG)],
        warnings={HOSTILE: [LONG]},
        beside=scores.Beside("perplexity", "second score"),
    )
    return _write(folder, its, **given | changes)


class Tags(html.parser.HTMLParser):
    """Collects elements with their attributes, parents and texts, in their order."""

    VOID = frozenset(("meta", "img", "br", "link", "input", "hr"))
    APART = frozenset(("td", "th", "dt", "dd", "li", "p", "h2", "h3", "h4", "caption"))

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert not self.open, [each["tag"] for each in self.open]

    def handle_starttag(self, tag, attrs):
        inside = self.open[-1] if self.open else None
        each = {"tag": tag, "attrs": dict(attrs), "text": "", "in": inside}
        assert len(each["attrs"]) == len(attrs), f"{tag} has an attribute twice"
        self.found.append(each)
        if tag not in self.VOID:
            self.open.append(each)
        elif tag == "br":
            self.handle_data(" ")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] is self.found[-1]:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1]["tag"] == tag, (tag, self.getpos())
        if tag in self.APART:
            self.handle_data(" ")
        self.open.pop()

    def handle_data(self, data):
        for each in self.open:
            each["text"] += data

    def named(self, *tags):
        """Returns the elements of some names."""
        return [each for each in self.found if each["tag"] in tags]

    def inside(self, each, tag):
        """Returns the elements of a name within another, at any depth."""
        return [x for x in self.named(tag) if self.within(x, each)]

    def within(self, each, other):
        """Returns whether an element is in another."""
        while each is not None and each is not other:
            each = each["in"]
        return each is not None
