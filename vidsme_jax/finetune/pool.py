"""The rows of a training: members and non-members, given or divided here."""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from ml_collections import ConfigDict

from vidsme_jax.base import AuditError, Fingerprint, Item
from vidsme_jax.data import segments
from vidsme_jax.data.reading import Reader
from vidsme_jax.finetune import options
from vidsme_jax.finetune.options import Train
from vidsme_jax.prepared.corpus import open_corpus
from vidsme_jax.run.problems import Problems
from vidsme_jax.settings import views


@dataclasses.dataclass(frozen=True)
class Pool:
    """A corpus that was read.

    Attributes:
      items: Its rows, in the roles of the configuration.
      reader: Reads the frames.
    """

    items: tuple[Item, ...]
    reader: Reader

    def divided(
        self,
        train: Train,
        fingerprints: Mapping[str, Fingerprint],
        content_hashes: Mapping[str, str],
    ) -> Sequence[Item]:
        """Returns the rows with the roles of the training.

        Args:
          train: Of the configuration.
          fingerprints: Of each clip, by its key.
          content_hashes: Of each clip's file, by the clip's key.

        Raises:
          AuditError: The pool is too small, or members overlap non-members.
        """
        # These need OpenCV; a configuration is refused without it.
        from vidsme_jax.data import similar
        from vidsme_jax.finetune import split

        near = similar.pairs(fingerprints)
        if not train.divides:
            if problems := split.overlaps(self.items, near):
                raise AuditError(problems)
            return self.items
        by_content: dict[str, str] = {}  # The first clip of each content.
        same = [
            (by_content.setdefault(content, key), key)
            for key, content in content_hashes.items()
        ]
        joined = similar.groups([*near, *(pair for pair in same if pair[0] != pair[1])])
        sides = split.divide(self.items, train.member_share, train.seed, joined)
        return tuple(itertools.chain.from_iterable(sides))


def check(config: ConfigDict, workdir: str | pathlib.Path | None) -> Pool:
    """Checks configuration, work directory and corpus; JAX is not imported.

    Args:
      config: See `options.RULES`.
      workdir: Receives the model; None is a problem.

    Raises:
      AuditError: Lists every problem of values, work directory and corpus, and a local
        checkpoint that does not exist.
    """
    if "headline" in config and "train" not in config:
        problem = "--config is a configuration of an audit: it has the key headline, "
        problem += "and no train; give one like configs/finetune.py (only --control "
        problem += "takes that of an audit)"
        raise AuditError([problem])
    problems, found = Problems(config, options.RULES), None
    options.collect(problems, config, workdir)
    if problems.none_in("corpus", "train.member_share"):
        with problems.collected():
            found = rows(problems.settings, options.train_of(config))
    problems.close()
    assert found is not None  # `problems.close` has raised otherwise.
    return found


def rows(given: views.Settings, train: Train) -> Pool:
    """Reads the corpus.

    Args:
      given: The keys that a training has in common with an audit.
      train: Of the same configuration.

    Raises:
      AuditError: Lists the problems of the corpus.
    """
    corpus, reader = open_corpus(given, {given.video.num_frames}, paired=False)
    roles = {item.role for item in corpus.items}
    problems = []
    if "members" not in roles:
        problems.append(
            "config.corpus.members is empty: set it to the manifest or folder of the "
            "clips to train on"
        )
    if train.divides and "nonmembers" in roles:
        problems.append(
            f"config.train.member_share is {train.member_share}, which divides "
            "corpus.members into members and non-members: leave corpus.nonmembers out"
        )
    units = {x.source or segments.divided(x.clip)[0] for x in corpus.items}
    if train.divides and len(units) < 2 and not problems:
        problems.append(
            f"the pool cannot be divided: its {len(corpus.items)} rows have "
            f"{len(units)} source, and members and non-members need at least one each. "
            "Give clips of more sources"
        )
    if problems:
        raise AuditError(problems)
    return Pool(corpus.items, reader)


def texts(items: Iterable[Item]) -> list[str]:
    """Returns all questions, options and answers, each once, in order."""
    every = (
        text for x in items for text in (x.question, *x.candidates, x.answer) if text
    )
    return list(dict.fromkeys(every))


def write_manifests(folder: pathlib.Path, items: Sequence[Item]) -> str:
    """Writes the rows of each role to its file; see `split.write_manifests`."""
    from vidsme_jax.finetune import split

    both = ([x for x in items if x.role == role] for role in ("members", "nonmembers"))
    return split.write_manifests(folder, *both)
