"""Which of one's videos published lists name."""

import dataclasses
import hashlib
import json
import shutil
import sys

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

import children
from vidsme_jax import settings
from vidsme_jax.base import AuditError, Item
from vidsme_jax.commands import lookup as lookup_command
from vidsme_jax.data import corpora
from vidsme_jax.published import entries, hashes, keys, lookup
from vidsme_jax.run import asking, published_result
from vidsme_jax.settings import views

ID, OTHER = "dQw4w9WgXcQ", "Zb-9_xYqW3k"


@pytest.mark.parametrize(
    ("cells", "kind", "key"),
    [
        ({"url": f"https://www.youtube.com/watch?v={ID}"}, keys.YOUTUBE, ID),
        ({"url": f"http://m.youtube.com/watch?list=x&v={ID}&t=3"}, keys.YOUTUBE, ID),
        ({"url": f"https://youtu.be/{ID}?si=abc"}, keys.YOUTUBE, ID),
        ({"url": f"https://www.youtube.com/shorts/{ID}"}, keys.YOUTUBE, ID),
        ({"u": f"https://www.youtube-nocookie.com/embed/{ID}"}, keys.YOUTUBE, ID),
        ({"x": ID}, keys.YOUTUBE, ID),
        ({"video": f"train/v_{ID}.mp4"}, keys.YOUTUBE, ID),
        ({"video": f"{ID}_10_20.mp4"}, keys.YOUTUBE, ID),
        ({"video": f"a/{ID}-Scene-001.mp4"}, keys.YOUTUBE, ID),
        ({"video": f"ytb_{OTHER}.mkv"}, keys.YOUTUBE, OTHER),
        ({"video": f"My holiday [{ID}].webm"}, keys.YOUTUBE, ID),
        ({"url": "https://Vimeo.com/12?utm_source=x#a"}, keys.URL, "vimeo.com/12"),
        ({"url": "http://www.a.org/v.mp4?b=1&a=2"}, keys.URL, "a.org/v.mp4?a=2&b=1"),
        ({"url": "http://a.org/x/my_clip.mp4?s=1"}, keys.FILE, "my_clip"),
        (
            {"md5": "A41D8CD98F00B204E9800998ECF8427E"},
            "MD5",
            "a41d8cd98f00b204e9800998ecf8427e",
        ),
        ({"h": "0" * 64}, "SHA-256", "0" * 64),
        ({"h": "a" * 40}, "SHA-1", "a" * 40),
        ({"path": "c:\\clips\\my holiday.mp4"}, keys.FILE, "my holiday"),
        ({"video_id": "clip_000123"}, keys.TEXT, "clip_000123"),
    ],
)
def test_what_names_a_video(cells, kind, key):
    assert key in keys.of_row(cells).get(kind, {})


@pytest.mark.parametrize(
    "cells",
    [
        {"caption": "a man walks"},
        {"caption": "see clip_000123.mp4 there and elsewhere"},
        {"id": "0001"},
        {"video": "00017.mp4"},
        {"id": ""},
        {"h": "a" * 39},
        {"url": "https://www.youtube.com/watch?v=short"},
        {"category": "photography"},
        {"text": "x" * 501},
    ],
)
def test_what_names_none(cells):
    assert keys.of_row(cells) == {}


@pytest.mark.parametrize(
    "url",
    [
        f"HTTPS://WWW.YOUTUBE.COM/watch?v={ID}",
        f"https://www.youtube.com/watch?feature=x&amp;v={ID}",
        f"https://www.youtube.com/?v={ID}",
        f"https://i.ytimg.com/vi/{ID}/0.jpg",
        f"https://youtu.be/{OTHER} and https://youtu.be/{ID}",
        f"clips/{ID}/clip_001.mp4",
        f"clip_{ID}.mp4",
        f"Title-{ID}.mp4",
        f"Title [{ID}].f137.mp4",
    ],
)
def test_further_forms_of_an_id(url):
    assert ID in keys.of_row({"url": url})[keys.YOUTUBE]
    assert ID in keys.of_row({"line": f"12 '{url.split()[-1]}'"})[keys.YOUTUBE]


def test_ids_that_are_drawn_are_known_by_their_form():
    rng = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
    drawn = ["".join(rng.choice(letters, 11)) for _ in range(2000)]
    known = sum(keys.YOUTUBE in keys.of_row({"id": x}) for x in drawn)
    assert known / 2000 > 0.92


@pytest.mark.parametrize(
    ("mine", "listed"),
    [
        (
            {"v": "a.mp4", "license": "https://cc.org/by/4.0/"},
            {"license": "https://cc.org/by/4.0/"},
        ),
        ({"category": "Photography"}, {"category": "Photography"}),
        ({"video": "Holiday2019.mp4"}, {"video": "Holiday2019.mp4"}),
        ({"video": "Screenshots_10.mp4"}, {"title": "Screenshots of a game"}),
        ({"video": "v_Archery_g01_c01.avi"}, {"video": "v_Archery_g01_c02.avi"}),
        (
            {"url": f"https://youtu.be/{ID}"},
            {"description": f"see https://youtu.be/{ID}"},
        ),
        ({"url": "https://a.org/#/video/123"}, {"url": "https://a.org/#/video/999"}),
        ({"url": "https://a.org/watch?t=5"}, {"url": "https://a.org/watch?t=99"}),
        ({"md5": hashlib.md5().hexdigest()}, {"text_md5": hashlib.md5().hexdigest()}),
    ],
)
def test_what_is_not_the_same_video_for_certain(tmp_path, mine, listed):
    (tmp_path / "mine.json").write_text(json.dumps([mine | {"id": "my_own_video"}]))
    (tmp_path / "list.jsonl").write_text(json.dumps(listed | {"key": "another_one"}))
    videos = lookup.videos(str(tmp_path / "mine.json"))
    found = lookup.look_up(videos, [str(tmp_path / "list.jsonl")])
    assert not any(hit["identity"] for hit in found["hits"])


@pytest.mark.parametrize("turned", [False, True])
def test_an_id_that_looks_like_a_word_is_found_in_an_address(tmp_path, turned):
    texts = ["Photography.mp4", "https://youtu.be/Photography"]
    mine, listed = reversed(texts) if turned else texts
    (tmp_path / "mine.txt").write_text(mine)
    (tmp_path / "list.txt").write_text(listed)
    videos = lookup.videos(str(tmp_path / "mine.txt"))
    (hit,) = lookup.look_up(videos, [str(tmp_path / "list.txt")])["hits"]
    assert not hit["identity"]


def _found(tmp_path, name, content):
    (tmp_path / "mine.csv").write_text(f"video,url\nclip_a.mp4,https://youtu.be/{ID}\n")
    (tmp_path / name).write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )
    videos = lookup.videos(str(tmp_path / "mine.csv"))
    hits = lookup.look_up(videos, [str(tmp_path / name)])["hits"]
    return any(hit["identity"] for hit in hits)


def test_a_certain_hit_is_not_lost_behind_many_that_are_not(tmp_path):
    lines = ["clip_a.mp4"] * 1500 + [f"https://youtu.be/{ID}"]
    assert _found(tmp_path, "list.txt", "\n".join(lines))


@pytest.mark.parametrize(
    "value",
    [
        {"version": "1.0", "videos": [OTHER[::-1]] * 20 + [ID]},
        {"version": 1.3, "database": {ID: {"subset": "train"}}},
        {ID: "a caption", "x": "y"},
        {ID: 12},
        {
            "id": "x",
            "clips": [{"url": "https://a.org/b.mp4"}] * 30 + [{"url": f"youtube:{ID}"}],
        },
    ],
)
def test_ids_anywhere_in_json(tmp_path, value):
    assert _found(tmp_path, "list.json", json.dumps(value))
    padded = "\n".join(
        [json.dumps({"id": "somebody_else"})] * 1500 + [json.dumps(value)]
    )
    assert _found(tmp_path, "list.jsonl", padded)


def test_escapes_and_capitals_are_found_late_in_a_list(tmp_path):
    start = [json.dumps({"id": "somebody_else"})] * 1500
    escaped = "".join(f"\\u{ord(c):04x}" for c in ID)
    assert _found(tmp_path, "a.jsonl", "\n".join([*start, f'{{"id": "{escaped}"}}']))
    loud = json.dumps({"url": f"HTTPS://YOUTU.BE/{ID}"})
    assert _found(tmp_path, "b.jsonl", "\n".join([*start, loud]))


def test_a_text_in_two_bytes_a_character_is_refused(tmp_path):
    with pytest.raises(AuditError, match="is it UTF-16"):
        _found(tmp_path, "list.txt", f"{ID}\n".encode("utf-16-le"))


def test_hashes_that_begin_late_are_found(clips, tmp_path):
    its = hashlib.md5((clips / "00.mp4").read_bytes()).hexdigest()
    videos = lookup.videos(str(clips))
    rows = ["id,md5", *["row_of_others,"] * 1500, f"row_of_others,{its}"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    lines = [json.dumps({"id": "row_of_others"})] * 1500 + [json.dumps({"h": its})]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    for name in ("list.csv", "list.jsonl"):
        found = lookup.look_up(videos, [str(tmp_path / name)])
        assert [hit["row"] for hit in found["hits"]] == [1501]


@pytest.mark.parametrize("column", ["other", "phash"])
def test_entries_are_found_wherever_they_stand(tmp_path, monkeypatch, column):
    monkeypatch.setattr(entries, "_ROWS", 100)
    places = [1, 1000, 1001, 1100, 1101, 1234, 1500]
    lines = ["row_of_others,x"] * 1500
    for place in places:
        lines[place - 1] = f"https://youtu.be/{ID},x"
    (tmp_path / "list.csv").write_text("\n".join([f"url,{column}", *lines]))
    (tmp_path / "mine.txt").write_text(ID)
    videos = lookup.videos(str(tmp_path / "mine.txt"))
    hits = lookup.look_up(videos, [str(tmp_path / "list.csv")])["hits"]
    assert [hit["row"] for hit in hits] == places


def test_names_that_say_nothing_are_counted(tmp_path):
    (tmp_path / "mine.csv").write_text(f"video\n{ID}.mp4\n")
    (tmp_path / "list.csv").write_text("video\n0001.mp4\n0002.mp4\n")
    videos = lookup.videos(str(tmp_path / "mine.csv"))
    (about,) = lookup.look_up(videos, [str(tmp_path / "list.csv")])["lists"]
    assert about["rows"] == 2 and "2 of its first entries" in about["notes"][0]


def _lists(tmp_path):
    (tmp_path / "mine.csv").write_text(
        f"video,id\nv_{ID}.mp4,first\nclips/my_holiday.mp4,second\nother.mp4,third\n"
    )
    listed = [
        {"id": f"s{k}", "video": f"train/other{k}.mp4", "n": k} for k in range(3000)
    ]
    listed[2999]["video"] = f"youtube/{ID}_0_10.mp4"
    listed[1500]["video"] = "train/my_holiday.mp4"
    (tmp_path / "list.json").write_text(json.dumps(listed))
    (tmp_path / "none.txt").write_text(f"{OTHER}\n{OTHER[::-1]}\n")
    return tmp_path / "mine.csv", tmp_path / "list.json", tmp_path / "none.txt"


def test_hits_and_what_is_said_of_them(tmp_path):
    mine, listed, none = _lists(tmp_path)
    videos = lookup.videos(str(mine))
    assert [video.id for video in videos] == ["first", "second", "third"]
    found = lookup.look_up(videos, [str(listed), str(none)])
    hits = [(x["id"], x["row"], x["how"], x["identity"]) for x in found["hits"]]
    assert hits == [
        ("first", 3000, keys.YOUTUBE, True),
        ("second", 1501, keys.FILE, False),
    ]
    assert found["looked_up"] == 3
    assert [x["rows"] for x in found["lists"]] == [3000, 2]
    digest = hashlib.sha256(listed.read_bytes()).hexdigest()
    assert found["lists"][0]["sha256"] == digest
    said = found["statement"]
    assert said.startswith("1 of 3 videos is named in a list, by YouTube id:")
    assert "Of another 1 video an entry has the same name or a similar picture" in said
    alone = lookup.look_up(videos, [str(none)])["statement"]
    assert alone.startswith("None of 3 videos is named for certain in")
    assert "in common" not in alone


def test_a_name_that_half_a_list_has_says_nothing(tmp_path):
    (tmp_path / "mine.txt").write_text("clips/video.mp4\n")
    (tmp_path / "list.txt").write_text("\n".join(f"{k}/video.mp4" for k in range(50)))
    videos = lookup.videos(str(tmp_path / "mine.txt"))
    assert not lookup.look_up(videos, [str(tmp_path / "list.txt")])["hits"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of two of the demo's clips."""
    import vidsme_jax.demo

    folder = tmp_path_factory.mktemp("clips")
    corpus = next(iter(vidsme_jax.demo.__path__))
    import pathlib

    for k, path in enumerate(sorted(pathlib.Path(corpus).rglob("*.mp4"))[:2]):
        shutil.copy(path, folder / f"{k}{k}.mp4")
    return folder


@pytest.mark.parametrize("digest", ["md5", "sha1", "sha256"])
def test_a_folder_is_found_by_the_hashes_of_its_files(clips, tmp_path, digest):
    its = hashlib.new(digest, (clips / "11.mp4").read_bytes()).hexdigest().upper()
    lines = [json.dumps({"h": f"{k:0{len(its)}x}"}) for k in range(1200)]
    lines.insert(1100, json.dumps({"h": its}))
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    found = lookup.look_up(lookup.videos(str(clips)), [str(tmp_path / "list.jsonl")])
    (hit,) = found["hits"]
    assert hit["video"].endswith("11.mp4") and hit["row"] == 1101 and hit["identity"]


def test_the_videos_of_a_folder_are_named_as_an_audit_names_them(
    clips, tmp_path, monkeypatch
):
    (tmp_path / "a" / "clips").mkdir(parents=True)
    (tmp_path / "a" / "clips" / "inner").symlink_to(clips)
    monkeypatch.chdir(tmp_path)
    videos = lookup.videos("a/clips")
    assert [x.file and x.file.name for x in videos] == ["00.mp4", "11.mp4"]
    given = views.Settings.of(settings.default()).corpus
    items = corpora.load(dataclasses.replace(given, suspects=("a/clips",))).items
    assert [x.video for x in videos] == [item.video for item in items]


@pytest.mark.parametrize("column", ["phash", "frame_dHash"])
def test_like_pictures_are_pointed_out(clips, tmp_path, column):
    videos = lookup.videos(str(clips))
    kind = keys.picture_hash(column)
    ours = hashes.of_pictures(clips / "00.mp4", kind)
    near = int(ours[3]) ^ 0b101
    rng = np.random.default_rng(0)
    rows = [f"{x:016x}" for x in rng.integers(0, 2**63, 1500).tolist()]
    rows[1200] = f"{near:016x}"
    (tmp_path / "list.csv").write_text(
        f"name,{column}\n" + "\n".join(f"x,{r}" for r in rows)
    )
    found = lookup.look_up(videos, [str(tmp_path / "list.csv")])
    places = [hit["row"] for hit in found["hits"] if hit["video"].endswith("00.mp4")]
    assert places == [1201]
    assert not any(hit["identity"] for hit in found["hits"])
    assert found["statement"].startswith("None of 2 videos is named for certain")


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_hashes_of_pictures_that_begin_late_are_found(clips, tmp_path, form):
    """The first of them is of another picture, in an entry that has our file's name."""
    (tmp_path / "mine").mkdir()
    shutil.copy(clips / "00.mp4", tmp_path / "mine" / "park_scene.mp4")
    videos = lookup.videos(str(tmp_path / "mine"))
    ours = hashes.of_pictures(clips / "00.mp4", "pHash").tolist()
    rows = [{"id": "row_of_others", "phash": None}] * 1500
    rows += [{"id": "park_scene.mp4", "phash": f"{ours[2] ^ (2**64 - 1):016x}"}]
    rows += [{"id": "row_of_others", "phash": f"{ours[2]:016x}"}]
    path = tmp_path / f"list.{form}"
    if form == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        kept = [{k: v for k, v in row.items() if v} for row in rows]
        path.write_text("\n".join(map(json.dumps, kept)))
    hits = lookup.look_up(videos, [str(path)])["hits"]
    assert {hit["row"]: hit["how"] for hit in hits} == {1501: keys.FILE, 1502: "pHash"}


def test_pictures_are_alike_up_to_eight_bits(clips, tmp_path):
    ours = hashes.of_pictures(clips / "00.mp4", "pHash").tolist()
    rng, rows = np.random.default_rng(0), []
    for wanted in (8, 9):  # Bits to the nearest frame.
        listed = ours[0]
        while min((listed ^ frame).bit_count() for frame in ours) < wanted:
            listed ^= 1 << int(rng.integers(64))
        rows.append(f"{listed:016x}")
    (tmp_path / "list.csv").write_text(
        "name,phash\n" + "\n".join(f"x,{r}" for r in rows)
    )
    videos = lookup.videos(str(clips))
    found = lookup.look_up(videos, [str(tmp_path / "list.csv")])["hits"]
    found = [hit for hit in found if hit["video"].endswith("00.mp4")]
    assert [(hit["row"], hit["entry"]) for hit in found] == [(1, "8 of 64 bits differ")]


@pytest.mark.parametrize("number", [20, 21])
def test_a_name_that_many_entries_have_says_nothing(tmp_path, number):
    (tmp_path / "list.txt").write_text("a/street_scene.mp4\n" * number)
    (tmp_path / "mine.csv").write_text("video\nstreet_scene.mp4\n")
    videos = lookup.videos(str(tmp_path / "mine.csv"))
    found = lookup.look_up(videos, [str(tmp_path / "list.txt")])
    notes = found["lists"][0]["notes"]
    if number == 20:
        assert (len(found["hits"]), notes) == (20, [])
    else:
        assert not found["hits"] and notes[0].startswith("21 entries with a name that")


def test_hashes_of_pictures_are_those_of_plain_loops():
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (40, 60, 3), np.uint8)
    grey = Image.fromarray(frame).convert("L")
    small = np.asarray(grey.resize((9, 8), Image.Resampling.LANCZOS)).astype(int)
    bits = "".join(
        str(int(small[y, x + 1] > small[y, x])) for y in range(8) for x in range(8)
    )
    assert hashes.picture_hash(frame, "dHash") == int(bits, 2)
    small = np.asarray(grey.resize((32, 32), Image.Resampling.LANCZOS)).astype(float)
    n = np.arange(32)
    waves = np.array([np.cos(np.pi * k * (2 * n + 1) / 64) for k in range(8)])
    low = waves @ small @ waves.T
    bits = "".join("01"[x] for x in (low > np.median(low)).flatten().tolist())
    assert hashes.picture_hash(frame, "pHash") == int(bits, 2)


def test_two_ids_in_one_row_are_refused(tmp_path):
    (tmp_path / "mine.csv").write_text(
        f"video,url\n{ID}.mp4,https://youtu.be/{OTHER}\n"
    )
    with pytest.raises(AuditError, match="row 1 names several YouTube videos"):
        lookup.videos(str(tmp_path / "mine.csv"))


def test_a_list_in_two_forms_is_looked_up_in_both_and_noted(tmp_path):
    (tmp_path / "mine.txt").write_text(f"{ID}\nmy_holiday.mp4\n")
    lines = (
        [f"https://youtu.be/{ID}"] * 30 + ["x/my_holiday.mp4"] + ["a/b_c_d_e.mp4"] * 30
    )
    (tmp_path / "list.txt").write_text("\n".join(lines))
    videos = lookup.videos(str(tmp_path / "mine.txt"))
    found = lookup.look_up(videos, [str(tmp_path / "list.txt")])
    assert {x["how"] for x in found["hits"]} == {keys.YOUTUBE, keys.FILE}
    assert "in several ways" in found["lists"][0]["notes"][0]


def test_lists_that_name_no_videos_are_refused_together(tmp_path):
    (tmp_path / "mine.txt").write_text(f"{ID}\n")
    (tmp_path / "numbers.csv").write_text("a,b\n1,2\n")
    (tmp_path / "page.html").write_text("<html>")
    lists = [str(tmp_path / x) for x in ("numbers.csv", "page.html", "gone.json")]
    with pytest.raises(AuditError) as raised:
        lookup.look_up(lookup.videos(str(tmp_path / "mine.txt")), lists)
    said = raised.value.problems
    assert (
        len(said) == 3 and "its columns: a, b" in said[0] and "unknown form" in said[1]
    )


def test_a_manifest_that_names_no_video(tmp_path):
    (tmp_path / "mine.csv").write_text("id\n1\n2\n")
    with pytest.raises(AuditError, match="none of 2 rows names a video"):
        lookup.videos(str(tmp_path / "mine.csv"))


def _vidsme(*arguments):
    return children.run(
        [sys.executable, "-m", "vidsme_jax", "lookup", *map(str, arguments)]
    )


def test_the_command(tmp_path):
    mine, listed, none = _lists(tmp_path)
    out = tmp_path / "found.json"
    done = _vidsme(mine, "--in", listed, none, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        f"named  v_{ID}.mp4  {listed}:3000  YouTube id  {ID}\n"
    )
    before = out.read_bytes()
    again = _vidsme(mine, "--in", none, "--out", out)
    assert again.returncode == 2 and "it is there already" in again.stderr
    assert out.read_bytes() == before
    assert _vidsme(mine).returncode == 2


def test_many_hits_are_shortened():
    hit = {
        "video": "a",
        "list": "b",
        "row": 1,
        "how": "id",
        "entry": "c",
        "identity": False,
    }
    found = {"hits": [hit] * 60, "lists": [], "statement": "said"}
    lines = lookup_command.in_words(found)
    assert len(lines) == 52 and lines[-2:] == ["and 10 more", "said"]


def _items(*names):
    return tuple(Item(x, x, f"/clips/{x}", "suspects") for x in names)


def test_the_report_takes_what_was_found(tmp_path):
    mine, listed, _ = _lists(tmp_path)
    videos = lookup.videos(str(mine))
    found = lookup.look_up(videos, [str(listed)])
    path = tmp_path / "found.json"
    published_result.write(path, str(mine), videos, found)
    items = _items(f"v_{ID}.mp4", "unknown.mp4")
    of_audit = published_result.opened(str(path), items)
    assert of_audit and of_audit["looked_up"] == 1
    assert [(x["role"], x["row"]) for x in of_audit["hits"]] == [("suspects", 3000)]
    assert of_audit["statement"].startswith("1 of 1 video is named in a list")
    with pytest.raises(AuditError, match="is of other videos"):
        published_result.opened(str(path), _items("unknown.mp4"))
    with pytest.raises(AuditError, match="is not there; make it by"):
        published_result.opened(str(tmp_path / "gone.json"), items)
    path.write_text(path.read_text().replace('"row": 3000', '"row": 3001'))
    with pytest.raises(AuditError, match="it was changed after it was written"):
        published_result.opened(str(path), items)
    assert published_result.opened("", items) is None


def test_a_hit_stands_above_the_verdict(tmp_path):
    config = settings.variant(
        settings.default(), "tiny", {"tiny": "random:llava_qwen-tiny"}
    )
    config.report.published = str(tmp_path / "gone.json")
    with pytest.raises(AuditError, match=r"config\.report\.published: "):
        asking.ask(config, model=False)
