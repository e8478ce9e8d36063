"""Training: the loss, the loop, and the folder that it writes."""

import errno
import json
import os
import pathlib
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

import children
from decoding import decode
from oracles import llava_next_video as oracle
from oracles import our_logits
from vidsme_jax import models
from vidsme_jax.base import AuditError, Clip
from vidsme_jax.data import corpora
from vidsme_jax.demo import clips, drawing
from vidsme_jax.finetune import __main__ as command
from vidsme_jax.finetune import batches, options, source, training
from vidsme_jax.models import preprocessing
from vidsme_jax.models.batches import Shape, stack
from vidsme_jax.settings import views

pytestmark = pytest.mark.usefixtures("quick_to_compile")
VIDEO = drawing.TOKENS.index("<video>")
FRAMES = 4


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("corpus")
    clips.write_corpus(folder, num_members=5, num_matched=2, num_shifted=1, seed=3)
    return folder


@pytest.fixture(scope="module")
def architecture(tmp_path_factory) -> pathlib.Path:
    """A folder with a config and a tokenizer, and no weights."""
    folder = tmp_path_factory.mktemp("architecture")
    raw = oracle.make_model().config.to_dict()
    raw["video_token_index"] = VIDEO
    raw["image_token_index"] = drawing.TOKENS.index("<image>")
    raw["text_config"]["pad_token_id"] = drawing.TOKENS.index("<pad>")
    (folder / "config.json").write_text(json.dumps(raw))
    drawing.tokenizer_files(folder)
    return folder


@pytest.fixture(scope="module")
def config(corpus, architecture):
    config = options.default()
    config.corpus.members = (str(corpus / "members.jsonl"),)
    config.corpus.nonmembers = (str(corpus / "nonmembers.jsonl"),)
    config.video.num_frames = FRAMES
    config.model.checkpoint = str(architecture)
    config.model.init = "random"
    config.train.batch_size = 3
    config.train.max_steps = 24
    config.train.warmup_steps = 2
    config.train.learning_rate = 1e-2
    return config


@pytest.fixture(scope="module", autouse=True)
def _one_compilation():
    """The runs here share one compiled step: their shapes and settings agree."""
    make_step, made = training.make_step, []

    def once(*args):
        if not made:
            made.append(make_step(*args))
        return made[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "make_step", once)
        yield


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """(folder, what `run` returned)."""
    folder = tmp_path_factory.mktemp("trained") / "checkpoint"
    return folder, training.run(config, folder)


@pytest.fixture(scope="module")
def example(config):
    """(module, the rows of three members, their batch), untrained."""
    opened = source.open_source(config.model.checkpoint, random_seed=0)
    found: list[str] = []
    rows = batches.tokenise(_items(config)[:3], opened.model, FRAMES, found)
    assert not found
    batch = next(batches.Clips(config, opened.model.prepare).batches(rows))
    return nnx.merge(*opened.start()), rows, batch


def _items(config):
    return corpora.load(views.view(views.Corpus, config)).items


def _nll(example, batch=None, **changes) -> np.ndarray:
    model, _, own = example
    batch = jax.tree.map(jnp.asarray, (batch or own)._replace(**changes))
    return np.asarray(jax.jit(training.answer_nll)(model, batch))


def _text(row: np.ndarray) -> list[str]:
    return [drawing.TOKENS[k] for k in row]


def test_training_lowers_the_loss(trained):
    _, record = trained
    assert record["steps"] == len(record["curve"]) == 24
    assert record["curve"][0] == pytest.approx(np.log(128), rel=0.05)
    assert record["losses"]["members"] < 0.8 * record["curve"][0]
    assert set(record["losses"]) == {
        "members",
        "nonmembers matched",
        "nonmembers shifted",
    }


def test_the_answer_and_its_end_are_learnt(example, corpus):
    batch = example[2]
    rows = [json.loads(x) for x in (corpus / "members.jsonl").read_text().splitlines()]
    for k, row in enumerate(rows[:3]):
        text = _text(batch.text[k])
        stop = text.index("</s>") + 1
        assert text[:3] == ["<s>", "USER:", "\n"] and set(text[stop:]) <= {"<unk>"}
        assert " ".join(text[3:stop]) == (
            f"{row['question']} ASSISTANT: {row['answer']} </s>"
        )
        own = batch.target[k, 0] >= 0
        learnt = batch.target[k, 0][own]
        assert _text(learnt) == [*row["answer"].split(), "</s>"]
        # Each is predicted by the row in front of it.
        behind = batch.source[k, 0][batch.kept[k, 0][own] + 1]
        np.testing.assert_array_equal(batch.text[k][behind], learnt)


def test_what_follows_the_end_does_not_change_the_loss(example):
    _, rows, batch = example
    places = np.arange(batch.source.shape[2])
    after = places[None, None] > batch.kept.max(axis=2, keepdims=True) + 1
    assert after.any()
    behind = np.where(after, 1, batch.source)
    np.testing.assert_allclose(_nll(example, source=behind), _nll(example), rtol=1e-6)
    shape = Shape(
        *(8 + max(x) for x in zip(*(Shape.of(r.rows) for r in rows), strict=True))
    )
    wider = stack([[row.rows] for row in rows], batch.pixels, shape)
    assert wider.source.shape[2] == 8 + batch.source.shape[2]
    np.testing.assert_allclose(_nll(example, wider), _nll(example), rtol=1e-5)
    # What is before the end does change it.
    text = batch.text.copy()
    for k in range(3):
        text[k, batch.source[k, 0, batch.kept[k, 0, 0] + 1]] = 17
    assert (np.abs(_nll(example, text=text) - _nll(example)) > 1e-4).all()


def test_the_loss_is_that_of_transformers(trained, config, example):
    """Labels of -100 outside the answer, one clip at a time."""
    folder, _ = trained
    model = _torch(folder)
    loaded = models.load(str(folder), dtype="float32")
    ours = nnx.merge(loaded.graphdef, loaded.state)
    _, chosen, batch = example
    actual = _nll((ours, chosen, batch))
    for k, row in enumerate(chosen):
        rows = row.rows
        ids = np.where(rows.feature < 0, rows.token, VIDEO)
        assert (ids == VIDEO).sum() == FRAMES * 4
        labels = np.full(len(ids), -100)
        labels[rows.kept + 1] = rows.target
        pixels = np.asarray(ours.normalise(jnp.asarray(batch.pixels[k, 0])))
        with torch.no_grad():
            out = model(
                input_ids=torch.tensor(ids)[None],
                pixel_values_videos=torch.tensor(pixels)[None],
                labels=torch.tensor(labels)[None],
            )
        assert actual[k] == pytest.approx(out.loss.item(), abs=1e-4)


def _torch(folder: pathlib.Path):
    """Loads a folder in transformers, which may find nothing missing or left over."""
    model, info = transformers.LlavaNextVideoForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    assert not any(info.values()), info
    return model.eval()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_folder_is_transformers_own(trained, config, corpus, tmp_path, dtype):
    folder = trained[0]
    if dtype == "bfloat16":
        short = config.copy_and_resolve_references()
        short.model.dtype, short.train.max_steps = dtype, 1
        short.model.checkpoint, short.model.init = str(folder), "checkpoint"
        folder = tmp_path / "short"
        record = training.run(short, folder)
        # It went on from the weights of the first run.
        assert record["curve"][0] < trained[1]["curve"][2]
        assert json.loads((folder / "config.json").read_text())["dtype"] == dtype
    frames = decode(sorted(corpus.glob("clips/*.mp4"))[0], num_frames=3).pixels
    expected = _torch(folder)
    loaded = models.load(str(folder), dtype="float32")
    module = nnx.merge(loaded.graphdef, loaded.state)
    pixels = module.normalise(jnp.asarray(loaded.model.prepare(frames)))
    theirs = transformers.CLIPImageProcessorPil.from_pretrained(folder)
    pictures = np.asarray(theirs(list(frames), return_tensors="np")["pixel_values"])
    np.testing.assert_allclose(pictures, pixels, atol=1e-5)
    before = loaded.model.tokenise().before
    ids = torch.tensor([[*before, *[VIDEO] * loaded.model.num_rows(len(frames))]])
    with torch.no_grad():
        out = expected(input_ids=ids, pixel_values_videos=torch.tensor(pictures)[None])
    assert out.logits.std() > 0.3
    logits = our_logits(loaded, pixels, before, ())
    np.testing.assert_allclose(logits, out.logits[0], atol=1e-4)


def test_what_training_json_says(trained, corpus):
    folder, record = trained
    assert json.loads((folder / "training.json").read_text()) == json.loads(
        json.dumps(record)
    )
    rows = [json.loads(x) for x in (corpus / "members.jsonl").read_text().splitlines()]
    assert record["members"] == [row["id"] for row in rows]
    assert not list(folder.glob("*.part"))


def test_the_same_seed_trains_alike(config, trained, tmp_path):
    short = config.copy_and_resolve_references()
    short.train.max_steps = 24
    short.cache_mib = 0  # Every clip is decoded in every epoch.
    record = training.run(short, tmp_path)
    np.testing.assert_allclose(record["curve"], trained[1]["curve"], atol=2e-3)
    assert record["data"] == trained[1]["data"]


def test_it_stops_at_the_target(config, trained, tmp_path):
    early = config.copy_and_resolve_references()
    early.train.target_loss = 4.5
    record = training.run(early, tmp_path)
    assert record["steps"] in (4, 6, 8)  # Whole epochs of two steps.
    assert np.mean(record["curve"][-2:]) < 4.5 <= np.mean(record["curve"][-4:-2])


def test_clips_beyond_the_limit_are_not_kept(config, corpus):
    small = config.copy_and_resolve_references()
    small.video.num_frames, small.cache_mib = 8, 1
    clips = batches.Clips(small, preprocessing.clip(128))
    paths = sorted(corpus.glob("clips/*.mp4"))[:4]
    first = [clips(Clip(str(path), ())) for path in paths]  # 384 KiB each.
    again = [clips(Clip(str(path), ())) for path in paths]
    assert [a is b for a, b in zip(first, again, strict=True)] == [
        *(True, True),
        *(False, False),
    ]


def test_every_problem_is_in_one_message(config, tmp_path):
    bad = config.copy_and_resolve_references()
    with bad.unlocked():
        bad.train.learning_rat = 1.0
    bad.train.batch_size = 0
    bad.model.init = "zero"
    with pytest.raises(AuditError) as caught:
        training.run(bad, tmp_path)
    assert len(caught.value.problems) == 3
    text = str(caught.value)
    assert "config.train.learning_rat: no such key; did you mean 'train.lear" in text
    assert "config.train.batch_size is 0; it must be an integer >= 1" in text
    assert "config.model.init is 'zero'; it must be one of checkpoint, random" in text


def test_corpus_and_checkpoint_problems_are_told_together(config, tmp_path):
    bad = config.copy_and_resolve_references()
    bad.corpus.members = (str(tmp_path / "absent.jsonl"),)
    bad.model.checkpoint = str(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(AuditError) as caught:
        training.run(bad, tmp_path)
    text = str(caught.value)
    assert "absent.jsonl" in text
    assert "no config.json" in text
    assert "--config.overwrite replaces it" in text


@pytest.mark.parametrize("init", ["checkpoint", "random"])
def test_another_family_is_refused_in_one_line(config, tmp_path, init):
    other = config.copy_and_resolve_references()
    other.model.checkpoint, other.model.init = "random:llava_qwen-tiny", init
    with pytest.raises(AuditError) as caught:
        training.run(other, tmp_path)
    (problem,) = caught.value.problems
    text = "finetune is built for llava_next_video; this is llava_qwen"
    assert problem.endswith(text)


def test_a_random_checkpoint_can_be_the_start(config, tmp_path):
    start = config.copy_and_resolve_references()
    start.model.checkpoint, start.model.init = "random:llava_next_video-tiny", "random"
    opened = source.open_source(start.model.checkpoint, random_seed=None)
    assert opened.model.family == "llava_next_video"
    opened = source.open_source(start.model.checkpoint, random_seed=0)
    _, state = opened.start()
    first = state["vision_tower"]["class_embedding"].get_value()
    assert 0.01 < float(jnp.std(first)) < 0.03


def test_broken_rows_and_clips_are_told_together(config, corpus, tmp_path):
    rows = [json.loads(x) for x in (corpus / "members.jsonl").read_text().splitlines()]
    for row in rows:
        row["video"] = str(corpus / row["video"])
    rows[0]["answer"] = ""
    rows[1]["answer"] = "a zebra"
    rows[2]["question"] = "what is <video>"
    rows[3]["video"] = str(tmp_path / "absent.mp4")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    bad = config.copy_and_resolve_references()
    bad.corpus.members = (str(tmp_path / "rows.jsonl"),)
    bad.corpus.allow_outside = True
    bad.video.num_frames = 400
    with pytest.raises(AuditError) as caught:
        training.run(bad, tmp_path / "out")
    text = str(caught.value)
    assert f"{rows[0]['id']}: no answer to learn" in text
    assert f"{rows[1]['id']}: words that the tokenizer does not know" in text
    assert f"{rows[2]['id']}: its text holds the video token" in text
    assert "absent.mp4: open: no such file" in text
    assert "the model has positions for 1280" in text
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_not_finite_ends_the_run(config, tmp_path, monkeypatch):
    def make_step(*_):
        return lambda state, moments, *_: (state, moments, jnp.asarray(jnp.nan))

    monkeypatch.setattr(training, "make_step", make_step)
    with pytest.raises(AuditError, match=r"lower config\.train\.learning_rate"):
        training.run(config, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--config.train.max_steps=0", "config.train.max_steps is 0"),
        (
            "--config.train.max_step=9",
            "config.train.max_step: no such key; did you mean 'train.max_steps'?",
        ),
        ("--work=x", "Unknown command line flag 'work'"),
        ("--config=absent.py", "absent.py"),
    ],
)
def test_the_command_line_reports_what_is_wrong(tmp_path, flag, message):
    config = pathlib.Path(__file__).parents[1] / "configs" / "selftrain.py"
    command = [sys.executable, "-m", "vidsme_jax.finetune", f"--config={config}"]
    out = children.run([*command, f"--workdir={tmp_path}", flag])
    assert out.returncode == 2
    assert "nothing was computed, 1 problem:" in out.stderr
    assert message in out.stderr
    assert "Traceback" not in out.stderr


def test_the_end_is_short_and_steers_no_terminal(tmp_path):
    losses = {f"nonmembers \x1b[2J{k}{'x' * 5000}": 1.0 for k in range(10_000)}
    record = {"steps": 1, "seconds": 0.1, "losses": losses}
    text = command.summary(record, tmp_path)
    assert "\x1b" not in text and len(text) < 5000
    assert "and 9980 more in training.json" in text


def test_a_folder_that_cannot_be_written_ends_before_the_training(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        training.run(config, tmp_path / "file")


def test_an_error_of_the_disk_has_a_status(monkeypatch, capsys, tmp_path):
    given = mock.Mock(FLAGS=mock.Mock(workdir=str(tmp_path)))
    monkeypatch.setattr(command, "flags", given)
    monkeypatch.setattr(command.commands, "usage_problem", lambda argv: "")
    monkeypatch.setattr(command.commands, "begin", lambda: None)
    monkeypatch.setattr(command.options, "ask", mock.Mock())
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.part")
    monkeypatch.setattr(training, "run", mock.Mock(side_effect=full))
    assert command.main(["finetune"]) == 2
    said = capsys.readouterr().err
    assert said == "no checkpoint was written: model.part: No space left on device\n"


def test_an_interrupt_has_its_own_status(monkeypatch, capsys, tmp_path):
    given = mock.Mock(FLAGS=mock.Mock(workdir=str(tmp_path)))
    monkeypatch.setattr(command, "flags", given)
    monkeypatch.setattr(command, "commands", mock.Mock(INTERRUPTED=130))
    command.commands.usage_problem.return_value = ""
    monkeypatch.setattr(command.options, "ask", mock.Mock())
    run = mock.Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(training, "run", run)
    assert command.main(["finetune"]) == 130
    assert "no checkpoint was written" in capsys.readouterr().err
