"""Wrong arguments of public functions, as users meet them: without the type checks.

Under the suite beartype raises its own error first, so all calls are made in a program
of its own.
"""

import json
import subprocess
import sys

import pytest

_PRELUDE = """
import json, sys, pathlib
import numpy as np
from vidsme_jax import models, motion, scores
from vidsme_jax.base import Asked, AuditError, ClipError, ScoredText, ScoreTable
from vidsme_jax.base import TokenSignals
from vidsme_jax.data.sampling import frame_indices
from vidsme_jax.entropy import definitions, stored
from vidsme_jax.evaluation import groups, intervals, metrics, suspects
from vidsme_jax.evaluation import validity
from vidsme_jax.models import interface
from vidsme_jax.run import signals as run_signals

nan = float("nan")
model = object.__new__(interface.LoadedModel)  # Refused before it is used.
frames = np.zeros((4, 48, 64, 3), np.uint8)
log_p = np.full((2, 3), -0.5)
signals = TokenSignals(None, None, None, log_p)
a, b = np.array([0.1, 0.5, 0.9]), np.array([0.0, 0.4])
curve = metrics.roc_curve(a, b)
text, how = np.array(["a", "b"]), validity.Procedure()
table = ScoreTable(
    **dict(id=text, video=text, role=np.array(["members", "nonmembers"])),
    **dict(group=np.array(["", ""]), cluster=text, num_rows=np.array([1, 1])),
    **dict.fromkeys(("flow_variance", "brightness_std", "q", "r"), np.ones(2)),
    scores={"vid_sme": np.array([0.5, 0.1])},
)
def answer(log_p):
    asked = Asked(key="k", question="", answer="a")
    its = TokenSignals(None, None, None, log_p)
    rows = dict(tokens=np.zeros(3, np.int32), slice=np.full(3, 2, np.int8))
    return ScoredText(asked=asked, signals=its, **rows)
def theirs(log_p):
    return scores.Revealed(TokenSignals(None, None, None, log_p))
def sme(*arguments, **named):
    return scores.compute(*arguments, **named)
for call in json.loads(sys.argv[1]):
    try:
        found = repr(eval(call))[:200]
        kind = "none"
    except Exception as error:
        found, kind = str(error), type(error).__name__
    print(json.dumps([kind, found]))
"""

# The call, and part of what is said; of a clip a ClipError.
_CLIP = {
    "motion.measure(frames.tolist())": "frames are a list; give an array of NumPy",
    "motion.measure(frames[0])": "(48, 64, 3), one frame; give frames[None]",
    "motion.measure(frames.transpose(0, 3, 1, 2))": "channels first; give frames.tr",
    "motion.measure(frames / 255)": "frames are float64 from 0 to 1; give (255 * ",
    "motion.measure(frames + 9.5)": "frames are float64; give uint8, 0 to 255",
    "motion.measure(frames.astype(int))": "frames are int64; give uint8, 0 to 255",
    "motion.measure(frames[..., :1])": "shape (4, 48, 64, 1); give uint8, shape (fr",
    "motion.measure(frames[:1])": "1 frame was sampled and motion needs at least 2",
    "motion.measure(frames[:0])": "frames have shape (0, 48, 64, 3); give",
    "run_signals.compute(None, frames / 255)": "preprocess: frames are float64 from 0",
    "frame_indices('uniform', 4, 0, a, 1.0)": "decode: frames cannot be chosen from",
    "frame_indices('fps', 4, 2, a, 1.0)": "2 frames need as many times, finite",
    "frame_indices('fps', 4, 3, a * nan, 1.0)": "3 frames need as many times, finite",
}
_RUN = {
    "run_signals.compute(None, frames)": "model is a NoneType; give what models.load",
    "models.load('random:llava_qwen-tiny', dtype='bf16')": "did you mean 'bfloat16'?",
    "models.load(pathlib.Path('/nowhere/x'))": "checkpoint /nowhere/x: no such folder",
    "run_signals.compute(model, frames, texts=None)": "texts is None; it must be a",
    "run_signals.compute(model, frames, texts=3)": "texts is 3; it must be a list of",
    "models.load(None)": "checkpoint is None; it must be a folder, a hub id or",
    "models.load(3)": "checkpoint is 3; it must be a folder, a hub id or",
    "models.load(['a'])": "checkpoint is ['a']; it must be a folder, a hub id or",
    "models.load('random:llava_qwen-tiny', prompt=3)": "prompt is 3; it must be family",
    "models.load('random:llava_qwen-tiny', allow_pickle='no')": "allow_pickle is 'no'",
    "models.load('random:llava_qwen-tiny', dtype=np.float32)": "known: bfloat16, fl",
    "models.inspect('random:llava_qwen-tiny', dtype='float32', adapter='off')": "'off'",
    "sme(signals, 1.5, 1.0, ['perplexity'], text=3)": "text is 3; it must be a base.S",
    "sme(signals, 1.5, 1.0, ['perplexity'], reference=3)": "reference is 3; it must be",
    "sme(signals._replace(log_prob=log_p * nan), 1.5, 1.0, ['perplexity'])": "log_prob "
    "of the signals is not finite",
    "sme(None, 1.5, 1.0, ['response_loss'], text=answer(log_p * nan))": "log_prob of",
    "sme(signals, 1.5, 1.0, ['perplexity_ref'], reference=theirs(log_p * nan))": "log_",
    "scores.uncalibrated(3)": "the score is 3; give its name",
    "motion.entropy_orders(a, a, (True, 3, 2, 4), 1.0, 0.1)": "bounds[0] is True; it",
    "metrics.auc([[1], [1, 2]], b)": "member_scores cannot be read as numbers",
    "metrics.auc(None, b)": "member_scores holds object",
    "metrics.best_accuracy(metrics.RocCurve([0.0], [0.0], [1.0]))": "curve holds list",
    "metrics.tpr_at_fpr(metrics.RocCurve([0.0], [0.0], [1.0]), 0.1)": "curve holds li",
    "metrics.thinned(0, 10)": "num_vertices is 0; it must be an integer >= 1",
    "metrics.thinned(10, 1)": "most is 1; it must be an integer >= 2",
    "metrics.oriented(None, 'vid_sme')": "table is a NoneType; give a base.ScoreTable",
    "groups.comparisons(None)": "table is a NoneType; give a base.ScoreTable",
    "metrics.evaluate(None, (0.05,), 10, 0)": "table is a NoneType; give a base.Score",
    "frame_indices('unifrom', 4, 2, a, 1.0)": "did you mean 'uniform'?",
    "frame_indices('uniform', 0, 2, a, 1.0)": "num_frames is 0; it must be an integer",
    "frame_indices('uniform', True, 2, a, 1.0)": "num_frames is True; it must be",
    "frame_indices('fps', 4, 3, a, nan)": "fps is nan; it must be a number > 0",
    "sme(signals, 1.5, 1.0, 'perplexity')": "names is 'perplexity', one text; give a",
    "sme(signals, 1.5, 1.0, [])": "names is []; give at least one",
    "sme(signals, 1.5, 1.0, [3])": "names holds 3, which is no text",
    "sme(signals, 1.5, 1.0, ['perplexty'])": "did you mean 'perplexity'?",
    "sme(signals, 0.9, 1.0, ['perplexity'])": "q is 0.9; it must be a number in [1, 2",
    "sme(signals, 2.1, 1.0, ['perplexity'])": "q is 2.1; it must be a number in [1, 2",
    "sme(signals, nan, 1.0, ['perplexity'])": "q is nan; it must be a number in [1, 2",
    "sme(signals, True, 1.0, ['perplexity'])": "q is True; it must be a number in",
    "sme(signals, a, 1.0, ['perplexity'])": "q is an array of shape (3,); it must be",
    "sme(signals, 1.5, 0.5, ['perplexity'])": "r is 0.5; it must be a number >= 1",
    "sme(signals, 1.5, 1.0, ['vid_sme'])": "these are None: renyi, varentropy, gap",
    "sme(log_p, 1.5, 1.0, ['perplexity'])": "signals is a ndarray; it must be base.",
    "sme(signals._replace(log_prob=log_p[0]), 1, 1, ['perplexity'])": "shapes log_pr",
    "sme(signals._replace(gap=log_p[:, 1:]), 1, 1, ['perplexity'])": "shapes gap (2,",
    "sme(signals, 1, 1, ['perplexity'], profile='exakt')": "did you mean 'exact'?",
    "sme(None, 1.5, 1.0, ['perplexity'])": "perplexity is of the video's rows",
    "scores.resolve(['vid_sme', 3], 'exact')": "scores are ['vid_sme', 3]; give",
    "scores.resolve('all', 'exact', 'video')": "slices is 'video', one text; give a",
    "scores.resolve('all', 'exact', ('vidio',))": "did you mean 'video'?",
    "scores.resolve('all', 'exact', ())": "slices is (); give at least one",
    "scores.headline(None, 'exact')": "the headline is None; give one score's name",
    "scores.headline('vid_smee', 'exact')": "did you mean 'vid_sme'?",
    "scores.describe('offical')": "did you mean 'official'?",
    "scores.description('vid_smee', 'exact')": "did you mean 'vid_sme'?",
    "scores.beside('vid_sme', 'perplexity', 'exact')": "names is 'perplexity', one te",
    "scores.needs_second_pass('vid_sme', 'exact')": "names is 'vid_sme', one text",
    "motion.bounds(a[:1], a[:1])": "1 clip has motion statistics",
    "motion.bounds(a, b)": "lengths differ: phi 3, b 2",
    "motion.bounds(0.5, 0.5)": "phi has 0 axes; it must have one, a value a clip",
    "motion.bounds(a * nan, a)": "(phi) of clip 0 is nan; it must be finite",
    "motion.entropy_orders(a, b, (0, 1, 0, 1), 1.0, 0.1)": "lengths differ: phi 3, b",
    "motion.entropy_orders(a, a, None, 1.0, 0.1)": "bounds holds object",
    "motion.entropy_orders(a, a, (0, 0, 0, 1), 1.0, 0.1)": "bounds is (0, 0, 0, 1)",
    "motion.entropy_orders(a, a, (0, 1), 1.0, 0.1)": "bounds is (0, 1); it must be (p",
    "motion.entropy_orders(a * nan, a, (0, 1, 0, 1), 1.0, 0.1)": "phi[0] is nan",
    "motion.entropy_orders(a, a, (0, 1, 0, 1), 1.5, 0.1)": "q_scale is 1.5; it must",
    "motion.entropy_orders(a, a, (0, 1, 0, 1), 1.0, 0)": "r_scale is 0; it must be",
    "stored.renyi_at_order(np.ones((2, 12)), 1.5)": "nodes has shape (2, 12)",
    "stored.renyi_at_order(np.ones((2, 13)), 2.5)": "q is 2.5; all orders must be in",
    "stored.renyi_at_order(np.ones((2, 13)), nan)": "q is nan; all orders must be in",
    "definitions.shannon_entropy(np.zeros(4))": "its probabilities sum to 4; give",
    "definitions.shannon_entropy(np.array([1, 2]))": "log_probs is int32 of shape (2",
    "definitions.renyi_entropy(np.log([0.5, 0.5]), -1.0)": "order is -1.0; it must be",
    "definitions.sharma_mittal_entropy(np.log([0.5, 0.5]), nan, 1.0)": "q is nan",
    "metrics.roc_curve(a, b[:0])": "nonmember_scores has 0 entries; it must have",
    "metrics.roc_curve(a * nan, b)": "member_scores[0] is nan; all entries must be",
    "metrics.auc(a, [])": "nonmember_scores has 0 entries",
    "metrics.auc(a[None], b)": "member_scores has shape (1, 3); it must have one axis",
    "metrics.auc(text, b)": "member_scores holds <U1; it must hold numbers",
    "metrics.official_tpr_at_5_fpr(a, b * nan)": "nonmember_scores[0] is nan",
    "metrics.tpr_at_fpr(curve, 1.5)": "max_fpr is 1.5; it must be a number in [0, 1]",
    "metrics.tpr_at_fpr(curve, nan)": "max_fpr is nan; it must be a number in [0, 1]",
    "metrics.tpr_at_fpr(a, 0.1)": "curve is a ndarray; give what metrics.roc_curve",
    "metrics.best_accuracy(None)": "curve is a NoneType; give what metrics.roc_curve",
    "metrics.oriented(table, 'vid_smee')": "did you mean 'vid_sme'?",
    "metrics.evaluate(table, 0.05, 10, 0)": "fprs is 0.05; it must be a tuple of",
    "metrics.evaluate(table, (0.05, 5), 10, 0)": "a rate of fprs is 5; it must be a",
    "metrics.evaluate(table, (0.05,), 0, 0)": "num_draws is 0; it must be an integer",
    "metrics.evaluate(table, (0.05,), 10, 0, 'vid_sme')": "declared is 'vid_sme', one",
    "intervals.clopper_pearson(1.5, 3)": "rate is 1.5; it must be a number in [0, 1]",
    "intervals.clopper_pearson(0.5, 0)": "num is 0; it must be an integer >= 1",
    "intervals.effective(text[:0])": "units is empty; give",
    "suspects.conformal_p_values(a * nan, b)": "suspect_scores[0] is nan",
    "suspects.benjamini_hochberg(a + 1)": "; all must be in [0, 1]",
    "suspects.suspects(table, 'vid_sne', 0.05, how)": "did you mean 'vid_sme'?",
    "suspects.suspects(table, 'vid_sme', 5, how)": "fdr is 5; it must",
    "validity.judge(table, {}, how, 'vid')": "headline is 'vid'; known: vid_sme",
}


@pytest.fixture(scope="module")
def answers():
    calls = [*_CLIP, *_RUN]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PRELUDE, json.dumps(calls)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, done.stdout.splitlines())
    return dict(zip(calls, lines, strict=True))


@pytest.mark.parametrize("call", _CLIP)
def test_what_is_wrong_with_a_clip_is_a_clip_error(answers, call):
    kind, said = answers[call]
    assert kind == "ClipError" and _CLIP[call] in said and "\n" not in said


@pytest.mark.parametrize("call", _RUN)
def test_what_is_wrong_otherwise_is_one_sentence(answers, call):
    kind, said = answers[call]
    assert kind == "AuditError" and _RUN[call] in said and "\n" not in said
