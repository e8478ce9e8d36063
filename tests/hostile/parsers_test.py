"""Parsers on whatever Hypothesis thinks of: an answer, or a sentence."""

import json
import os
import pathlib
import tempfile

import fuzzing
import pytest
import targets
from generators import pickles
from hypothesis import HealthCheck, example, given
from hypothesis import settings as how
from hypothesis import strategies as st

from vidsme_jax import settings
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import adapter_config
from vidsme_jax.checkpoints.fields import Fields
from vidsme_jax.data import manifest_rows, manifests, names, segments, sources
from vidsme_jax.models import preprocessor_config
from vidsme_jax.settings import overrides
from vidsme_jax.wording import printable

EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", "30"))
how.register_profile(
    "hostile",
    derandomize=True,
    deadline=None,
    max_examples=EXAMPLES,
    suppress_health_check=list(HealthCheck),
    database=None,
)
how.load_profile("hostile")
MOST = 100_000  # Characters that are said of one input.

TEXT = st.text() | st.text(st.characters(codec=None), max_size=20)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(
    SCALAR,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = ("video", "question", "candidates", "answer", "id", "group", "label")
COLUMNS = st.sampled_from((*FIELDS, "start", "end", "date", "source")) | TEXT
ROW = st.dictionaries(COLUMNS, JSON, max_size=5) | JSON


def _refusing(call, *arguments):
    """Returns what a call returns, or None if it refuses in sentences."""
    try:
        return call(*arguments)
    except AuditError as error:
        _said(error.problems)
        assert error.problems
        return None


def _said(problems: list[str]) -> None:
    assert all(isinstance(problem, str) and problem for problem in problems)
    assert sum(map(len, problems)) < MOST


def _read(suffix: str, data: bytes):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, f"m{suffix}")
        path.write_bytes(data)
        found = _refusing(sources.read, str(path), None, ())
        if found is not None:
            _said(found.problems or [" "])
            for row in found.rows:
                os.fsencode(row.video)


# ----------------------------------------------------------------------- manifests


@pytest.mark.long
@given(st.lists(ROW, max_size=4))
@example([{"video": "a", "id": 10**5000 // 10**4990}])
def test_rows_of_json(rows):
    _read(".json", json.dumps(rows).encode())
    lines = "\n".join(map(json.dumps, rows))
    _read(".jsonl", lines.encode())


@given(st.sampled_from(sorted(manifests.READERS)), st.binary(max_size=200))
def test_bytes_of_manifests(suffix, data):
    _read(suffix, data)


@given(st.lists(st.lists(TEXT, max_size=4), max_size=4), st.sampled_from(',;\t|"'))
def test_texts_of_csv(rows, comma):
    text = "\n".join(comma.join(row) for row in [["video", "id"], *rows])
    _read(".csv", text.encode("utf-8", "surrogatepass"))


@given(st.lists(ROW, max_size=4), st.dictionaries(st.sampled_from(FIELDS), COLUMNS))
def test_rows_are_checked(raw, mapping):
    places = [(f"row {k}", row) for k, row in enumerate(raw)]
    folder, there = pathlib.Path("/videos"), {*FIELDS, *mapping.values()}
    rows, problems = manifest_rows.checked("m", folder, places, mapping, there)
    assert len(rows) <= len(raw)
    _said(problems or [" "])
    for row in rows:
        assert row.label in ("", "members", "nonmembers", "suspects", "calibration")
        assert isinstance(row.id, str)


@pytest.mark.long
@given(JSON, JSON)
@example("9" * 400, None)
@example("0:59.", "\u0661:00")
@example(float("1e308"), 10**400)
def test_segments(start, end):
    try:
        found = segments.of_row(start, end)
    except ValueError as error:
        assert str(error)
        return
    name = segments.joined("a.mp4", found)
    file, again = segments.divided(name)
    assert file == "a.mp4" and (again is None) == (found is None)


@given(TEXT)
@example("a#t=1,2")
@example("a#t=" + "9" * 400 + ",")
def test_keys_of_files(name):
    assert segments.divided(segments.joined(name, None)) == (name, None)
    assert isinstance(names.unencodable(name), str)
    shown = printable(name, 100)
    assert shown == printable(shown, 200)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_names_that_are_missing(name):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, f"x{name.replace('/', '')}"[:60])
        (pathlib.Path(folder) / "there.mp4").touch()
        for call in (names.near, names.hint_for_missing, names.why_missing):
            assert isinstance(call(path), str)


# ------------------------------------------------------------------------ settings


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(settings.RULES)) | TEXT, TEXT | JSON.map(repr)
        ),
        max_size=4,
    )
)
def test_values_of_keys(pairs):
    flags = [f"--config.{key}={value}" for key, value in pairs]
    _, given_ = overrides.split(["vidsme", *flags], settings.RULES)
    config = settings.default()
    overrides.apply(config, given_, settings.RULES)
    _said(settings.problems(config) or [" "])
    _refusing(settings.restored, {key: value for key, value in pairs})


# --------------------------------------------------------------------- checkpoints


def _config(keys: st.SearchStrategy) -> st.SearchStrategy:
    return st.dictionaries(keys, JSON, max_size=5)


PROCESSOR = """size crop_size do_resize do_center_crop do_rescale do_normalize resample
    rescale_factor image_mean image_std default_to_square offset""".split()


@given(_config(st.sampled_from(PROCESSOR) | TEXT) | JSON)
@example({"size": {"shortest_edge": float("inf")}})
@example({"crop_size": {"height": [1], "width": [2]}})
@example({"image_mean": ["a", 1, 2], "image_std": [0, 0, 0]})
def test_processors(raw):
    problems: list[str] = []
    kind = preprocessor_config.CLIP
    found = preprocessor_config.read(raw, kind, 56, problems)
    assert found.size == 56
    if not problems:
        assert all(std > 0 for std in found.std)


@given(_config(st.sampled_from(sorted(adapter_config.HANDLED - {"bias"})) | TEXT))
@example({"r": 10**4000, "lora_alpha": 1, "use_rslora": True})
@example({"r": 1, "lora_alpha": 1e300})
def test_adapters(raw):
    problems: list[str] = []
    found = adapter_config.read(raw, problems)
    if not problems:
        assert found.base and found.rank >= 1
        assert found.scale_of("a.b") == found.scale_of("a.b")


@given(_config(TEXT) | JSON, st.sampled_from((int, float, str, list, dict, bool)))
def test_fields(raw, kind):
    problems: list[str] = []
    fields = Fields(raw, "config.json", problems)
    for key in [*fields.raw][:3]:
        value = fields.take(key, kind, kind())
        assert isinstance(value, kind)
        size = fields.size(key, 1)
        assert isinstance(size, int) and size >= 1
    fields.close({})
    assert all(isinstance(problem, str) for problem in problems)


@given(st.dictionaries(TEXT, JSON, max_size=3) | JSON, st.binary(max_size=16))
def test_headers_of_safetensors(header, data):
    encoded = json.dumps(header).encode()
    targets.safetensors(len(encoded).to_bytes(8, "little") + encoded + data)


@st.composite
def _descriptions(draw) -> bytes:
    whole = st.integers(-(2**70), 2**70) | st.integers(0, 9)
    sides = st.lists(whole, max_size=3).map(tuple)
    entries = st.one_of(
        st.builds(
            pickles.tensor,
            st.sampled_from("01"),
            st.lists(st.integers(0, 9) | st.integers(0, 2**70), max_size=3).map(tuple),
            kind=st.sampled_from(("FloatStorage", "BoolStorage", "EvilStorage")),
            count=st.none() | whole,
            offset=whole,
            stride=st.none() | sides,
        ),
        whole.map(pickles.number),
        st.text(max_size=5).map(pickles.text),
        st.lists(whole.map(pickles.number), max_size=3).map(
            lambda parts: pickles.tuple_of(*parts)
        ),
    )
    found = pickles.dictionary(draw(st.dictionaries(st.text(max_size=5), entries)))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(found) - 1))
        found = found[:at] + draw(st.binary(max_size=3)) + found[at + 1 :]
    return found


@given(_descriptions())
def test_pickled_descriptions(description):
    targets.pickle(description)


# ------------------------------------------------------------ the corpora of fuzzing


@pytest.mark.parametrize("target", targets.TARGETS)
def test_what_fuzzing_has_kept(target):
    kept = sorted((fuzzing.CORPUS / target).iterdir())
    assert len(kept) > 10
    assert sum(path.stat().st_size for path in kept) < 350_000
    for path in kept:
        targets.TARGETS[target](path.read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("target", targets.TARGETS)
def test_fuzzing(target, tmp_path):
    pytest.importorskip("atheris", reason="pip install -e '.[fuzz]'")
    import subprocess
    import sys

    command = [sys.executable, fuzzing.__file__, target, "--seconds", "60"]
    done = subprocess.run([*command, "--crashes", str(tmp_path)])
    assert done.returncode == 0 and not list(tmp_path.iterdir())
