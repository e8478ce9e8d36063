"""Every score on the demo's model, whose members are known: which way it points.

The model has memorised its members' answers. Of rows of the video and of the question
no score may be read; of the answer's rows those of the true tokens separate, and the
paper's form on them points the wrong way. The reference is the model of the demo that
has seen no member.
"""

import json
import re

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from vidsme_jax import audit, scores, settings
from vidsme_jax.settings import DEMO

pytestmark = pytest.mark.long

CLIPS = 30  # Of each role; non-members are the matched ones.
# The first that fits the name of a score: what its AUC may be.
EXPECTED = [
    (r"response_min_renyi_.*_ref", (0.3, 1.0)),  # Less what is noise in the reference.
    (r"(?!response_).*", (0.3, 0.7)),  # Rows of the video and of the question.
    (r"response_(loss|loss_sum|rank|standardised_entropy|zlib|wbc)", (0.98, 1.0)),
    (r"response_min_k_(prob|plus_plus)_.*", (0.98, 1.0)),
    (r"response_mean_renyi_.*", (0.98, 1.0)),
    (r"response_max_renyi_.*", (0.92, 1.0)),
    (r"response_min_renyi_.*_(60|90)", (0.9, 1.0)),
    (r"response_min_renyi_.*", (0.4, 0.8)),  # The surest rows are sure in any answer.
    (r"response_vid_sme(_min_\d+)?", (0.2, 0.49)),  # The wrong sign.
    (r"response_vid_sme_max_.*", (0.85, 1.0)),
    (r"response_vid_sme_(mean|sequence)", (0.5, 0.85)),
    (r"response_pmi", (0.5, 0.8)),
    (r"response_pmi_blank", (0.7, 1.0)),
]


def _expected(name):
    fit = (bounds for form, bounds in EXPECTED if re.fullmatch(f"{form}(_ref)?", name))
    return next(fit)


@pytest.fixture(scope="module")
def report(tmp_path_factory, without_figures):
    """Members and matched non-members, all slices, against the reference."""
    folder, config = tmp_path_factory.mktemp("demo"), settings.default()
    for role, group in (("members", ""), ("nonmembers", "matched")):
        lines = (DEMO / f"corpus/{role}.jsonl").read_text().splitlines()
        its = [line for line in lines if json.loads(line)["group"] == group]
        manifest = folder / f"{role}.jsonl"
        manifest.write_text("\n".join(its[:CLIPS]))
        config.corpus[role] = (str(manifest),)
    config.corpus.video_root = str(DEMO / "corpus")
    config.model.checkpoint = str(DEMO / "checkpoint")
    config.model.dtype = "float32"
    config.reference.checkpoint = str(DEMO / "reference")
    config.video.num_frames = 8
    config.slices = ("video", "instruction", "response")
    config.headline = "response_min_k_plus_plus_100"
    config.report.num_permutations = 100
    config.batch_size = CLIPS
    found = audit.run(config, folder / "work")
    assert found is not None and not found.failures
    return found


def test_every_score_points_where_it_should(report):
    table = report.table
    names = scores.resolve("all", "exact", ("video", "instruction", "response"), True)
    assert tuple(table.scores) == names and len(names) == 493
    member = table.role == "members"
    wrong = {}
    for name, values in table.scores.items():
        low, high = _expected(name)
        auc = roc_auc_score(member, values)
        if not low <= auc <= high:
            wrong[name] = round(auc, 3)
    assert not wrong


def test_the_reference_alone_is_at_chance(report):
    table = report.table
    member = table.role == "members"
    for name, values in table.reference.items():
        assert 0.25 < roc_auc_score(member, values) < 0.75, name
    sentence = report.metrics["reference"]["statement"]
    assert "does not separate members from non-members" in sentence
    assert report.metrics["reference"]["lacking"] == 0
    assert np.isfinite(np.stack(list(table.scores.values()))).all()


def test_the_report_says_both(report):
    verdict, beside = report.metrics["statement"], report.metrics["beside"]
    assert verdict.startswith(
        "The headline score response_min_k_plus_plus_100 ranks members above non-memb"
    )
    assert (beside["score"], beside["role"]) == ("vid_sme", "control")
    assert "vid_sme does not rank members above non-members" in beside["statement"]
    assert verdict in report.summary() and beside["statement"] in report.summary()
    page = (report.workdir / "report.html").read_text()
    assert verdict in page and beside["statement"] in page
