"""The configuration: its defaults and variants, and the check of its values."""

import pathlib
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from vidsme_jax.base import AuditError
from vidsme_jax.settings.keys import Keys
from vidsme_jax.settings.rules import Rule
from vidsme_jax.settings.views import RULES
from vidsme_jax.wording import nearest, printable

_LONGEST = 200  # Characters of a faulty key or value that are shown.
_OTHERS = ("train", "cache_mib")  # Keys of `vidsme finetune` alone.
_SHOWN = 20  # Unknown keys that are listed; the rest are counted.
DEMO = pathlib.Path(__file__).parents[1] / "demo"


def default(rules: dict[str, Rule] = RULES) -> ConfigDict:
    """Returns a configuration with every key of some rules at its default.

    A key takes any value; `problems` lists what is wrong.
    """
    config = Keys()
    for key, rule in rules.items():
        group, _, name = key.rpartition(".")
        if group and group not in config:
            config[group] = Keys()
        (config[group] if group else config)[name] = rule.default
    return config


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
        changed.report.num_permutations = 100
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
        must = f"it must be {rule.allowed.words}{', or None' if rule.optional else ''}"
        if key not in flat:
            if not _is_spoilt(key, flat):
                found.append(f"config.{key}: missing; {must}")
        elif rule.optional is not None and flat[key] is None:
            continue
        elif not rule.allowed.test(flat[key]):
            hint = _hint(flat[key], rule)
            found.append(f"config.{key} is {_shown(flat[key])}; {must}{hint}")
    return found


def without(config: ConfigDict, keys: Iterable[str]) -> ConfigDict:
    """Returns a copy in which some keys are absent; `views` then take the defaults."""
    left = Keys()
    for key, value in flatten(config).items():
        group, _, name = key.rpartition(".")
        if key not in set(keys) and "." not in group:
            if group and not isinstance(left.get(group), ConfigDict):
                left[group] = Keys()
            (left[group] if group else left)[name] = value
    return left


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
    known, groups = list(rules), {}
    for name in known:
        if "." in name:
            groups.setdefault(name.rpartition(".")[0], name)
    wrong = [key for key in flat if key in groups or key not in rules]
    found = []
    for key in wrong[:_SHOWN]:
        name = printable(key, most=_LONGEST)
        if key in groups:
            found.append(
                f"config.{name} is {_shown(flat[key])}; it is a group of keys, such as "
                f"config.{groups[key]}"
            )
        else:
            hint = nearest(key, known)
            if rules is RULES and key.split(".")[0] in _OTHERS:
                hint = "; it is a key of `vidsme finetune`"
            found.append(f"config.{name}: no such key{hint}")
    rest = len(wrong) - len(found)
    return [*found, *([f"and {rest} more unknown keys"] if rest else [])]


def _is_spoilt(key: str, flat: dict[str, Any]) -> bool:
    """Returns whether a value replaces a key's group, or keys replace its value."""
    return any(
        other.startswith(f"{key}.") or key.startswith(f"{other}.") for other in flat
    )


def _hint(value: Any, rule: Rule) -> str:
    """Returns the nearest allowed name of one that is not, or how to write a tuple."""
    if rule.allowed.test((value,)):
        return f"; write ({value!r},)"
    names = rule.allowed.names
    for name in value if isinstance(value, tuple) else (value,):
        if names and isinstance(name, str) and name not in names:
            return nearest(name, names)
    return ""


def _shown(value: Any) -> str:
    return printable(repr(value), most=_LONGEST)


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
