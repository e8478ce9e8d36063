"""The configuration: defaults, variants, what is wrong with one."""

import pathlib
from typing import Any

from ml_collections import ConfigDict, config_dict

from vidsme_jax.base import AuditError, nearest
from vidsme_jax.settings.rules import Rule
from vidsme_jax.settings.views import RULES

DEMO = pathlib.Path(__file__).parents[1] / "demo"


def default(rules: dict[str, Rule] = RULES) -> ConfigDict:
    """Returns a configuration with every key of some rules at its default."""
    tree: dict[str, Any] = {}
    for key, rule in rules.items():
        group, _, name = key.rpartition(".")
        optional = rule.optional
        value = rule.default if optional is None else config_dict.placeholder(optional)
        (tree.setdefault(group, {}) if group else tree)[name] = value
    return ConfigDict(tree)


def variant(config: ConfigDict, name: str, checkpoints: dict[str, str]) -> ConfigDict:
    """Sets the checkpoint of a variant; `tiny` is a trial run of the same settings.

    Args:
      config: Changed in place, and returned.
      name: Of the variant.
      checkpoints: By variant. That of "tiny", random weights, comes with eight clips of
        the demo in place of the corpus, four frames and float32.

    Raises:
      ValueError: There is no such variant.
    """
    if name not in checkpoints:
        known = ", ".join(checkpoints)
        raise ValueError(
            f"no variant {name!r}; known: {known}{nearest(name, list(checkpoints))}"
        )
    changed: Any = config
    changed.model.checkpoint = checkpoints[name]
    if name == "tiny":
        changed.corpus.members = (str(DEMO / "corpus/members.jsonl"),)
        changed.corpus.nonmembers = (str(DEMO / "corpus/nonmembers.jsonl"),)
        changed.corpus.video_root = ""
        changed.corpus.max_clips = 4
        changed.model.dtype = "float32"
        changed.video.num_frames = 4
        changed.batch_size = 4
        changed.report.num_bootstrap = 100
    return config


def flatten(config: ConfigDict) -> dict[str, Any]:
    """Returns the configuration as {"a.b": value}."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= {f"{key}.{name}": v for name, v in flatten(value).items()}
        else:
            flat[key] = value
    return flat


def problems(config: ConfigDict, rules: dict[str, Rule] = RULES) -> list[str]:
    """Lists what is wrong with a configuration, one sentence a key."""
    flat = flatten(config)
    found = _unknown(flat, rules)
    for key, rule in rules.items():
        must = f"it must be {rule.allowed.words}"
        if key not in flat:
            found.append(f"config.{key}: missing; {must}")
        elif rule.optional is not None and flat[key] is None:
            continue
        elif not rule.allowed.test(flat[key]):
            found.append(f"config.{key} is {flat[key]!r}; {must}")
    return found


def restored(flat: dict[str, Any]) -> ConfigDict:
    """Returns the configuration that `flatten` and JSON have written.

    Raises:
      AuditError: It has keys that are not known here.
    """
    if unknown := _unknown(flat, RULES):
        raise AuditError(unknown)
    config = default()
    for key, value in flat.items():
        group, _, name = key.rpartition(".")
        (config[group] if group else config)[name] = _tupled(value)
    return config


def _unknown(flat: dict[str, Any], rules: dict[str, Rule]) -> list[str]:
    return [
        f"config.{key}: no such key{nearest(key, list(rules))}"
        for key in flat
        if key not in rules
    ]


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
