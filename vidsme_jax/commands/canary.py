r"""The command line: `vidsme canary --clips films --out canaries`.

Makes canary sets for clips that are still to be published: of each clip N variants that
differ by an invisible mark (every picture keeps a PSNR of 40 dB); one of them, drawn at
random, is published. DIR, of --out, then holds

    publish/        what to publish, a file a clip, and nothing else of it
    variants/       all variants, which stay secret
    variants.jsonl  the manifest of all of them, which does not show what was published
    key.json        what was published, sealed; keep it secret

Later, audit any model on all variants, and test it with the key:

    vidsme audit --config ... --workdir RUN \
        --config.corpus.suspects="('DIR/variants.jsonl',)"
    vidsme canary --key DIR/key.json --workdir RUN

If the model was not trained on what was published, the rank of the published variant
among its set is uniform, whatever the model: the p-value is exact, and those of several
sets are combined by Fisher's method. RUN receives `canary-SCORE.json`.

Exit status: 0 done; 2 not done, and one message lists every problem; 130 interrupted.
"""

import os
import pathlib
from typing import Any, NoReturn

from absl import flags

from vidsme_jax import commands, exits, terminal
from vidsme_jax.addresses import no_folder
from vidsme_jax.arguments import number
from vidsme_jax.base import AuditError
from vidsme_jax.commands.finished import run_config, run_record
from vidsme_jax.store import workdirs
from vidsme_jax.store.workdirs import Workdir
from vidsme_jax.wording import counted, printable

VARIANTS, _MOST = 64, 1000
_WHAT = {
    "clips": "the clips to mark",
    "out": "a new folder for variants and key",
    "key": "key.json of the canary sets",
    "workdir": "the folder of a finished audit of variants.jsonl",
}
_MAKING, _TESTING = ("clips", "out", "variants", "seed"), ("key", "workdir", "score")


def main(argv: list[str]) -> int:
    """Makes canary sets, or tests by a key, and returns the exit status."""
    given = flags.FLAGS
    if len(argv) > 1:
        return exits.wrong([commands.unexpected(argv[1])])
    set_ = {name for name in (*_MAKING, *_TESTING) if given[name].value is not None}
    if problems := _problems(set_, given):
        return exits.wrong(problems)
    commands.begin()
    try:
        if "clips" in set_:
            variants = VARIANTS if given.variants is None else given.variants
            out = pathlib.Path(given.out)
            terminal.show(make(given.clips, out, variants, given.seed))
        else:
            with workdirs.opened(given.workdir, parts=True) as place:
                terminal.show(test(pathlib.Path(given.key), place, given.score))
    except AuditError as error:
        return exits.wrong(error.problems)
    except OSError as error:
        return exits.wrong([exits.os_cause(error)])
    except KeyboardInterrupt:
        undone = f"; delete {printable(given.out)} and begin again" if given.out else ""
        terminal.show_error(f"interrupted{undone}")
        return exits.INTERRUPTED
    return exits.OK


def make(clips: str, out: pathlib.Path, variants: int, seed: int | None = None) -> str:
    """Makes canary sets; says what was measured, and what to do with them.

    Args:
      clips: A manifest, a folder, a pattern or a file.
      out: The folder that receives all of it; empty, or made.
      variants: Of each clip.
      seed: Of all draws; None: chance.

    Raises:
      AuditError: Lists what is wrong with folder and clips.
      OSError: Something cannot be written.
    """
    from vidsme_jax.canary import inputs

    inputs.check_folder(out)
    chosen = inputs.find(clips, variants)
    from vidsme_jax.canary import key, making, survival

    found = making.make(chosen, out, variants, seed, os.cpu_count() or 1)
    weak = [
        each.name
        for each in found.sets
        if not survival.Survival(**each.survival).is_enough
    ]
    lines = [key.in_words(each) for each in found.sets]
    lines.append(
        f"(Coding: scaled to a shorter side of {survival.SIDE} px at most, x264 at crf "
        f"{survival.CRF}; compared: {survival.FRAMES} pictures, as means over "
        f"{survival.PATCHES} cells along that side.)"
    )
    if weak:
        lines.append(
            f"The marks do not survive that in {printable(', '.join(weak), 1000)}: "
            "take other clips, larger ones or such with less noise."
        )
    if seed is not None:
        lines.append(
            f"--seed {seed}: anyone who guesses that number knows what was published; "
            "leave it out where this is more than a trial."
        )
    folder = printable(str(out))
    return "\n".join(
        [
            *lines,
            f"Publish what is in {folder}/publish, as it is, and none of the other "
            "variants.",
            f"Keep {folder}/key.json and the variants secret and safe: without them "
            "nothing can be tested, and anyone who has them can publish other "
            "variants.",
            "Before you publish, deposit this with a notary or a time-stamping "
            f"service: SHA-256 of key.json = {found.digest}",
        ]
    )


def test(key: pathlib.Path, place: Workdir, score: str | None = None) -> str:
    """Tests a finished run by a key; says what came out.

    Args:
      key: The file, or the folder that has it.
      place: The work directory of the run, which receives the result.
      score: Its name; None: the run's headline.

    Raises:
      AuditError: There is no such key, run or score, or they do not belong together.
      OSError: The result cannot be written.
    """
    from vidsme_jax.canary import key as keys

    opened, workdir = keys.read(key), place.path
    config = run_config(str(workdir))
    about = run_record(workdir)
    from vidsme_jax.canary import testing

    found = testing.run(config, about, opened, workdir, score)
    sets, file = found["sets"], testing.FILE.format(found["score"])
    if not place.settle(file):
        problem = "another result was put there meanwhile; run the command again"
        raise AuditError([f"{printable(place.name)}/{file}: {problem}"])
    width = min(40, max(len(each["name"]) for each in sets))
    head = f"{'set':<{width}}  rank  variants  p      Holm's p"
    table = (
        f"{printable(each['name'])[:width]:<{width}}  {each['rank']:>4}  "
        f"{each['variants']:>8}  {each['p']:<5.3f}  {each['adjusted_p']:.3f}"
        for each in sets
    )
    result = printable(f"{place.name}/{file}")
    made = f"key: {counted(len(sets), 'set')}, {opened.time}, SHA-256 {opened.digest}"
    return "\n".join([head, *table, found["statement"], made, f"result: {result}"])


def _problems(given: set[str], values: Any) -> list[str]:
    """Returns what is wrong with the flags."""
    making, testing = (
        [x for x in names if x in given] for names in (_MAKING, _TESTING)
    )
    if making and testing:
        two = "one makes canary sets, the other tests by their key"
        return [f"--{making[0]} and --{testing[0]}: {two}"]
    paths = ("clips", "a manifest, a folder, a glob or a video"), ("out", "a folder")
    elsewhere = [
        problem
        for name, must in (*paths, ("key", "a file"))
        for problem in no_folder(values[name].value, f"--{name}", must)
    ]
    needed = ("key", "workdir") if testing else ("clips", "out")
    found = [f"--{x} is missing: {_WHAT[x]}" for x in needed if x not in given]
    if not making and not testing:
        found = ["give --clips and --out, or --key and --workdir"]
    found += elsewhere
    for name, low, high in (("variants", 2, _MOST), ("seed", 0, 2**63 - 1)):
        if name in given:
            try:
                number(f"--{name}", values[name].value, low, high)
            except AuditError as error:
                found += error.problems
    return found


def run() -> NoReturn:
    """Defines the flags, which other programs have too, and runs `main`."""
    flags.DEFINE_string("clips", None, "Clips to mark: a manifest, a folder or a file.")
    flags.DEFINE_string("out", None, "The folder that receives variants and key.")
    flags.DEFINE_integer(
        "variants", None, f"Variants of each clip; default: {VARIANTS}."
    )
    flags.DEFINE_integer(
        "seed", None, "Seed of all random choices, for trials; default: a random one."
    )
    flags.DEFINE_string("key", None, "File of the key, key.json, with which to test.")
    flags.DEFINE_string(
        "workdir", None, "Folder of a finished audit of variants.jsonl."
    )
    flags.DEFINE_string("score", None, "Score to test; default: the audit's headline.")
    commands.help_wanted(__doc__, *_MAKING, *_TESTING)
    commands.start(main, commands.parse_flags)


if __name__ == "__main__":
    run()
