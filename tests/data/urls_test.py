"""Manifests of URLs, whose files a table, a folder or a template names."""

import pathlib
import shutil

import pytest
from corpus_files import as_csv, as_json, as_jsonl, corpus_of, load, problems_of

from vidsme_jax import settings
from vidsme_jax.base import AuditError, ClipError
from vidsme_jax.data import reading, urls
from vidsme_jax.settings import views

CLIPS = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))[:3]
IDS = ("dQw4w9WgXcQ", "a-b_c0123.4", "clip3")
URLS = (
    f"https://www.youtube.com/watch?v={IDS[0]}&t=3",
    f"https://youtu.be/{IDS[1]}",
    "http://films.org/x/clip3.webm",
)


@pytest.fixture
def folder(tmp_path):
    """Three clips by their ids, and a manifest of three URLs and one more."""
    (tmp_path / "v").mkdir()
    for clip, name in zip(CLIPS, IDS, strict=True):
        shutil.copy(clip, tmp_path / "v" / f"{name}.mp4")
    rows = [{"video": url, "question": f"{n}?"} for n, url in enumerate(URLS)]
    as_json(tmp_path / "m.json", [*rows, {"video": "https://youtu.be/lost"}])
    return tmp_path


def _items(folder: pathlib.Path, given, name="m.json", **keys):
    keys = {"suspects": (str(folder / name),), "urls": str(given)} | keys
    return load(corpus_of(**keys), True)


def _refused(folder: pathlib.Path, given, name="m.json", **keys) -> str:
    keys = {"suspects": (str(folder / name),), "urls": str(given)} | keys
    return "\n".join(problems_of(True, **keys))


def _table(folder: pathlib.Path) -> list[dict]:
    asked = (f"https://m.youtube.com/shorts/{IDS[0]}", URLS[1], "https://Films.org/x/")
    asked = (*asked[:2], "https://Films.org/x/clip3.webm")
    files = (f"v/{name}.mp4" for name in IDS)
    return [{"url": u, "file": f} for u, f in zip(asked, files, strict=True)]


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "folder", "template"])
def test_files_of_urls(kind, folder, caplog):
    given = folder / "v"
    if kind == "template":
        given = folder / "v" / "{id}.mp4"
    elif kind != "folder":
        given = folder / f"map.{kind}"
        {"json": as_json, "jsonl": as_jsonl, "csv": as_csv}[kind](given, _table(folder))
    items = _items(folder, given)
    expected = [str(folder / "v" / f"{name}.mp4") for name in IDS]
    assert [item.clip for item in items[:3]] == expected
    assert [item.video for item in items[:3]] == list(URLS)
    assert [item.id for item in items[:3]] == list(URLS)
    reader = reading.Videos(views.view(views.Video, settings.default()))
    assert reader.content_hash(items[0].clip)
    if kind == "template":
        cause = r"no such file: .*v/lost\.mp4"
    else:
        assert "1 of 4 rows name URLs without a file in corpus.urls" in caplog.text
        assert items[3].clip == "url:https://youtu.be/lost"
        assert (items[3].video, items[3].id) == ("https://youtu.be/lost",) * 2
        assert reading.stamp(items[3].clip) == reading.ABSENT
        cause = (
            "no file of this machine for 'https://youtu.be/lost'; nothing is fetched"
        )
    with pytest.raises(ClipError, match=f"open: .*{cause}"):
        reader.read(items[3].clip, {3})


def test_names_of_yt_dlp(folder):
    for name in IDS[:2]:
        path = folder / "v" / f"{name}.mp4"
        path.rename(path.with_name(f"A film, part 1 [{name}].mp4"))
    items = _items(folder, folder / "v")
    assert [pathlib.Path(i.clip).name for i in items[:3]] == [
        f"A film, part 1 [{IDS[0]}].mp4",
        f"A film, part 1 [{IDS[1]}].mp4",
        f"{IDS[2]}.mp4",
    ]


def test_none_has_a_file(folder):
    as_csv(folder / "map.csv", [{"url": "https://a.org/b", "file": "b.mp4"}])
    said = _refused(folder, folder / "map.csv")
    assert (
        "m.json: 4 of 4 rows name URLs without a file in corpus.urls, such as" in said
    )
    assert "nothing is fetched from the network" in said
    said = _refused(folder, "")
    assert said.count("fetch it first, and name its file by corpus.urls") == 4


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://www.youtube.com/watch?list=a&v=ab-c", "ab-c"),
        ("https://YouTube.com/embed/ab-c?start=3", "ab-c"),
        ("https://www.youtube-nocookie.com/embed/ab-c", "ab-c"),
        ("http://youtu.be/ab-c?t=4", "ab-c"),
        ("https://vimeo.com/12345", "12345"),
        ("https://a.org/films/b.c.mp4?x=1#t=3", "b.c"),
        ("https://a.org/", ""),
        ("https://a.org/..", ""),
        ("https://www.youtube.com/watch?v=../../etc/passwd", ""),
        ("https://www.youtube.com/watch?v=%2e%2e%2fpasswd", ""),
        ("https://a.org/a%00b", ""),
        ("https://[a/b", ""),
    ],
)
def test_ids(url, name):
    assert urls.is_url(url) and urls.id_of(url) == name


def test_a_map_of_others_leads_nowhere_else(folder):
    rows = [{"url": URLS[0], "file": "../../etc/passwd"}]
    as_json(folder / "map.json", rows)
    assert "names videos outside of" in _refused(folder, folder / "map.json")
    as_json(folder / "map.json", [{"url": URLS[0], "file": "tfds:a/1.0.0/train/0"}])
    assert "row 1: 'file' is 'tfds:a/1.0.0/train/0'; a row names a file, not" in (
        _refused(folder, folder / "map.json")
    )
    as_json(folder / "n.json", [{"video": "https://a.org/.."}])
    said = _refused(folder, folder / "v" / "{id}.mp4", "n.json")
    assert "1 of 1 rows name URLs without a file" in said


def test_urls_that_are_none_are_not_the_same(folder):
    """Whose parts cannot be told, or only seem to be equal."""
    pairs = [
        ("http://[a/1", "http://[b/2"),
        ("http://a.org/b%3Fx", "http://a.org/b?x?"),
        ("https://youtu.be/dQw4w9WgXcQ", "https://youtu.be/dqW4w9WgXcQ"),
        ("https://a.org/A.mp4", "https://a.org/a.mp4"),
    ]
    for one, other in pairs:
        as_json(folder / "map.json", [{"url": one, "file": "a.mp4"}])
        files = urls.Files(str(folder / "map.json"))
        assert files.video(one) == "a.mp4"
        assert files.video(other) == f"url:{other}"


def test_a_folder_that_cannot_be_listed(folder, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("vidsme_jax.data.urls.os.listdir", denied)
    with pytest.raises(AuditError, match=r"corpus\.urls: the folder .* cannot be read"):
        urls.Files(str(folder))


def test_what_is_no_map(folder):
    assert "corpus.urls: " in _refused(folder, folder / "map.txt")
    said = _refused(folder, folder / "map.csv")
    assert "map.csv: no such manifest" in said
    as_csv(folder / "map.csv", [{"link": URLS[0], "file": "a.mp4"}])
    said = _refused(folder, folder / "map.csv")
    assert (
        "corpus.urls: " in said and "no column 'url'; its columns: link, file" in said
    )
    rows = [{"url": f"ftp://a/{k}", "file": "a"} for k in range(30)]
    as_json(folder / "map.json", [*rows, 7])
    said = _refused(folder, folder / "map.json")
    assert "row 1: 'url' is 'ftp://a/0'; it must begin" in said
    assert "and 12 more problems of its rows" in said
    rows = [{"url": URLS[0], "file": "a.mp4"}, {"url": URLS[0], "file": "b.mp4"}]
    as_json(folder / "map.json", rows)
    assert (
        "row 2: another file of 'https://www.youtube.com/watch?v=dQw4w9WgXcQ&t=3' i"
        in (_refused(folder, folder / "map.json"))
    )
    shutil.copy(CLIPS[0], folder / "v" / f"x [{IDS[0]}].mp4")
    said = _refused(folder, folder / "v")
    assert f"two files of {IDS[0]!r} in " in said and "remove one" in said
    assert "no such folder: " in _refused(folder, folder / "w" / "{id}.mp4")
    (folder / "empty").mkdir()
    assert "no video in the folder" in _refused(folder, folder / "empty")
