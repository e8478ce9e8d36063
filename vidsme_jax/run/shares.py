"""Shares of a corpus: independent processes that fill one work directory.

Each scores the clips of its share and leaves a record of what it could not score in
`shares/`. None waits for another, and each may be killed and run again by itself.
`vidsme report` gathers what is there.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vidsme_jax.base import AuditError, Failure, Sample
from vidsme_jax.run import sealed
from vidsme_jax.run.asking import Asked
from vidsme_jax.settings.rules import SHARE, share_of
from vidsme_jax.store import share_names
from vidsme_jax.store.workdirs import PARTS, Workdir
from vidsme_jax.wording import counted, printable

FOLDER = "shares"
_REMEDY = "delete it and run its share again"
_FREE = ("share", "workers", "batch_size", "compile_cache", "parallel")
_SHOWN = 20  # Shares in a sentence.
_FIELDS: dict[str, sealed.Test] = {
    "share": sealed.is_text,
    "rows": sealed.is_amount,
    "corpus": sealed.is_digest,
    "about": lambda value: isinstance(value, dict),
    "parts": sealed.having(
        **{name: sealed.list_of(sealed.is_text) for name in PARTS},
    ),
    "failures": sealed.list_of(
        sealed.having(
            id=sealed.is_text,
            video=sealed.is_text,
            stage=sealed.is_text,
            cause=sealed.is_text,
        )
    ),
    "lacking": sealed.is_amount,
}


def part(samples: Sequence[Sample], share: str) -> Sequence[Sample]:
    """Returns the samples of a share, every N-th; all of them of ""."""
    if not share:
        return samples
    place, count = share_of(share)
    return samples[place - 1 :: count]


def check_division(place: Workdir, share: str) -> None:
    """Raises an `AuditError` if a work directory has shares of another division.

    Raises:
      OSError: What is there cannot be listed.
    """
    if not share:
        return
    count = share_of(share)[1]
    there = [name.removesuffix(".json") for name in place.names(FOLDER)]
    others = [name for name in there if "-of-" in name]
    others = [name for name in others if name.rpartition("-of-")[2] != str(count)]
    if others:
        raise AuditError(
            [
                f"{printable(place.name)}: it has shares of another division "
                f"({printable(', '.join(others[:_SHOWN]), 200)}), and this one is "
                f"{share}: take its number of shares, or another --workdir"
            ]
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShareReport:
    """What the run of one share did.

    Attributes:
      workdir: The work directory as it was given.
      share: "I/N".
      rows: The number of rows of the share.
      failures: The failures of its rows.
      finished: How many shares have finished.
    """

    workdir: str
    share: str
    rows: int
    failures: tuple[Failure, ...]
    finished: int

    def summary(self) -> str:
        """Returns the result in a few lines."""
        failed, where = len(self.failures), printable(self.workdir)
        count = share_of(self.share)[1]
        said = [
            f"share {self.share}: {counted(self.rows, 'row')}, {failed} not scored; "
            f"{self.finished} of {count} shares have finished"
        ]
        said += [
            printable(f"{each.video}: {each.stage}: {each.cause}", 400)
            for each in self.failures[:_SHOWN]
        ]
        then = "makes the report" if self.finished == count else "gathers what is there"
        said.append(f"`vidsme report --workdir {where}` {then}")
        return "\n".join(said)


def finish(
    place: Workdir,
    asked: Asked,
    parts: Mapping[str, Sequence[str]],
    failures: Sequence[Failure],
    lacking: Sequence[Failure],
    about: dict[str, Any],
) -> ShareReport:
    """Records that a share has finished.

    Args:
      place: The work directory.
      asked: What is asked, of the whole corpus.
      parts: The names of its parts, by folder.
      failures: The failures of its rows.
      lacking: The same of the reference model.
      about: What `provenance.describe` says of the run.

    Raises:
      OSError: The record cannot be written.
    """
    share = asked.settings.share
    rows = sum(len(sample.clip.items) for sample in part(asked.samples, share))
    (place.path / FOLDER).mkdir(exist_ok=True)
    name = _name(share)
    sealed.write(
        place.path / name,
        {
            "share": share,
            "rows": rows,
            "corpus": asked.corpus.digest,
            "about": json.loads(json.dumps(about, default=str)),
            "parts": {name: list(parts.get(name, ())) for name in PARTS},
            "failures": [vars(failure) for failure in failures],
            "lacking": len(lacking),
        },
    )
    place.publish(name)
    count = share_of(share)[1]
    done = {f"{share_names.in_file(f'{k}/{count}')}.json" for k in range(1, count + 1)}
    done &= {pathlib.Path(name).name, *place.names(FOLDER)}
    return ShareReport(
        workdir=place.name,
        share=share,
        rows=rows,
        failures=tuple(failures),
        finished=len(done),
    )


def _name(share: str) -> str:
    return f"{FOLDER}/{share_names.in_file(share)}.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gathered:
    """What the shares of a work directory have left.

    Attributes:
      count: How many shares there are.
      missing: Those that have not finished, from 1.
      about: What `provenance.describe` said, of the first.
      facts: About the shares, for `config.json`.
      failures: The failures of all rows.
      causes: Why clips of shares that have not finished may lack signals, by key.
      notes: What a reader of the report should know.
    """

    count: int
    missing: tuple[int, ...]
    about: dict[str, Any]
    facts: dict[str, Any]
    failures: tuple[Failure, ...]
    causes: dict[str, str]
    notes: tuple[str, ...]


def gathered(place: Workdir, samples: Sequence[Sample] = ()) -> Gathered | None:
    """Returns what shares have left in a work directory; None if it has none.

    Args:
      place: The work directory.
      samples: The samples of the whole corpus.

    Raises:
      AuditError: Records are damaged, or of different corpora, models or settings; or
        parts that they name are missing.
      OSError: Something cannot be fetched.
    """
    folder = place.path / FOLDER
    names = sorted(path.stem for path in folder.glob("*-of-*.json"))
    counts = {name.rpartition("-of-")[2] for name in names}
    if not names:
        return None
    if len(counts) > 1:
        several = ", ".join(sorted(counts, key=lambda x: (len(x), x)))
        some = printable(", ".join(f"{name}.json" for name in names[:_SHOWN]), 400)
        remedy = f"delete those that do not count ({some})"
        raise AuditError([f"{folder}: records of {several} shares; {remedy}"])
    if strange := [name for name in names if not SHARE.test(share_names.of_file(name))]:
        named = printable(f"{strange[0]}.json", 60)
        raise AuditError([f"{folder}: {named} is of no share I/N; delete it"])
    count = int(counts.pop())
    records: dict[int, dict[str, Any]] = {}
    for number in range(1, count + 1):
        name = _name(f"{number}/{count}")
        if place.find(name):
            record = sealed.read(place.path / name, _FIELDS, _REMEDY)
            assert record is not None
            if record["share"] != (share := f"{number}/{count}"):
                its = printable(record["share"], 40)
                problem = f"damaged (it is of share {its}, not {share}); {_REMEDY}"
                raise AuditError([f"{place.path / name}: {problem}"])
            records[number] = record
    if problems := [*_differences(records, count), *_lost(place, records)]:
        raise AuditError([f"{place.name}: {problem}" for problem in problems])
    missing = tuple(k for k in range(1, count + 1) if k not in records)
    causes: dict[str, str] = {}
    for share in (f"{number}/{count}" for number in missing):
        cause = f"share {share} has not finished: run it with --config.share={share}"
        causes |= {sample.clip.key: cause for sample in part(samples, share)}
    first = records[min(records)]
    facts = {
        "number": str(count),
        "finished": str(len(records)),
        "not finished": _listed(missing, count) or "none",
        "devices": _values(records, ("device", "kind")),
    }
    failures = [Failure(**x) for each in records.values() for x in each["failures"]]
    return Gathered(
        count=count,
        missing=missing,
        about=_of_all(first["about"]),
        facts={"shares": facts},
        failures=tuple(failures),
        causes=causes,
        notes=tuple(_notes(records, missing, count)),
    )


def about(place: Workdir) -> dict[str, Any] | None:
    """Returns what `provenance.describe` said of a run in shares; None of others.

    Raises:
      AuditError: A record is damaged.
    """
    for path in sorted((place.path / FOLDER).glob("*-of-*.json")):
        record = sealed.read(path, _FIELDS, _REMEDY)
        assert record is not None
        return _of_all(record["about"])
    return None


def _of_all(about: dict[str, Any]) -> dict[str, Any]:
    """Returns the facts of a run, without its share."""
    try:
        return about | {"config": about["config"] | {"share": ""}}
    except (LookupError, TypeError) as error:
        problem = f"a record of shares lacks its configuration; {_REMEDY}"
        raise AuditError([problem]) from error


def remove(place: Workdir) -> None:
    """Deletes the records of shares, once a run of the whole corpus takes their place.

    Raises:
      OSError: They cannot be deleted.
    """
    for path in sorted((place.path / FOLDER).glob("*-of-*.json")):
        path.unlink()


def _differences(records: Mapping[int, dict[str, Any]], count: int) -> list[str]:
    """Returns a sentence for each thing that shares must have in common."""
    of: dict[str, Callable[[dict[str, Any]], Any]] = {
        "the corpus": lambda record: record["corpus"],
        "the model": lambda record: record["about"]["fingerprints"]["model"],
        "the configuration": lambda record: {
            key: value
            for key, value in record["about"]["config"].items()
            if key.split(".")[0] not in _FREE
        },
    }
    found: list[str] = []
    first = min(records)
    for what, read in of.items():
        try:
            expected = read(records[first])
            others = [k for k in records if read(records[k]) != expected]
        except (LookupError, TypeError, AttributeError):
            found.append(f"a record of shares lacks {what}; {_REMEDY}")
            continue
        if others:
            found.append(
                f"{what} of share {first}/{count} is not that of "
                f"{_listed(others, count)}; run the shares that differ again"
            )
    return found


def _lost(place: Workdir, records: Mapping[int, dict[str, Any]]) -> list[str]:
    """Returns a sentence for each part that a record names and that is missing."""
    found: list[str] = []
    for record in records.values():
        for folder, names in record["parts"].items():
            files = [f"{folder}/{pathlib.Path(name).name}" for name in names]
            if lost := [name for name in files if not place.find(name)]:
                some = ", ".join(map(printable, lost[:3]))
                found.append(
                    f"{folder}: {counted(len(lost), 'part')} of share "
                    f"{record['share']} missing ({some}): run that share again"
                )
    return found


def _notes(
    records: Mapping[int, dict[str, Any]], missing: Sequence[int], count: int
) -> list[str]:
    notes: list[str] = []
    if missing:
        notes.append(
            f"{len(missing)} of {count} shares have not finished "
            f"({_listed(missing, count)}): what they have scored so far counts"
        )
    for what, keys in (
        ("versions of the package's code", ("fingerprints", "code")),
        ("kinds of devices", ("device", "kind")),
        ("versions of jax", ("versions", "jax")),
    ):
        values = _values(records, keys)
        if "; " in values:
            notes.append(f"the shares were scored by different {what}: {values}")
    return notes


def _values(records: Mapping[int, dict[str, Any]], keys: Sequence[str]) -> str:
    """Returns the different values of a fact, in words."""
    found: list[str] = []
    for record in records.values():
        value: Any = record["about"]
        for key in keys:
            its: dict[str, Any] = value
            value = its.get(key, "unknown") if isinstance(value, dict) else "unknown"
        found.append(printable(str(value), 100))
    return "; ".join(dict.fromkeys(found))


def _listed(numbers: Iterable[int], count: int) -> str:
    numbers = list(numbers)
    named = ", ".join(f"{number}/{count}" for number in numbers[:_SHOWN])
    more = len(numbers) - _SHOWN
    return f"{named} and {more} more" if more > 0 else named
