"""The command line: `vidsme lookup MANIFEST --in LIST LIST`.

Finds the videos that published training lists name: by YouTube id, address, hash of the
file, file name, and hashes of pictures if a list has them. MANIFEST is a list of videos
or a folder; lists are JSON, JSON lines, CSV, TSV, Parquet, or text with an entry a
line. --out writes the result to a file, which `--config.report.published=FILE` puts
above all scores in the report of an audit.

Exit status: 0 the videos were looked up, whatever was found; 2 they were not, and one
message lists every problem.
"""

import pathlib
from typing import Any, NoReturn

from absl import flags

from vidsme_jax import commands, exits, terminal
from vidsme_jax.addresses import no_folder
from vidsme_jax.base import AuditError
from vidsme_jax.wording import printable

_SHOWN = 50  # Hits; the file has all.


def main(argv: list[str]) -> int:
    """Looks videos up and returns the exit status."""
    given = flags.FLAGS
    if len(argv) < 2 or not given["in"].value:
        return exits.wrong(
            ["give a manifest and lists: vidsme lookup MANIFEST --in LIST"]
        )
    (manifest, *more), out = argv[1:], given.out
    lists = [*given["in"].value, *more]
    commands.begin()
    try:
        wrong = no_folder(manifest, "the manifest", "a file or a folder")
        wrong += (x for name in lists for x in no_folder(name, "--in", "a file"))
        wrong += no_folder(given.video_root, "--video_root")
        wrong += commands.new_file(out, "--out")
        if wrong:
            raise AuditError(wrong)
        from vidsme_jax.published import lookup
        from vidsme_jax.run import published_result

        videos = lookup.videos(manifest, root=given.video_root or "")
        found = lookup.look_up(videos, lists)
        if out:
            published_result.write(pathlib.Path(out), manifest, videos, found)
    except AuditError as error:
        return exits.wrong(error.problems)
    except OSError as error:
        return exits.wrong([exits.os_cause(error)])
    terminal.show("\n".join(in_words(found)))
    return exits.OK


def in_words(found: dict[str, Any]) -> list[str]:
    """Returns lines about what `lookup.look_up` returns."""
    hits = found["hits"]
    lines = []
    for hit in hits[:_SHOWN]:
        video, name, entry = (
            printable(hit[x], 100) for x in ("video", "list", "entry")
        )
        sure = "named" if hit["identity"] else "alike"
        lines.append(f"{sure}  {video}  {name}:{hit['row']}  {hit['how']}  {entry}")
    if len(hits) > _SHOWN:
        lines.append(f"and {len(hits) - _SHOWN} more")
    for each in found["lists"]:
        lines += [f"{printable(each['name'], 100)}: {note}" for note in each["notes"]]
    return [*lines, found["statement"]]


def run() -> NoReturn:
    """Defines the flags, which other programs have too, and runs `main`."""
    flags.DEFINE_multi_string("in", None, "")
    # In place of absl's remark on flags that may be repeated.
    flags.FLAGS["in"].help = "A published list, or several."
    flags.DEFINE_string("out", None, "New file that receives the result.")
    flags.DEFINE_string(
        "video_root", None, "Folder of the videos; default: the manifest's."
    )
    commands.help_wanted(__doc__, "in", "out", "video_root")
    flags.FLAGS.set_gnu_getopt(True)
    commands.start(main, commands.parse_flags)


if __name__ == "__main__":
    run()
