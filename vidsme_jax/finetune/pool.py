"""The rows of a training: members and non-members, given or dealt out of one pool."""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vidsme_jax.base import AuditError, Item
from vidsme_jax.data import segments
from vidsme_jax.data.reading import Reader
from vidsme_jax.finetune.options import Train
from vidsme_jax.prepared.corpus import open_corpus
from vidsme_jax.settings import views


@dataclasses.dataclass(frozen=True)
class Pool:
    """The corpus, opened.

    Attributes:
      items: Its rows, under the roles that were given.
      reader: Of the frames.
    """

    items: tuple[Item, ...]
    reader: Reader

    def divided(self, train: Train, looked: Mapping[str, Any]) -> Sequence[Item]:
        """Returns the rows with the roles of the training.

        Args:
          train: Of the configuration.
          looked: What is known of the clips (`examples.Looked`), by key.

        Raises:
          AuditError: The pool is too small, or members overlap non-members.
        """
        # OpenCV, which they need, is not imported to refuse a mistake.
        from vidsme_jax.data import similar
        from vidsme_jax.finetune import split

        near = similar.pairs({key: its.fingerprint for key, its in looked.items()})
        if not train.divides:
            if problems := split.overlaps(self.items, near):
                raise AuditError(problems)
            return self.items
        by_content: dict[str, str] = {}  # The first clip of each content.
        same = [
            (by_content.setdefault(its.content_hash, key), key)
            for key, its in looked.items()
        ]
        joined = similar.groups([*near, *(pair for pair in same if pair[0] != pair[1])])
        sides = split.divide(self.items, train.member_share, train.seed, joined)
        return tuple(itertools.chain.from_iterable(sides))


def rows(given: views.Settings, train: Train) -> Pool:
    """Reads the corpus.

    Raises:
      AuditError: Lists what is wrong with it.
    """
    corpus, reader = open_corpus(given, {given.video.num_frames}, paired=False)
    roles = {item.role for item in corpus.items}
    problems = []
    if "members" not in roles:
        problems.append("corpus.members is empty: nothing to train on")
    if train.divides and "nonmembers" in roles:
        problems.append(
            f"config.train.member_share is {train.member_share}, which deals "
            "corpus.members out into members and non-members: leave "
            "corpus.nonmembers out"
        )
    units = {x.source or segments.divided(x.clip)[0] for x in corpus.items}
    if train.divides and len(units) < 2 and not problems:
        problems.append(
            f"the pool cannot be divided: its {len(corpus.items)} rows are of "
            f"{len(units)} source, and members and non-members need one each at least. "
            "Give clips of more sources"
        )
    if problems:
        raise AuditError(problems)
    return Pool(corpus.items, reader)


def texts(items: Iterable[Item]) -> list[str]:
    """Returns all questions, options and answers, each once, in order."""
    found: dict[str, None] = {}
    for item in items:
        for text in (item.question, *item.candidates, item.answer):
            found[text] = None
    return [text for text in found if text]


def write_manifests(folder: pathlib.Path, items: Sequence[Item]) -> str:
    """Writes `members.jsonl` and `nonmembers.jsonl`; see `split.write_manifests`."""
    from vidsme_jax.finetune import split

    both = ([x for x in items if x.role == role] for role in ("members", "nonmembers"))
    return split.write_manifests(folder, *both)
