"""Why a file is not found: its name in another form, as people have them."""

import difflib
import json
import os
import pathlib
import subprocess
import sys
import unicodedata

import pytest
from corpus_files import as_json, corpus_of, files, load, problem_of

from vidsme_jax.base import ClipError
from vidsme_jax.data import names, video

NAME = "Größe café.mp4"
COMPOSED, DECOMPOSED = (unicodedata.normalize(f, NAME) for f in ("NFC", "NFD"))
_RENAME = "rename the file, or write its name in the manifest as it is on disk"

# What the manifest has, what is on disk, the cause, the remedy.
FORMS = {
    "decomposed": (COMPOSED, DECOMPOSED, "decomposed unicode form (NFD)", _RENAME),
    "composed": (DECOMPOSED, COMPOSED, "composed unicode form (NFC)", _RENAME),
    "windows": (
        "sub\\deep\\a.mp4",
        "sub/deep/a.mp4",
        "the separators of Windows",
        "write / in place of \\",
    ),
    "drive": ("C:\\sub\\a.mp4", "sub/a.mp4", "the separators of Windows", "write /"),
    "garbled manifest": (
        NAME.encode().decode("latin-1"),
        NAME,
        "the manifest's UTF-8 was read as latin-1",
        "write it again as UTF-8",
    ),
    "garbled by an unpacker": (NAME, NAME.encode().decode("cp437"), "cp437", _RENAME),
    "bytes of Latin-1": (
        NAME,
        os.fsdecode(NAME.encode("latin-1")),
        "in the character set latin-1, not in UTF-8",
        _RENAME,
    ),
    "bytes of Shift-JIS": (
        "動画.mp4",
        os.fsdecode("動画.mp4".encode("shift_jis")),
        "in the character set shift_jis",
        _RENAME,
    ),
    "no suffix": ("4010069381", "4010069381.mp4", "leaves out the suffix", "add .mp4"),
    "upper case": ("a.mp4", "a.MP4", "upper and lower case", _RENAME),
    "spaces": (" a.mp4", "a.mp4", "spaces around the name", "remove them"),
    "URL": ("a%20b.mp4", "a b.mp4", "as in a URL", "write it as it is"),
}


@pytest.mark.parametrize("case", FORMS)
def test_the_cause_and_the_remedy_are_named(tmp_path, case):
    asked, there, cause, remedy = FORMS[case]
    files(tmp_path, there)
    missing = names.why_missing(tmp_path / asked)
    base = pathlib.Path(there).name if "/" not in there else str(tmp_path / there)
    assert missing.startswith(f"; did you mean {base!r}? ")
    assert cause in missing and remedy in missing
    # So for a clip among others, and for a manifest of no other.
    with pytest.raises(ClipError) as caught:
        video.content_hash(tmp_path / asked)
    assert caught.value.cause == f"no such file: {tmp_path / asked}{missing}"
    source = as_json(tmp_path / "m.json", [{"video": asked}])
    assert missing in problem_of(suspects=(source,), looks=True)


def test_a_folder_on_the_way_may_be_named_otherwise(tmp_path):
    files(tmp_path, f"{DECOMPOSED}/b.MP4")
    missing = names.why_missing(tmp_path / COMPOSED / "b.mp4")
    assert missing.startswith(
        f"; did you mean {str(tmp_path / DECOMPOSED / 'b.MP4')!r}"
    )
    assert "unicode form (NFD)" in missing and "upper and lower case" in missing


def test_a_windows_path_that_leads_nowhere(tmp_path):
    missing = names.why_missing(tmp_path / "C:\\Users\\me\\a.mp4")
    assert missing == (
        "; the name has the separators of Windows; write / in place of \\"
    )
    assert names.why_missing(tmp_path / "a.mp4") == ""


def test_a_name_with_half_characters_is_that_of_its_bytes(tmp_path):
    # As a program in the locale C writes names that are UTF-8.
    files(tmp_path, NAME)
    broken = NAME.encode().decode("ascii", "surrogateescape")
    rows = [{"video": NAME}, {"video": broken, "question": "again"}]
    path = tmp_path / "m.json"
    path.write_text(json.dumps(rows))
    one, other = load(corpus_of(suspects=(str(path),)), looks=True)
    assert one.clip == other.clip == str(tmp_path / NAME)


def test_a_wrong_locale_is_named(tmp_path):
    files(tmp_path, NAME)
    code = (
        "import pathlib; from vidsme_jax.data import names; "
        f"print(ascii(names.why_missing(pathlib.Path({str(tmp_path)!r}) / {NAME!r})));"
        f"print(names.unencodable({NAME!r}))"
    )
    ascii_only = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    path = os.pathsep.join([str(pathlib.Path(__file__).parents[2]), *sys.path])
    environment = {**os.environ, **ascii_only, "PYTHONPATH": path}
    script = tmp_path / "script.py"
    script.write_text(code, "utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True
    )
    found, problem = done.stdout.splitlines()
    assert "its name is UTF-8, the locale's character set is ascii" in found
    assert "set PYTHONUTF8=1 or LC_ALL=C.UTF-8" in found
    assert "the locale's character set, ascii, does not have its characters" in problem
    assert "PYTHONUTF8=1" in problem


def test_the_nearest_name(tmp_path):
    files(tmp_path, "4010069381.mp4", "4010069382.mp4", "clip.webm")
    assert names.near(tmp_path / "4010069382") == "; did you mean '4010069382.mp4'?"
    assert names.near(tmp_path / "clip.mp4") == "; did you mean 'clip.webm'?"
    assert names.near(tmp_path / "401006938.mp4").startswith("; did you mean '4010069")
    assert names.near(tmp_path / "nothing like it") == ""


def test_a_missing_video_has_the_nearest_name_of_its_folder(tmp_path, monkeypatch):
    files(tmp_path, "holiday.mp4", "clip_1.webm", "b.mp4", "v_0001.mp4", "notes.txt")
    listed, listdir = [], os.listdir
    monkeypatch.setattr(names.os, "listdir", lambda x: listed.append(x) or listdir(x))

    def cause(name):
        with pytest.raises(ClipError) as caught:
            video.content_hash(tmp_path / name)
        return caught.value.cause.removeprefix(f"no such file: {tmp_path / name}")

    assert cause("holidy.mp4") == "; did you mean 'holiday.mp4'?"
    assert cause("clip-1.mp4") == "; did you mean 'clip_1.webm'?"
    assert cause("~/holiday.mp4") == "; ~ is not expanded in a manifest"
    for other in ("a.mp4", "v_0002.mp4", "note.mp4", "no/folder.mp4"):
        assert cause(other) == ""
    assert listed == [str(tmp_path)]


def test_a_name_of_very_many_digits(tmp_path):
    files(tmp_path, "a1.mp4")
    source = as_json(tmp_path / "m.json", [{"video": f"a{'1' * 5000}.mp4"}])
    assert "none of the 1 video" in problem_of(looks=True, suspects=(source,))


def test_a_file_whose_name_begins_with_a_tilde(tmp_path):
    files(tmp_path, "~clip1.mp4")
    cause = names.hint_for_missing(tmp_path / "~clipp1.mp4")
    assert cause == "; did you mean '~clip1.mp4'?"


def test_a_configured_name_with_brackets_in_another_form(tmp_path):
    composed, decomposed = (
        f"{x.removesuffix('.mp4')}[1].mp4" for x in (COMPOSED, DECOMPOSED)
    )
    files(tmp_path, decomposed)
    said = problem_of(suspects=(str(tmp_path / composed),))
    assert "decomposed unicode form (NFD)" in said


def test_similar_names_are_looked_for_a_thousand_times(tmp_path, monkeypatch):
    (tmp_path / "holiday.mp4").touch()
    asked = []
    close = difflib.get_close_matches
    monkeypatch.setattr(
        difflib, "get_close_matches", lambda *a, **k: asked.append(a) or close(*a, **k)
    )
    found = [names.hint_for_missing(tmp_path / f"holidaz{k}.mp4") for k in range(3)]
    monkeypatch.setattr(names, "_LOOKED_FOR", 5)
    found += [names.hint_for_missing(tmp_path / "holidaz.mp4") for _ in range(9)]
    assert len(asked) == 5
    assert found[3] == "; did you mean 'holiday.mp4'?" and found[-1] == ""
