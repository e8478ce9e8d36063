"""Profile `official`, from encoded clips to AUC lines, against the paper's release.

The release ran on the same checkpoint (a tiny random LongVA in its original format),
the same ten clips, prompt `caption`, eight frames. Clip 4 has the most motion, hence
q = 1, where the release returns rounding noise in place of Sharma-Mittal entropies.
"""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from decoding import decode
from oracles import our_logits
from vidsme_jax import audit, models, settings
from vidsme_jax.checkpoints import opening
from vidsme_jax.models import prompts

pytestmark = pytest.mark.usefixtures("without_figures")
MOST_MOTION = 4


@pytest.fixture(scope="module")
def release(golden):
    folder = golden / "longva_official"
    return json.loads((folder / "official_scores.json").read_text())


@pytest.fixture(scope="module")
def config(golden):
    folder = golden / "longva_official"
    config = settings.default()
    config.corpus.members = config.corpus.nonmembers = (str(folder / "items.json"),)
    config.corpus.video_root = str(folder / "videos")
    config.model.checkpoint = str(folder / "tiny-longva")
    config.model.dtype = "float32"
    config.model.prompt = "caption"
    config.video.num_frames = 8
    config.profile = "official"
    config.batch_size = 4
    config.parallel.data = 1
    config.report.num_permutations = 100
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("release")


@pytest.fixture(scope="module")
def report(config, workdir):
    return audit.run(config, workdir)


@pytest.fixture(scope="module")
def plan(config):
    checkpoint, prompt = config.model.checkpoint, config.model.prompt
    return models.inspect(checkpoint, dtype="float32", prompt=prompt)


def _is_noise(name: str, clip: int) -> bool:
    return clip == MOST_MOTION and "vetp" in name


def test_orders_and_rows(report, plan, release):
    table = report.table
    order = np.argsort(table.video)
    for row, record in zip(order, release["videos"], strict=True):
        assert table.video[row] == record["video"]
        assert table.q[row] == pytest.approx(record["q"], abs=1e-5)
        assert table.r[row] == pytest.approx(record["r"], abs=1e-5)
        # The release's slice has one text row too many.
        rows = table.num_rows[row] + len(plan.tokenise().after)
        assert rows == record["slice_rows"] == 33


def test_all_85_scores_of_every_clip(report, release):
    table, worst = report.table, 0.0
    assert len(table.scores) == 85
    for row in range(10):
        record = next(v for v in release["videos"] if v["video"] == table.video[row])
        clip = int(re.findall(r"\d+", record["video"])[0])
        assert set(record["scores"]) == set(table.scores)
        for name, expected in record["scores"].items():
            if not _is_noise(name, clip):
                actual = table.scores[name][row]
                error = abs(actual - expected)
                worst = max(worst, error)
                assert error <= max(1e-4 * abs(expected), 5e-5), (name, clip)
    assert worst > 0


def test_the_printed_lines(report, golden):
    """AUC, accuracy and TPR@5%FPR of every score."""
    path = golden / "longva_official" / "official_auc.txt"
    results = report.metrics["comparisons"]["all"]["scores"]
    lines = path.read_text().splitlines()
    assert len(lines) == 85
    for line in lines:
        name, *printed = re.fullmatch(
            r"(.+?) +AUC ([\d.]+), Accuracy ([\d.]+), TPR@5% FPR of ([\d.]+)", line
        ).groups()
        ours = results[name]["official"].values()
        assert [f"{value:.4f}" for value in ours] == printed, name


@pytest.mark.long
def test_the_clip_with_the_most_motion(report, config, workdir, release):
    """The release's entropies at q = 1 are noise near 0; the exact ones are not."""
    table = report.table
    row = list(table.video).index("clip04.mp4")
    theirs = release["videos"][MOST_MOTION]["scores"]
    exact = audit.run(_with(config, profile="exact"), workdir).table
    at = list(exact.video).index("clip04.mp4")
    for name, ours, value in (
        ("Min_30.0% vetp", "vid_sme", -0.5701),
        ("Mean_vetp", "vid_sme_mean", 0.0458),
        ("sequence_vetp", "vid_sme_sequence", 0.0149),
    ):
        assert abs(theirs[name]) < 2e-4 and table.scores[name][row] == 0.0
        assert -exact.scores[ours][at] == pytest.approx(value, abs=1e-4)


def _with(config, **changes):
    changed = config.copy_and_resolve_references()
    changed.update(changes)
    return changed


@pytest.mark.parametrize("clip", [0, 1])
def test_the_logits(clip, config, plan, golden):
    """Of the whole prompt, question included, in natural order."""
    folder = golden / "longva_official"
    arrays = np.load(folder / "official_arrays.npz")
    item = json.loads((folder / "items.json").read_text())[clip]
    frames = decode(folder / "videos" / item["video"], num_frames=8).pixels
    np.testing.assert_array_equal(frames, arrays[f"frames_{clip}"])
    loaded = models.load(config.model.checkpoint, dtype="float32", prompt="caption")
    model = nnx.merge(loaded.graphdef, loaded.state)
    pixels = model.normalise(jnp.asarray(plan.prepare(frames)))
    np.testing.assert_allclose(pixels, arrays[f"pixels_{clip}"], atol=1e-5)
    opened = opening.open_checkpoint(config.model.checkpoint)
    tokenizer = prompts.read_tokenizer(opened, [])
    text = f"\n{item['question']}<|im_end|>\n<|im_start|>assistant\n"
    after = tokenizer(text)["input_ids"]
    assert plan.tokenise().after == (after[0],)
    logits = our_logits(loaded, pixels, plan.tokenise().before, after)
    expected = arrays[f"logits_{clip}"]
    assert logits.shape == expected.shape
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_the_prompt_is_the_releases(plan, release):
    text = release["system_prompt"].replace("<image>", prompts.PLACEHOLDER)
    assert plan.prompt == text
