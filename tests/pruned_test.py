"""Models that leave out rows which hardly differ from those of the frame before.

Of a reversed clip other rows are left: only the natural order is scored.
"""

import json
import pathlib
import shutil

import av
import numpy as np
import pytest
import torch

import main_test
from asked_test import assert_same, score, stored
from decoding import decode
from families import FRAMES, configuration
from oracles import video_llama_3 as oracle
from vidsme_jax import audit, models, scores, settings, studies
from vidsme_jax.base import AuditError
from vidsme_jax.commands.finished import run_record
from vidsme_jax.models.rows import Shown
from vidsme_jax.models.video_llama_3 import processing
from vidsme_jax.prepared import preparation
from vidsme_jax.report import drawings
from vidsme_jax.run import checks, signals, stacking
from vidsme_jax.settings import views
from vidsme_jax.store.signals import Signals, recorded

here = main_test.here
ONE_ORDER = "perplexity,min_k_prob_30,response_loss"
# A clip of these is not resampled: frames of 2 x 3 rows of 28 x 28 pixels.
SHAPE = (56, 84)
ROLES, CORPUS = ("members", "nonmembers"), {}
STDS = ((0.5, 0.5, 0.5), (0.2, 0.5, 0.9), (0.26862954, 0.26130258, 0.27577711))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = oracle.make_model()
    return model, oracle.save(model, tmp_path_factory.mktemp("pruned"), prunes=True)


@pytest.fixture(scope="module", autouse=True)
def _corpus(tmp_path_factory):
    """Four members and four others: lossless clips, parts of which never change."""
    folder, rng = tmp_path_factory.mktemp("corpus"), np.random.default_rng(7)
    for role in ROLES:
        rows = []
        for number in range(4):
            name, frames = f"{role}{number}.mp4", _drawn(rng, "static", 6)
            with av.open(str(folder / name), "w") as container:
                stream = container.add_stream("libx264", 25, {"qp": "0", "bf": "0"})
                stream.height, stream.width = SHAPE
                stream.pix_fmt = "yuv444p"
                for frame in frames:
                    made = av.VideoFrame.from_ndarray(frame, "rgb24")
                    container.mux(stream.encode(made))
                container.mux(stream.encode())
            rows.append({"video": name, "question": "what?", "answer": f"a {number}"})
        (folder / f"{role}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    CORPUS["folder"] = folder


def _config(checkpoint, **changes):
    """That of eight drawn clips, on one device."""
    config = configuration("video_llama_3-tiny", **changes)
    config.model.checkpoint = str(checkpoint)
    for role in ROLES:
        config.corpus[role] = (str(CORPUS["folder"] / f"{role}.jsonl"),)
    config.parallel.data, config.batch_size = 1, 4
    config.report.num_permutations = 100
    return config


def _one_order(checkpoint, **changes):
    chosen = {"scores": ONE_ORDER, "headline": "response_loss"} | changes
    return _config(checkpoint, **chosen)


def _drawn(rng, kind: str, count: int = 0) -> np.ndarray:
    """A clip, by default of 2 to 6 frames."""
    count = count or int(rng.integers(2, 7))
    frames = rng.integers(0, 256, (count, *SHAPE, 3), np.uint8)
    if kind == "equal":
        frames[:] = frames[:1]
    elif kind == "static":
        blocks = rng.random((2, 3)) < 0.6
        still = blocks.repeat(28, axis=0).repeat(28, axis=1)
        frames[1:, still] = frames[:1, still]
    elif kind == "near":  # Some levels up or down, about as many as are still pruned.
        for frame in range(1, count):
            frames[frame] = frames[frame - 1]
            for block in range(6):
                y, x = 28 * (block // 3), 28 * (block % 3)
                own = frames[frame, y : y + 28, x : x + 28]
                one = int(rng.integers(0, 3))
                places = rng.permutation(784)[: int(rng.integers(30, 250))]
                step = np.where(own.reshape(784, 3)[places, one] > 127, -1, 1)
                changed = own.reshape(784, 3).astype(np.int16)
                changed[places, one] += step
                own[:] = changed.astype(np.uint8).reshape(28, 28, 3)
    return frames


@pytest.mark.parametrize("std", STDS)
def test_rows_that_are_kept_are_the_processors(saved, std):
    tiling = models.inspect(str(saved[1]), dtype="float32").tiling
    videos = oracle.processor(prunes=True, image_std=list(std)).video_processor
    rng, shares = np.random.default_rng(0), {}
    for kind in ("noise", "equal", "static", "near") * 12:
        frames = _drawn(rng, kind)
        found = videos([frames], return_tensors="np", do_sample_frames=False)
        expected = np.asarray(found["video_compression_mask"], bool)
        kept = np.frombuffer(processing.kept(tiling.cut(frames), std=std), bool)
        np.testing.assert_array_equal(kept, expected, err_msg=kind)
        shares.setdefault(kind, []).append(kept[6:].mean())
    assert np.mean(shares["noise"]) == 1 and np.allclose(shares["equal"], 1 / 6)
    assert 0.2 < np.mean(shares["static"]) < 0.7
    assert 0.2 < np.mean(shares["near"]) < 0.95, "nothing is near the threshold"


def _plain(saved, plan, clip):
    """Of one clip log p of all classes, by transformers: of its rows, of its text."""
    model = saved[0]
    frames = decode(pathlib.Path(clip.key), num_frames=FRAMES)
    cut = plan.prepare(frames.pixels)
    shown = Shown(FRAMES, frames.clock.times, frames.clock.duration)
    shown = stacking.seen(plan, cut, shown)
    kept = np.frombuffer(shown.kept, bool).reshape(FRAMES, -1)
    around, (its,) = plan.tokenise(None, shown), clip.texts
    text = plan.tokenise(its.asked)
    ids = list(around.before)
    for rows, between in zip(kept, around.frames, strict=True):
        ids += [oracle.VIDEO_TOKEN] * int(rows.sum()) + list(between)
    shows = np.array(ids) == oracle.VIDEO_TOKEN
    start = len(ids) + len(text.after)
    ids += [*text.after, *text.answer]
    size = plan.tiling.patch_size
    tiles = cut.reshape(*cut.shape[:3], -1, size, size, 3)
    tiles = tiles.transpose(0, 1, 2, 3, 6, 4, 5).reshape(-1, 3 * size**2)
    pixels = (tiles.astype(np.float32) / np.float32(255) - 0.5) / np.float32(0.5)
    grid = (FRAMES, *(side * oracle.MERGE for side in cut.shape[1:3]))
    logits = oracle.logits(model, ids, pixels, grid, torch.tensor(kept.ravel()))
    log_p = torch.log_softmax(logits.double(), -1).numpy()
    answer = np.array(text.answer)
    of_answer = log_p[start - 1 : -1][np.arange(len(answer)), answer]
    return log_p[: len(shows)][shows], of_answer, kept


@pytest.fixture(scope="module")
def whole(saved, tmp_path_factory):
    """The audit; the clips; what the figures were drawn of."""
    folder, drawn = tmp_path_factory.mktemp("whole") / "run", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "vidsme_jax.report.figures.draw", lambda *of: drawn.append(of[2]) or []
        )
        report = audit.run(_one_order(saved[1]), folder)
    assert not report.failures and len(report.table.id) == 8
    store = Signals(folder / "signals", recorded(folder / "signals"))
    return report, {clip.key: clip for clip in store.read(store.finished)}, drawn


def test_scores_are_those_of_the_rows_that_are_kept(saved, whole):
    report, clips, _ = whole
    plan, shares, lengths = models.inspect(str(saved[1]), dtype="float32"), [], []
    for key, clip in clips.items():
        video, answer, kept = _plain(saved, plan, clip)
        shares.append(kept.mean())
        lengths.append(len(video))
        natural, second = clip.signals.log_prob
        np.testing.assert_array_equal(natural, second)
        np.testing.assert_allclose(natural, video.max(-1), atol=1e-4)
        assert clip.frame.tolist() == np.repeat(range(FRAMES), kept.sum(1)).tolist()
        lowest = np.sort(video.max(-1))[: max(1, int(0.3 * len(video)))]
        expected = {
            "perplexity": video.max(-1).mean(),
            "min_k_prob_30": lowest.mean(),
            "response_loss": answer.mean(),
        }
        (row,) = np.flatnonzero([key.endswith(f"/{x}") for x in report.table.video])
        assert report.table.num_rows[row] == len(video)
        for name, value in expected.items():
            found = report.table.scores[name][row]
            np.testing.assert_allclose(found, value, atol=1e-4, err_msg=name)
    assert min(shares) < 0.9 and max(shares) > min(shares), "nothing is left out"


def test_the_report_shows_one_order(whole):
    report, _, (curves,) = whole
    page = (report.workdir / "report.html").read_text()
    assert "the natural order of the frames alone is scored" in page
    assert len(curves) == 6
    for curve in curves:
        assert curve.reversed is None and np.isfinite(curve.natural).all()
        (drawing,) = drawings.clip(curve, "clip", "The clip")
        assert ", of the natural order alone." in drawing.caption
        assert "reversed" not in drawing.caption


def _problems(config, run=checks.check):
    with pytest.raises(AuditError) as caught:
        run(config)
    return caught.value.problems


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"scores": "vid_sme", "headline": "vid_sme"}, "vid_sme compare"),
        ({"headline": "vid_sme"}, "vid_sme compare"),
        ({"scores": "all"}, "vid_sme, vid_sme_min_0, vid_sme_min_5, "),
        ({"scores": "response_loss,response_pmi"}, "response_pmi compare"),
        (
            {"response": "greedy", "headline": "response_vid_sme"},
            "response_vid_sme compare",
        ),
    ],
)
def test_scores_of_two_orders_are_refused(saved, changes, named):
    (problem,) = _problems(_one_order(saved[1], **changes))
    assert problem.startswith(f"config.scores, config.headline: {named}")
    assert "the model's processor leaves out rows that hardly differ" in problem
    assert "take scores of one order, such as min_k_prob_30" in problem
    assert "set use_token_compression to false in the file of" in problem
    assert len(problem) < 700


def test_the_settings_of_an_audit_are_refused_in_one_sentence(saved):
    config = _config(saved[1], scores="all", headline="vid_sme", slices=("video",))
    (problem,) = _problems(config)
    assert " more compare the two orders" in problem


def test_the_official_scores_are_refused_by_their_names(saved):
    config = _config(saved[1], profile="official", slices=("video",))
    config.scores, config.headline = "ppl", "vid_sme"
    (problem,) = _problems(config)
    assert "Min_30.0% vetp compare the two orders" in problem


@pytest.mark.long
def test_a_reference_that_prunes(saved, tmp_path, figureless):
    """Scores of one order are compared; others are refused."""
    other = oracle.make_model(seed=1)
    whole = oracle.save(other, tmp_path / "whole")
    changes = {"reference.checkpoint": str(saved[1])}
    (problem,) = _problems(_config(whole, scores="vid_sme", **changes))
    assert "vid_sme compare" in problem and "the reference model's processor" in problem
    names = f"{ONE_ORDER},perplexity_ref,response_loss_ref,response_wbc"
    config = _one_order(whole, scores=names, **changes)
    report = audit.run(config, tmp_path / "run")
    assert not report.failures
    for name in names.split(","):
        assert np.isfinite(report.table.scores[name]).all(), name
    with pytest.raises(AuditError, match="the reference model's processor leaves out"):
        _again(tmp_path / "run", scores="vid_sme_ref")


def _again(workdir, **changes):
    about = run_record(workdir)
    config = settings.restored(about["config"])
    config.update_from_flattened_dict(changes)
    return audit.report_again(workdir, config, about)


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": "vid_sme"},
        {"headline": "response_vid_sme"},
        {"scores": "all"},
        {"profile": "official", "scores": "ppl", "headline": "vid_sme"},
    ],
)
def test_a_report_made_again_compares_no_orders_either(whole, figureless, changes):
    before = (whole[0].workdir / "metrics.json").read_bytes()
    with pytest.raises(AuditError, match="compare the two orders of the frames, but"):
        _again(whole[0].workdir, **changes)
    assert (whole[0].workdir / "metrics.json").read_bytes() == before


def test_a_report_made_again_has_other_scores_of_one_order(whole, tmp_path, figureless):
    shutil.copytree(whole[0].workdir, tmp_path / "run")
    again = _again(
        tmp_path / "run", scores="perplexity,mean_renyi_1", headline="perplexity"
    )
    assert set(again.table.scores) == {"perplexity", "mean_renyi_1"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "the natural order of the frames alone is scored" in page


@pytest.mark.parametrize("study", ["scales", "orders", "natural", "against", "k"])
def test_studies_of_two_orders_are_refused(saved, study):
    names = {"scores": "min_k_prob_30", "headline": "min_k_prob_30"}
    config = _config(saved[1], slices=("video",), study=study, **names)
    if study == "k":
        assert studies.check(config).model.prune is not None
        return
    (problem,) = _problems(config, studies.check)
    assert problem.startswith(f"config.study: {study} compares the two orders of the")
    assert "take the study k or frames, or set use_token_compression" in problem


def test_signals_of_all_rows_are_not_mixed_with_those_that_are_kept(
    saved, whole, tmp_path
):
    other = oracle.save(saved[0], tmp_path)
    config = _one_order(other)
    with pytest.raises(AuditError, match="were computed with model"):
        audit.run(config, whole[0].workdir)


def test_prepared_clips_score_as_decoded_ones(saved, whole, tmp_path):
    config = _one_order(saved[1])
    preparation.run(views.Settings.of(config), tmp_path / "prepared")
    config.corpus.prepared = str(tmp_path / "prepared")
    _, scored = score(config, tmp_path / "run")
    found = stored(scored.runs[0])
    assert not scored.failures and found.keys() == whole[1].keys()
    for key, clip in found.items():
        assert_same(clip, whole[1][key])


def test_answers_are_generated_and_scored_in_one_order(saved, tmp_path):
    changes = {"response": "greedy", "response_tokens": 3}
    config = _one_order(saved[1], **changes)
    _, scored = score(config, tmp_path)
    assert not scored.failures
    for clip in stored(scored.runs[0]).values():
        (its,) = clip.texts
        assert 1 <= (its.slice == 2).sum() <= 3
        np.testing.assert_array_equal(*its.signals.log_prob)


@pytest.mark.long
def test_from_python_both_directions_are_the_natural_one(saved):
    loaded = models.load(str(saved[1]), dtype="float32")
    frames = _drawn(np.random.default_rng(1), "static")
    text = ("what is seen", "a red ball")
    found = signals.compute(loaded, frames, rate=2.0, texts=[text])
    for each in (found.signals, found.texts[0].signals):
        for value in each:
            if value is not None:
                np.testing.assert_array_equal(value[0], value[1])
    values = scores.compute(found.signals, 1.5, 1.05, ["vid_sme", "perplexity"])
    assert values["vid_sme"] == 0 and values["perplexity"] < 0


@main_test.loading
def test_the_command_says_so_and_scores_what_remains(saved, tmp_path, here, figureless):
    given = (
        "--config=configs/llava.py",
        f"--workdir={tmp_path}",
        f"--config.model.checkpoint={saved[1]}",
        *(f"--config.corpus.{x}={CORPUS['folder'] / x}.jsonl" for x in ROLES),
        "--config.model.dtype=float32",
        "--config.video.num_frames=3",
        "--config.report.num_permutations=100",
        "--config.parallel.data=1",
        "--config.batch_size=4",
    )
    status, out, error = here(*given)
    assert status == 2 and not out
    assert error.count("\n  - ") == 1 and "1 problem:" in error
    assert "compare the two orders of the frames" in error
    status, out, error = here(
        *given, "--config.scores=min_k_prob_30", "--config.headline=min_k_prob_30"
    )
    assert status == 0, error
    assert "The headline score min_k_prob_30 " in out and "\nall " in out
