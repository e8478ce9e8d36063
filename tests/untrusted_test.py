"""Names, texts and checkpoints that somebody else wrote, with the worst intentions."""

import ast
import csv
import dataclasses
import json
import pathlib
import resource
import shutil
import struct

import numpy as np
import pytest
from pyarrow import parquet

import report_test
from oracles import llava_next_video as oracle
from vidsme_jax import exits, models, settings
from vidsme_jax.base import AuditError, Failure
from vidsme_jax.report import figures
from vidsme_jax.settings import views
from vidsme_jax.studies import findings, writing
from vidsme_jax.studies.points import Point, Sheet
from vidsme_jax.wording import printable

ROOT = pathlib.Path(__file__).parents[1]
HOSTILE = (
    "<script>alert(1)</script>",
    "</td></table></script><img src=x onerror=alert(1)>",
    "\" onmouseover='alert(1)' x=\"",
    "javascript:alert(1)",
    "a\0b\x1b[31mred\x07",
    "gpj.\u202efdp\u2066.exe\u2029",
    "{{ 7 * 191 }}{% raw %}${7*191}",
    "&lt;b&gt; &amp;",
    "\udcff not UTF-8",
    "x" * 1_000_000,
    "\u05d0\u05d1\u05d2 \u0645\u0631\u062d\u0628\u0627 \u65e5\u672c",
)


# ---------------------------------------------------------------------------- report


# Of the pages of this program, whatever is in them: drawings are SVG.
TAGS = frozenset(
    "a article body br caption clippath code dd defs desc details div dl dt "
    "figcaption figure g h1 h2 h3 h4 head header html img li main meta nav p "
    "path rect script section span strong style summary svg table tbody td text "
    "th thead title tr ul use".split()
)
ATTRIBUTES = frozenset(
    "alt aria-describedby aria-hidden aria-label aria-labelledby charset class "
    "clip-path colspan content d data-label data-sort data-v fill fill-opacity "
    "font-size height href http-equiv id lang name opacity open "
    "preserveaspectratio role scope src stroke stroke-dasharray "
    "stroke-dashoffset stroke-linecap stroke-width text-anchor transform viewbox width "
    "x y".split()
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A report in which everything that others may name is hostile."""
    table = report_test._table((22, 22, 22, 0))
    names = np.array([HOSTILE[i % len(HOSTILE)] for i in range(66)], object)
    group = np.array([*[""] * 22, *(str(i % 22) for i in range(44))], object)
    group[22:33] = HOSTILE
    curves = [report_test._curve(text) for text in HOSTILE[:2]]
    changed = {field: getattr(table, field) for field in table.__dataclass_fields__}
    changed |= {"video": names, "group": group}
    changed["id"] = np.array([f"{name}{i}" for i, name in enumerate(names)], object)
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "_MAX_COMPARISONS", 1)
        _, text = report_test._write(
            folder,
            type(table)(**changed),
            curves=curves,
            run={"config": dict.fromkeys(HOSTILE, HOSTILE)},
            failures=[Failure(id=h, video=h, stage="open", cause=h) for h in HOSTILE]
            * 100,
            warnings={h: [h] * 3 for h in HOSTILE},
            descriptions={"vid_sme": HOSTILE[0]},
        )
    return folder, text


@pytest.mark.long
def test_the_page_holds_no_markup_of_others(hostile):
    _, text = hostile
    parsed = report_test._Page(text)
    assert set(parsed.tags) <= TAGS
    assert parsed.tags.count("script") == parsed.tags.count("style") == 1
    assert all(r.startswith(("data:image/", "#")) for r in parsed.references)
    assert "1337" not in text, "a template of others was run"
    for shown in ("alert(1)", "javascript:alert(1)", "\u65e5\u672c", "\\x1b[31mred"):
        assert shown in parsed.words
    for character in "\0\x1b\x07\u202e\u2066\u2029":
        assert character not in text
    assert "onerror=" not in {a for tag in parsed.tags for a in tag}


@pytest.mark.long
def test_no_attribute_is_of_others(hostile):
    import html.parser

    class Attributes(html.parser.HTMLParser):
        found: set

        def handle_starttag(self, tag, attrs):
            self.found |= {name for name, _ in attrs}

    attributes = Attributes()
    attributes.found = set()
    attributes.feed(hostile[1])
    assert not {name for name in attributes.found if name.startswith("on")}
    assert attributes.found <= ATTRIBUTES


@pytest.mark.long
def test_the_page_stays_small(hostile):
    folder, text = hostile
    assert len(text.encode()) < 5e6
    assert "... (1000000 characters)" in text
    assert "largest of 23 comparisons" in text
    assert len(json.loads((folder / "metrics.json").read_text())["comparisons"]) == 23


def test_the_other_files_have_all_of_it(hostile):
    folder, _ = hostile
    videos = parquet.read_table(folder / "scores.parquet").column("video").to_pylist()
    assert videos[4] == HOSTILE[4] and videos[9] == HOSTILE[9]
    lines = (folder / "failures.jsonl").read_text().splitlines()
    assert [json.loads(line)["video"] for line in lines[:10]] == list(HOSTILE[:10])


def test_a_spreadsheet_runs_nothing(tmp_path):
    table = report_test._table((2, 2, 0, 0))
    risky = ["=cmd|' /C calc'!A0", "@SUM(1)", "-2+3", "+1"]
    table.video[:] = risky
    table.id[:] = ["\t=1", "\r=1", "plain", "a=b"]
    report_test.files.write_scores(tmp_path, table)
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows] == [f"'{text}" for text in risky]
    assert [row["id"] for row in rows] == ["'\t=1", "'\r=1", "plain", "a=b"]
    for row, score in zip(rows, table.scores["vid_sme"], strict=True):
        assert float(row["vid_sme"]) == score  # Negative numbers stay numbers.
    exact = parquet.read_table(tmp_path / "scores.parquet")
    assert exact.column("video").to_pylist() == risky


def test_the_files_of_a_study_are_as_careful(tmp_path, monkeypatch):
    table = report_test._table((22, 44, 0, 0))
    table.group[22:] = [*HOSTILE, "=1+1", *(f"group {i % 9}" for i in range(32))]
    points = [Point(at={"k": k}, score="vid_sme") for k in (0, 30)]
    scores = {point.name: table.scores["vid_sme"] for point in points}
    sheets = [Sheet(tuple(points), dataclasses.replace(table, scores=scores))]
    config = settings.default()
    config.report.num_permutations = 100
    monkeypatch.setattr(findings, "_NUM_SHUFFLES", 100)
    writing.write(
        tmp_path,
        findings.evaluate(sheets, "k", views.Settings.of(config).report),
        sheets,
        run={"config": {"report.fprs": (0.01,), **dict.fromkeys(HOSTILE, HOSTILE)}},
        failures=[],
        headline="vid_sme",
    )
    text = (tmp_path / "study.html").read_text()
    parsed = report_test._Page(text)
    assert set(parsed.tags) <= TAGS
    assert parsed.tags.count("script") == parsed.tags.count("style") == 1
    assert all(r.startswith(("data:image/", "#")) for r in parsed.references)
    assert "1337" not in text and len(text.encode()) < 5e6
    assert "The first 20 of 22 comparisons" in text
    for character in "\0\x1b\x07\u202e\u2066\u2029":
        assert character not in text
    text = (tmp_path / "study.csv").read_text()
    assert '\n"\'=1+1",' in text and '\n"=1+1",' not in text


# -------------------------------------------------------------------------- terminal


def test_printable():
    assert printable("a\x1b[2J\nb\u202ec\udcff") == "a\\x1b[2J\\nb\\u202ec\\udcff"
    kept = "größer, 日本\u3000語, مرحبا, 👩\u200d🚀"
    assert printable(kept) == kept
    assert printable("x" * 9, most=4) == "xxxx... (9 characters)"


def test_a_terminal_is_not_steered_by_names(capsys):
    assert exits.wrong(["m.json: row 1: '\x1b]0;owned\x07'"]) == 2
    assert "\x1b" not in capsys.readouterr().err


# ------------------------------------------------------------------------ checkpoints


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return oracle.save(oracle.make_model(), tmp_path_factory.mktemp("model"), shards=2)


@pytest.fixture
def checkpoint(saved, tmp_path):
    return pathlib.Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def demo(tmp_path):
    """With a tokenizer, so that its tensors are looked at."""
    return pathlib.Path(
        shutil.copytree(settings.DEMO / "checkpoint", tmp_path / "demo")
    )


def _refused(folder: pathlib.Path) -> str:
    """What is said of a checkpoint, which must take next to no memory to say."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AuditError) as caught:
        models.inspect(str(folder), dtype="float32")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
    return str(caught.value)


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("text_config", "hidden_size"),
        ("text_config", "num_hidden_layers"),
        ("text_config", "vocab_size"),
        ("text_config", "intermediate_size"),
        ("text_config", "num_attention_heads"),
        ("text_config", "max_position_embeddings"),
        ("vision_config", "image_size"),
        ("vision_config", "hidden_size"),
        ("vision_config", "num_hidden_layers"),
    ],
)
@pytest.mark.parametrize("value", [10**9, 10**30, -1])
def test_absurd_sizes_are_refused_not_allocated(checkpoint, part, key, value):
    raw = json.loads((checkpoint / "config.json").read_text())
    raw[part][key] = value
    (checkpoint / "config.json").write_text(json.dumps(raw))
    assert f"{part}: {key} is {value}, expected 1 to " in _refused(checkpoint)


@pytest.mark.parametrize("value", [1 << 24, 1000])
def test_sizes_that_the_tensors_do_not_have(demo, value):
    raw = json.loads((demo / "config.json").read_text())
    raw["text_config"] |= {"hidden_size": value, "intermediate_size": value}
    (demo / "config.json").write_text(json.dumps(raw))
    assert "by the config" in _refused(demo)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, "", "[]", "\0"])
def test_a_config_that_is_none(checkpoint, text):
    (checkpoint / "config.json").write_text(text)
    assert "config.json: " in _refused(checkpoint)


def test_a_config_of_any_size(checkpoint):
    with (checkpoint / "config.json").open("wb") as file:
        file.truncate(1 << 40)  # A terabyte of nothing: a sparse file.
    assert "at most 128 MiB" in _refused(checkpoint)


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "x.bin", "", 7]
)
def test_an_index_does_not_lead_outside(checkpoint, name):
    index = checkpoint / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    raw["weight_map"] = dict.fromkeys(raw["weight_map"], name)
    index.write_text(json.dumps(raw))
    assert (
        f"{str(name)!r} is not the name of a .safetensors file in the same folder"
        in (_refused(checkpoint))
    )


def test_an_index_that_is_no_map(checkpoint):
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": ["a"]}))
    assert "expected {tensor: file}; fetch it again" in _refused(checkpoint)


def _header(value, size=None) -> bytes:
    text = json.dumps(value).encode() if not isinstance(value, bytes) else value
    return struct.pack("<Q", len(text) if size is None else size) + text


@pytest.mark.parametrize(
    "content",
    [
        _header({}, size=1 << 40),
        _header({}, size=(1 << 64) - 1),
        _header({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}),
        _header({"a": {"dtype": "F32", "shape": [1 << 62, 8], "data_offsets": [0, 0]}}),
        _header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1 << 50]}}),
        _header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}),
        _header(b"[" * 1_000_000),
        b"",
    ],
    ids=str,
)
def test_headers_of_weights_that_lie(checkpoint, content):
    part = sorted(checkpoint.glob("*.safetensors"))[0]
    part.write_bytes(content)
    assert f"{part.name}: damaged (" in _refused(checkpoint)


def test_code_in_a_checkpoint_is_not_run(demo, tmp_path):
    mark = tmp_path / "was_run"
    code = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nclass Mine: pass\n"
    (demo / "mine.py").write_text(code)
    for name in ("tokenizer_config.json", "config.json"):
        raw = json.loads((demo / name).read_text())
        raw["auto_map"] = {
            "AutoTokenizer": ["mine.Mine", "mine.Mine"],
            "AutoConfig": "mine.Mine",
        }
        raw["tokenizer_class"] = "Mine"
        (demo / name).write_text(json.dumps(raw))
    assert "auto_map" in _refused(demo)
    assert not mark.exists()


def test_remote_code_is_never_trusted():
    for path in sorted((ROOT / "vidsme_jax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr == "from_pretrained":
                    given = {keyword.arg for keyword in node.keywords}
                    assert {"trust_remote_code", "local_files_only"} <= given, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "__import__"), path
