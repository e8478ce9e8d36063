"""`rope_theta` and `rope_scaling`, or `rope_parameters`, in the original format."""

import json

import pytest
import transformers

from oracles import config_of
from oracles import llava_qwen as oracle
from vidsme_jax import models


@pytest.mark.parametrize(
    ("changes", "theta"),
    [
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, 1e6),
        ({"rope_parameters": {"rope_theta": 1e6}, "rope_scaling": None}, 1e6),
        ({"rope_theta": 1e6, "rope_scaling": {"rope_type": "default"}}, 1e6),
        ({"rope_theta": 1e6, "rope_parameters": None}, 1e6),
        # Dropped by the original class, with a remark.
        ({"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 2.0}}, 1e6),
        ({}, 1e4),
    ],
)
def test_either_spelling_of_the_rope(tmp_path, changes, theta):
    """As the config of transformers 5 reads it, which writes `rope_parameters`."""
    folder = oracle.save(oracle.make_model(), tmp_path)
    raw = json.loads((folder / "config.json").read_text())
    raw = {k: v for k, v in raw.items() if not k.startswith("rope_")} | changes
    (folder / "config.json").write_text(json.dumps(raw))
    model = models.inspect(str(folder), dtype="float32")
    assert config_of(model).text.rope.theta == theta
    theirs = transformers.Qwen2Config(**raw).rope_parameters
    assert theirs["rope_theta"] == theta
    dropped = [r for r in model.remarks if "rope_scaling" in r]
    assert len(dropped) == (theirs["rope_type"] == "linear")


def test_a_config_that_transformers_5_wrote(tmp_path):
    model = oracle.make_model()
    folder = oracle.save(model, tmp_path)
    raw = oracle.raw_config(model)
    written = model.decoder.config.to_dict()
    own = ("model_type", "architectures", "torch_dtype", "rope_theta", "rope_scaling")
    raw = {k: v for k, v in (raw | written).items() if k not in own}
    named = {"model_type": "llava_qwen", "architectures": ["LlavaQwenForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(raw | named))
    assert raw["rope_parameters"]["rope_theta"] == 1e9
    inspected = models.inspect(str(folder), dtype="float32")
    assert config_of(inspected).text.rope.theta == 1e9
