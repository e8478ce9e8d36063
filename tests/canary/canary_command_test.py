"""`vidsme canary` from clips to p, and one sentence for whatever is wrong."""

import itertools
import json
import math
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from absl import flags

from canary.canary_clips import drawn, encode
from memory_store import MemoryStore
from vidsme_jax import audit, settings
from vidsme_jax.base import AuditError
from vidsme_jax.canary import key
from vidsme_jax.commands import canary as canary_command
from vidsme_jax.demo import drawing
from vidsme_jax.store import buckets, workdirs
from vidsme_jax.store.buckets import Bucket
from vidsme_jax.store.workdirs import Workdir

pytestmark = pytest.mark.usefixtures("without_figures")

SETS, N = 3, 8


def _clips(folder, first=0):
    folder.mkdir()
    rows = []
    for place in range(first, first + SETS):
        encode(folder / f"film {place}.mp4", drawn(64, 64, 4, seed=place))
        scene = drawing.make_scene(np.random.default_rng(place))
        row = {"video": f"film {place}.mp4", "question": drawing.QUESTIONS[0]}
        rows.append(row | {"answer": drawing.caption(scene)})
    manifest = folder / "clips.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def _audited(manifest, workdir, **keys):
    config = settings.default()
    config.model.checkpoint = str(settings.DEMO / "checkpoint")
    config.model.dtype = "float32"
    config.corpus.suspects = (str(manifest),)
    config.video.num_frames = 2
    config.slices, config.batch_size = ("response",), 8
    config.scores = ("response_loss", "response_min_k_prob_0")
    config.headline = "response_loss"
    for name, value in keys.items():
        group, _, last = name.rpartition("__")
        (config[group] if group else config)[last] = value
    audit.run(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Canary sets of three clips, what the command said, and an audit of them."""
    folder = tmp_path_factory.mktemp("canaries")
    said = canary_command.make(str(_clips(folder / "clips")), folder / "out", N, 7)
    _audited(folder / "out/variants.jsonl", folder / "run")
    return folder, said


@pytest.fixture
def run(made, tmp_path):
    """A copy of the audit, which a test may change."""
    shutil.copytree(made[0] / "run", tmp_path / "run")
    return tmp_path / "run"


def _main(monkeypatch, capsys, *given):
    """Runs the command; returns its status and what it said."""
    values = flags.FlagValues()
    for name in ("clips", "out", "key", "workdir", "score"):
        flags.DEFINE_string(name, None, "", flag_values=values)
    for name in ("variants", "seed"):
        flags.DEFINE_integer(name, None, "", flag_values=values)
    values(["vidsme", *map(str, given)])
    monkeypatch.setattr(flags, "FLAGS", values)
    monkeypatch.setattr(canary_command.commands, "begin", lambda: None)
    status = canary_command.main(["vidsme"])
    said = capsys.readouterr()
    return status, said.out + said.err


def _problem(monkeypatch, capsys, *given):
    status, said = _main(monkeypatch, capsys, *given)
    assert status == 2
    head, problem, *rest = said.strip().splitlines()
    assert head == "nothing was computed, 1 problem:" and not rest
    return problem


@pytest.mark.long
def test_what_to_do_is_said(made):
    folder, said = made
    found = key.read(folder / "out/key.json")
    assert (
        said.count("PSNR at least 40.") == SETS
        and said.count("8 of 8 are identified") == SETS
    )
    assert f"SHA-256 of key.json = {found.digest}" in said
    assert "anyone who guesses that number" in said
    assert re.search("Keep .*key.json and the variants secret", said)
    assert "do not survive" not in said


@pytest.mark.long
def test_p_is_that_of_the_scores_by_content(made, run):
    """The files are found by what they hold, and the scores are those of the table."""
    folder, _ = made
    opened = key.read(folder / "out")
    said = canary_command.test(folder / "out/key.json", Workdir.at(run))
    table = pq.read_table(run / "scores.parquet").to_pylist()
    rows = {row["id"]: row["response_loss"] for row in table}
    p_values = []
    for each in opened.sets:
        scores = [rows[f"{each.name}/{k:04d}"] for k in range(N)]
        own = scores[each.chosen]
        p_values.append(sum(x >= own for x in scores) / N)
    found = json.loads((run / "canary-response_loss.json").read_text())
    assert [each["p"] for each in found["sets"]] == p_values
    counts = [round(p * N) for p in p_values]
    every = itertools.product(range(1, N + 1), repeat=SETS)
    assert found["p"] == pytest.approx(
        np.mean([math.prod(x) <= math.prod(counts) for x in every]), abs=1e-6
    )
    assert found["declared"] and found["key"] == opened.digest
    assert f"p = {found['p']:.2g} (Fisher" in said and opened.digest in said
    assert found["statement"] in said
    # The same test again changes nothing, and says the same.
    before = (run / "canary-response_loss.json").read_bytes()
    assert canary_command.test(folder / "out", Workdir.at(run)) == said
    assert (run / "canary-response_loss.json").read_bytes() == before


def test_the_result_is_put_into_an_object_store(made, run, monkeypatch, tmp_path):
    store = MemoryStore()
    monkeypatch.setattr(Bucket, "_store", store)
    monkeypatch.setattr(buckets, "DRIVERS", {"gs": "json"})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for path in (path for path in run.rglob("*") if path.is_file()):
        name = path.relative_to(run).as_posix()
        if not name.startswith(("canary-", ".")):
            store.pipe_file(f"audits/run/{name}", path.read_bytes(), "create")
    for _ in range(2):
        with workdirs.opened("gs://audits/run", parts=True) as place:
            said = canary_command.test(made[0] / "out", place)
        (there,) = (name for name in store.objects if "canary-" in name)
        assert said.endswith(f"result: gs://{there}")


def test_another_score_is_said_to_be_one(made, run):
    said = canary_command.test(
        made[0] / "out", Workdir.at(run), "response_min_k_prob_0"
    )
    assert "The declared headline is response_loss" in said
    assert not json.loads((run / "canary-response_min_k_prob_0.json").read_text())[
        "declared"
    ]


def test_names_do_not_count(made, run, tmp_path):
    """Variants that were renamed and mixed up are found all the same."""
    folder, _ = made
    lines = (folder / "out/variants.jsonl").read_text().splitlines()
    rng = np.random.default_rng(0)
    rows = []
    for place, index in enumerate(rng.permutation(len(lines)).tolist()):
        row = json.loads(lines[index])
        shutil.copyfile(folder / "out" / row["video"], tmp_path / f"{place}.mp4")
        rows.append(row | {"video": f"{place}.mp4", "id": f"{place}", "source": ""})
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(x) + "\n" for x in rows))
    other = _audited(tmp_path / "m.jsonl", tmp_path / "other")
    canary_command.test(folder / "out", Workdir.at(other))
    canary_command.test(folder / "out", Workdir.at(run))
    name = "canary-response_loss.json"
    one, two = (json.loads((x / name).read_text()) for x in (run, other))
    assert one["sets"] == two["sets"] and one["corpus"] != two["corpus"]


@pytest.mark.long
def test_the_release_s_sign_is_turned(made, tmp_path):
    """In the profile `official` small scores are members'."""
    manifest = made[0] / "out/variants.jsonl"
    official = _audited(
        manifest, tmp_path / "official", profile="official", slices=("video",),
        scores="all", headline="Min_30.0% vetp",
    )  # fmt: skip
    found = canary_command.test(made[0] / "out", Workdir.at(official))
    assert "by Min_30.0% vetp" in found
    rows = pq.read_table(official / "scores.parquet").to_pylist()
    scores = {row["id"]: row["Min_30.0% vetp"] for row in rows}
    first = key.read(made[0] / "out").sets[0]
    its = [scores[f"{first.name}/{k:04d}"] for k in range(N)]
    result = json.loads(next(official.glob("canary-*.json")).read_text())
    assert result["sets"][0]["rank"] == sum(x <= its[first.chosen] for x in its)


def test_the_key_of_another_canary_set(made, run, tmp_path, monkeypatch, capsys):
    other = _clips(tmp_path / "clips", first=10)
    canary_command.make(str(other), tmp_path / "out", 2, 8)
    given = f"--key={tmp_path / 'out'}", f"--workdir={run}"
    problem = _problem(monkeypatch, capsys, *given)
    assert problem.endswith(
        "none of its videos is one of the 6 variants of this key; take the key of the "
        "variants audited"
    )
    assert not list(run.glob("canary*"))


def test_a_result_of_another_key_is_not_written_over(made, run, monkeypatch, capsys):
    path = run / "canary-response_loss.json"
    canary_command.test(made[0] / "out", Workdir.at(run))
    content = json.loads(path.read_text())
    content["p"] = 0.5
    path.write_text(json.dumps(content))
    given = f"--key={made[0] / 'out'}", f"--workdir={run}"
    assert "its digest does not fit" in _problem(monkeypatch, capsys, *given)
    assert json.loads(path.read_text())["p"] == 0.5
    path.unlink()
    own = {k: v for k, v in content.items() if k not in ("format", "time", "digest")}
    key.sealed.write(path, own)
    before = path.read_bytes()
    problem = _problem(monkeypatch, capsys, *given)
    assert "is the result of another key, run or version" in problem
    assert path.read_bytes() == before


def _changed(folder):
    content = (folder / "key.json").read_text()
    chosen = re.search(r'"chosen": (\d)', content)
    assert chosen is not None
    other = (int(chosen[1]) + 1) % N
    text = content.replace(chosen[0], f'"chosen": {other}', 1)
    (folder / "key.json").write_text(text)
    return "its digest does not fit: it was changed after it was written"


def _cut(folder):
    content = (folder / "key.json").read_bytes()
    (folder / "key.json").write_bytes(content[:-100])
    return "it cannot be read"


def _of_a_run(folder):
    (folder / "key.json").write_text("{}")
    return "it has not format"


def _beyond(folder):
    record = json.loads((folder / "key.json").read_text())
    record["sets"][0]["chosen"] = N
    own = {k: v for k, v in record.items() if k not in ("format", "time", "digest")}
    key.sealed.write(folder / "key.json", own)
    return "its sets cannot be those of a key"


def _gone(folder):
    (folder / "key.json").unlink()
    return "no such key"


@pytest.mark.parametrize("damage", [_changed, _cut, _of_a_run, _beyond, _gone])
def test_a_damaged_key(made, run, tmp_path, monkeypatch, capsys, damage):
    (tmp_path / "k").mkdir()
    shutil.copyfile(made[0] / "out/key.json", tmp_path / "k/key.json")
    said = damage(tmp_path / "k")
    given = f"--key={tmp_path / 'k/key.json'}", f"--workdir={run}"
    assert said in _problem(monkeypatch, capsys, *given)
    assert not list(run.glob("canary*"))


def test_a_run_without_the_score(made, run, monkeypatch, capsys):
    given = f"--key={made[0] / 'out'}", f"--workdir={run}", "--score=response_los"
    problem = _problem(monkeypatch, capsys, *given)
    assert "no score 'response_los'; did you mean 'response_loss'?" in problem


@pytest.mark.long
def test_a_run_that_scored_some(made, tmp_path, monkeypatch, capsys):
    lines = (made[0] / "out/variants.jsonl").read_text().splitlines()
    for name, count in (("few", 2 * N), ("most", 3 * N - 2)):
        manifest = made[0] / "out" / f"{name}.jsonl"
        manifest.write_text("\n".join(lines[:count]) + "\n")
        _audited(manifest, tmp_path / name)
    given = f"--key={made[0] / 'out'}", f"--workdir={tmp_path / 'few'}"
    problem = _problem(monkeypatch, capsys, *given)
    assert "only 16 of the 24 variants of the key have a score" in problem
    said = canary_command.test(made[0] / "out", Workdir.at(tmp_path / "most"))
    assert "2 variants without a score count as above" in said


def test_a_folder_without_a_run(made, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        canary_command.test(made[0] / "out", Workdir.at(tmp_path))
    assert stopped.value.code == 2
    assert "no config.json, so that no run has finished" in capsys.readouterr().err


def test_nothing_is_written_over(made, tmp_path, monkeypatch, capsys):
    folder, _ = made
    files = {p: p.read_bytes() for p in (folder / "out").rglob("*") if p.is_file()}
    given = f"--clips={folder / 'clips'}", f"--out={folder / 'out'}"
    problem = _problem(monkeypatch, capsys, *given)
    assert "holds the key of a canary set, which is never overwritten" in problem
    assert files == {
        p: p.read_bytes() for p in (folder / "out").rglob("*") if p.is_file()
    }
    (tmp_path / "begun/variants").mkdir(parents=True)
    given = f"--clips={folder / 'clips'}", f"--out={tmp_path / 'begun'}"
    problem = _problem(monkeypatch, capsys, *given)
    assert "is not empty and holds no key" in problem and "delete it" in problem
    (tmp_path / "file").write_text("")
    given = f"--clips={folder / 'clips'}", f"--out={tmp_path / 'file'}"
    assert "is not a folder" in _problem(monkeypatch, capsys, *given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "give --clips and --out, or --key and --workdir"),
        (["--clips=a.mp4"], "--out is missing"),
        (["--key=a"], "--workdir is missing"),
        (["--variants=8", "--out=b"], "--clips is missing"),
        (["--clips=a.mp4", "--key=b"], "--clips and --key: one makes canary sets"),
        (["--clips=a", "--out=b", "--variants=1"], "--variants is 1"),
        (["--clips=a", "--out=b", "--seed=-1"], "--seed is -1"),
        (["--clips=none.jsonl", "--out=none"], "none.jsonl: no such manifest"),
        (["--clips=tfds:x/train", "--out=none"], "tfds:x/train: "),
    ],
)
def test_what_is_wrong_with_flags_is_a_sentence(monkeypatch, capsys, given, said):
    assert said in _problem(monkeypatch, capsys, *given)


def test_rows_that_cannot_be_marked_are_listed_together(tmp_path):
    encode(tmp_path / "a.mp4", drawn(64, 64, 3))
    rows = [
        {"video": "a.mp4", "start": 0, "end": 1},
        {"video": "b.mp4"},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(x) + "\n" for x in rows))
    with pytest.raises(AuditError) as caught:
        canary_command.make(str(tmp_path / "m.jsonl"), tmp_path / "out", 2, 0)
    one, two = caught.value.problems
    assert "a part of a video; cut it out first" in one
    assert "no such file" in two
    assert not (tmp_path / "out").exists()


def test_what_is_interrupted_is_refused_afterwards(tmp_path, monkeypatch, capsys):
    encode(tmp_path / "a.mp4", drawn(64, 64, 3))

    def stop(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("vidsme_jax.canary.survival.see", stop)
        given = f"--clips={tmp_path / 'a.mp4'}", f"--out={tmp_path / 'out'}"
        status, said = _main(patched, capsys, *given)
    assert status == 130 and "interrupted; delete" in said
    assert not (tmp_path / "out/key.json").exists()
    problem = _problem(monkeypatch, capsys, *given)
    assert "holds no key" in problem


def test_no_sentence_claims_more_than_the_test_shows():
    from vidsme_jax.canary import testing
    from vidsme_jax.canary.ranks import Tested

    sets = [Tested(f"film {k}", 64, 1, 0, 1 / 64, 0.03) for k in range(2)]
    said = testing.statement(sets, 0.001, "a", "a", 0.05)
    assert "would come up in at most 0.001 of all draws" in said
    assert "published before the model was trained" in said
    assert "Alone, by Holm's p, at level 0.05: film 0, film 1." in said
    nothing = testing.statement(sets, 0.5, "a", "a", 0.05)
    assert (
        "no evidence that the model was trained" in nothing and "none that" in nothing
    )
