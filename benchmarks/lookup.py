r"""Looking up videos in published lists: a million entries of each form.

    python benchmarks/lookup.py [--rows 1000000] [--videos 1000] [--only FORM]

Lists are made here, with ids of YouTube in names of files and addresses, and captions;
the last video that is looked up is the last entry; `phash` is a CSV of hashes of
pictures, in which ten of the demo's clips are looked up by their frames. Each form is
looked up in a process of its own: a line has its CPU seconds, seconds by the clock and
peak memory. Exit status 1 if not every video that was put into a list is found; those
whose id does not look drawn at random are no certain hits.
"""

import argparse
import csv
import json
import pathlib
import random
import shutil
import string
import subprocess
import sys
import tempfile
import time

import _report

import vidsme_jax.demo

FORMS = ("jsonl", "json", "csv", "txt", "parquet", "phash")
_CLIPS = 10  # Of the form phash.
_CAPTION = "a person walks along a road and looks at the trees of the park "


def ids(rows: int) -> list[str]:
    """Draws ids of YouTube's form."""
    letters = string.ascii_letters + string.digits + "-_"
    drawn = random.Random(0)
    return ["aB" + "".join(drawn.choices(letters, k=9)) for _ in range(rows)]


def make(path: pathlib.Path, rows: list[str]) -> None:
    """Writes a list of a form, by the ending of its name."""
    entries = (
        {"id": f"row{k}", "video": f"train/v_{x}.mp4", "caption": _CAPTION}
        for k, x in enumerate(rows)
    )
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(list(entries)), path)
        return
    with path.open("w", newline="") as file:
        if path.suffix == ".json":
            json.dump(list(entries), file)
        elif path.suffix == ".jsonl":
            file.writelines(json.dumps(entry) + "\n" for entry in entries)
        elif path.suffix == ".txt":
            file.writelines(f"https://www.youtube.com/watch?v={x}\n" for x in rows)
        else:
            writer = csv.writer(file)
            writer.writerow(["id", "video", "caption"])
            writer.writerows(entry.values() for entry in entries)


def make_pictures(path: pathlib.Path, clips: pathlib.Path, rows: int) -> None:
    """Writes a list with a pHash an entry; the last ones are those of the clips."""
    from vidsme_jax.published.hashes import of_pictures

    drawn = random.Random(0)
    hashes = [f"{drawn.getrandbits(64):016x}" for _ in range(rows)]
    for k, clip in enumerate(sorted(clips.iterdir()), 1):
        hashes[-k] = f"{int(of_pictures(clip, 'pHash')[5]):016x}"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "caption", "phash"])
        writer.writerows((f"row{k}", _CAPTION, x) for k, x in enumerate(hashes))


def child(manifest: str, listed: str) -> None:
    """Looks up in a process of its own, and prints what it took."""
    from vidsme_jax.published import lookup

    begun = time.perf_counter(), time.process_time()
    found = lookup.look_up(lookup.videos(manifest), [listed])
    took = time.perf_counter() - begun[0], time.process_time() - begun[1]
    status = pathlib.Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024  # Of this program.
    hits = len({hit["video"] for hit in found["hits"]})
    sure = len({hit["video"] for hit in found["hits"] if hit["identity"]})
    print(json.dumps([*took, peak, hits, sure, found["lists"][0]["rows"]]))


def main() -> int:
    """Measures each form and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--only", choices=FORMS)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child)
        return 0
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        rows = ids(given.rows)
        step = max(1, given.rows // given.videos)
        mine = rows[step - 1 :: step]
        manifest = pathlib.Path(folder) / "mine.txt"
        manifest.write_text("".join(f"{x}.mp4\n" for x in mine))
        for form in [given.only] if given.only else FORMS:
            path = pathlib.Path(folder) / f"list.{form}"
            videos, number_of = manifest, len(mine)
            if form == "phash":
                path, videos = path.with_suffix(".csv"), pathlib.Path(folder) / "clips"
                videos.mkdir()
                demo = pathlib.Path(vidsme_jax.demo.__path__[0]) / "corpus" / "clips"
                for clip in sorted(demo.iterdir())[:_CLIPS]:
                    shutil.copy(clip, videos)
                make_pictures(path, videos, given.rows)
                number_of = _CLIPS
            else:
                make(path, rows)
            command = [sys.executable, __file__, "--child", str(videos), str(path)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            wall, cpu, peak, hits, sure, number = json.loads(done.stdout)
            failed |= hits != number_of
            _report.line(
                f"lookup/{form}",
                round(cpu, 2),
                "CPU s",
                wall_s=round(wall, 2),
                peak_mib=round(peak),
                rows=number,
                videos=number_of,
                found=hits,
                for_certain=sure,
                list_mib=round(path.stat().st_size / 2**20),
            )
            path.unlink()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
