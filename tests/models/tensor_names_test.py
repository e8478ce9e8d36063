"""The names of tensors that transformers writes are parameters, or left out."""

import json
import pathlib
import re

import pytest

from vidsme_jax.models import random

FOLDER = pathlib.Path(__file__).parents[1] / "oracles" / "tensor_names"
# What each family leaves out: the other tower, and what its tower's features skip.
SKIPPED = r"vision_model\.post_layernorm\..*"
LEFT_OUT = {
    "internvl": None,
    "llava_next_video": rf"image_newline|vision_tower\.{SKIPPED}",
    "llava_onevision": rf"vision_tower\.{SKIPPED}",
    "qwen2_5_vl": None,
    "qwen2_vl": None,
    "qwen3_vl": None,
    "smolvlm": None,
    "video_llama_3": None,
    "video_llava": rf"image_tower\..*|video_tower\.{SKIPPED}",
}


CASES = [(name, dialect) for name in LEFT_OUT for dialect in ("mem", "disk")]
# With an older CLIP's inner module, as the checkpoints were published.
CASES += [(name, "published") for name in LEFT_OUT if "llava" in name]


@pytest.mark.parametrize(("name", "dialect"), CASES)
def test_every_name_is_a_parameter_s_or_left_out_for_a_reason(name, dialect):
    """Names of models in memory, as saved, and as published."""
    listed = json.loads((FOLDER / f"{name}.json").read_text())
    listed = listed["disk" if dialect == "published" else dialect]
    if dialect == "published":
        listed = [x.replace("_tower.", "_tower.vision_model.") for x in listed]
    plan = random.describe(f"{name}-tiny", dtype="float32")
    left_out, filled = set(), set()
    for given in listed:
        own = plan.names.canonical(given.replace(".N.", ".0."))
        rules = [x for x in plan.names.rules if re.fullmatch(x.pattern, own)]
        reasons = [x for x in plan.names.ignored if re.fullmatch(x, own)]
        assert len(rules) + bool(reasons) == 1, given
        (filled if rules else left_out).add(own)
    wanted = LEFT_OUT[name] or ""
    assert {x for x in filled | left_out if re.fullmatch(wanted, x)} == left_out
    assert bool(left_out) == bool(wanted) and len(filled) > 20
