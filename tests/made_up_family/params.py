"""Config and tensor names of the made-up family."""

from made_up_family.modeling import PairsConfig
from vidsme_jax.checkpoints import layouts
from vidsme_jax.checkpoints.fields import Fields
from vidsme_jax.checkpoints.loading import Names, Rule

TINY = {"model_type": "pairs", "hidden_size": 16, "vocab_size": 120, "image_size": 8}
_LINEAR, _TABLES = ("tower", "query", "out"), ("embed", "places", "lm_head")


def read_config(raw: dict, dtype: str, problems: list[str]) -> PairsConfig:
    """Reads a `config.json`."""
    fields = Fields(raw, "config.json", problems)
    fields.expect("model_type", "pairs")
    config = PairsConfig(
        hidden_size=fields.size("hidden_size"),
        vocab_size=fields.size("vocab_size"),
        image_size=fields.size("image_size"),
        max_positions=fields.size("max_positions", 256),
        dtype=dtype,
    )
    fields.close({})
    return config


def names() -> Names:
    """Returns the tensors' names."""
    rules = [
        *(Rule(rf"{x}\.weight", f"{x}/kernel", layouts.LINEAR) for x in _LINEAR),
        *(Rule(rf"{x}\.weight", f"{x}/weight") for x in _TABLES),
    ]
    return Names(lambda name: name, rules, {})
