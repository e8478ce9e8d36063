"""Reads PEFT's `adapter_config.json`: every key is handled, harmless or refused.

The keys are those of `peft.LoraConfig` 0.21.2 and of older versions. LoRA and those of
its variants whose result is one weight are built; the rest is refused by name.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from vidsme_jax.checkpoints import content, patterns, targets
from vidsme_jax.checkpoints.fields import MAX_SIZE, by_key
from vidsme_jax.checkpoints.patterns import Pattern, Steps
from vidsme_jax.checkpoints.targets import Targets
from vidsme_jax.wording import nearest

_MOST_SAVED = 256  # Modules that were trained in full.
_LONGEST_BASE = 1000  # Characters: no path or hub id has more.
MERGE = (
    "merge it with PEFT (merge_and_unload, then save_pretrained) and give the result"
)
_RESTORE = (
    "save it with PEFT's save_pretrained(..., path_initial_model_for_weight_conversion"
    f"=...), or {MERGE}"
)
_UNMERGEABLE = "it equals no single weight and cannot be merged: give another adapter"

HANDLED = frozenset(
    """alpha_pattern base_model_name_or_path bias ensure_weight_tying exclude_modules
    init_lora_weights layers_pattern layers_to_transform lora_alpha lora_bias
    modules_to_save peft_type r rank_pattern revision target_modules use_dora
    use_rslora""".split()
)
HARMLESS = by_key(
    {
        "of the training": """inference_mode lora_dropout merge_weights task_type
            velora_config""",
        "of ms-swift's training": """lora_dtype lorap_emb_lr lorap_lr_ratio
            model_key_mapping swift_type""",
        "counts with init_lora_weights alone, which is checked": """corda_config
            eva_config lora_ga_config loftq_config""",
        "of the process, or a note": """auto_mapping peft_version runtime_config""",
        "PEFT sets it by the kind of layer: False for all that are built": """
            fan_in_fan_out""",
        "counts with use_qalora or megatron_config, which are refused": """megatron_core
            qalora_group_size""",
    }
)
REFUSED: dict[str, tuple[str, str]] = {
    "alora_invocation_tokens": ("its update is for some tokens only", _UNMERGEABLE),
    "arrow_config": ("it chooses among adapters for each token", _UNMERGEABLE),
    "enable_lora": ("it updates parts of a fused layer", MERGE),
    "kasa_config": ("it changes the weights of the base", MERGE),
    "layer_replication": ("it repeats layers of the base", MERGE),
    "megatron_config": ("its layers are Megatron's, split over devices", MERGE),
    "monteclora_config": ("it samples updates", _UNMERGEABLE),
    "target_parameters": ("it updates parameters that are no layer's weight", MERGE),
    "trainable_token_indices": ("it replaces some rows of the embedding", MERGE),
    "use_bdlora": ("its factors are block-diagonal", MERGE),
    "use_qalora": ("its factors act on groups of inputs of a quantised base", MERGE),
}
# Values of peft_type that add inputs or choose among adapters.
_PROMPTS = frozenset(
    """ADAPTION_PROMPT CARTRIDGE CPT MULTITASK_PROMPT_TUNING POLY PREFIX_TUNING
    PROMPT_TUNING P_TUNING XLORA""".split()
)
# Values of init_lora_weights that leave the base as it is; and those that change it, so
# that the factors belong to a base that is not saved.
_UNCHANGING = ("gaussian", "eva", "orthogonal", "mica")
_CHANGING = ("pissa", "pissa_niter_[number]", "olora", "corda", "loftq", "lora_ga")


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """The content of an `adapter_config.json`.

    Attributes:
      base: The model that it was trained from, a folder or a hub id.
      revision: Of the base; None: its main branch.
      rank: `r`.
      alpha: `lora_alpha`.
      ranks: `rank_pattern`: ranks of modules that match a pattern.
      alphas: `alpha_pattern`.
      rank_stabilised: Whether the scale is alpha / sqrt(rank), else alpha / rank.
      decomposed: Whether it is a DoRA.
      shifted: Whether the second factors have biases.
      bias: "none", "all" or "lora_only": the biases that were trained.
      tied: Whether the output layer of a tied model has the embedding's factors.
      targets: The modules that have factors; None if the config does not name them.
      saved: The ends of the names of modules that were trained in full.
    """

    base: str
    revision: str | None = None
    rank: int = 1
    alpha: int | float = 1
    ranks: tuple[tuple[Pattern, int], ...] = ()
    alphas: tuple[tuple[Pattern, int | float], ...] = ()
    rank_stabilised: bool = False
    decomposed: bool = False
    shifted: bool = False
    bias: str = "none"
    tied: bool = False
    targets: Targets | None = None
    saved: tuple[str, ...] = ()

    def rank_of(self, module: str) -> int:
        """Returns a module's rank, by its name in the adapter's keys."""
        return _matched(self.ranks, module, self.rank)

    def scale_of(self, module: str) -> float:
        """Returns the scale of a module's update, by its name in the adapter's keys."""
        rank = self.rank_of(module)
        alpha = _matched(self.alphas, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)

    def saves(self, name: str) -> bool:
        """Returns whether a tensor belongs to a module that was trained in full."""
        return bool(self.saved_module(name))

    def saved_module(self, name: str) -> str:
        """Returns the module that was trained in full and has a tensor, "" if none."""
        parts = name.split(".")[:-1]
        modules = (".".join(parts[: k + 1]) for k in range(len(parts)))
        return next((m for m in modules if m.endswith(self.saved)), "")


def read(raw: dict[str, Any], problems: list[str]) -> AdapterConfig:
    """Reads an `adapter_config.json`; appends one sentence per faulty key."""
    kind = raw.get("peft_type")
    if kind not in (None, "LORA"):
        remedy = _UNMERGEABLE if str(kind) in _PROMPTS else MERGE
        problems.append(f"peft_type is {_short(kind)}, expected 'LORA': {remedy}")
        return AdapterConfig(_base(raw, problems))  # Its other keys are not LoRA's.
    _refuse(raw, problems)
    _check_initialisation(raw.get("init_lora_weights"), problems)
    bias = raw.get("bias") or "none"
    if bias not in ("none", "all", "lora_only"):
        found = content.shown(bias)
        problems.append(f"bias is {found}, expected 'none', 'all' or 'lora_only'")
        bias = "none"
    saved = raw.get("modules_to_save") or []
    listed = isinstance(saved, list) and len(saved) <= _MOST_SAVED
    if not listed or not all(isinstance(s, str) and 0 < len(s) < 1000 for s in saved):
        problems.append(
            f"modules_to_save is {content.shown(saved)}, expected a list of at most "
            f"{_MOST_SAVED} names"
        )
        saved = []
    revision = raw.get("revision")
    if not isinstance(revision, str | None):
        problems.append(
            f"revision is {content.shown(revision)}, expected the name of a branch, "
            "tag or commit"
        )
        revision = None
    rank: Any = raw.get("r")
    alpha: Any = raw.get("lora_alpha")
    if not _is_rank(rank) or not _is_alpha(alpha):
        problems.append(
            f"r is {_short(rank)}, lora_alpha {_short(alpha)}; expected an integer "
            "from 1 and a number"
        )
        rank, alpha = 1, 1
    steps = Steps()
    return AdapterConfig(
        base=_base(raw, problems),
        revision=revision or None,
        rank=rank,
        alpha=alpha,
        ranks=_by_pattern(raw, "rank_pattern", _is_rank, steps, problems),
        alphas=_by_pattern(raw, "alpha_pattern", _is_alpha, steps, problems),
        rank_stabilised=_flag(raw, "use_rslora", problems),
        decomposed=_flag(raw, "use_dora", problems),
        shifted=_flag(raw, "lora_bias", problems),
        bias=bias,
        tied=_flag(raw, "ensure_weight_tying", problems),
        targets=targets.read(raw, steps, problems),
        saved=tuple(saved),
    )


def _base(raw: dict[str, Any], problems: list[str]) -> str:
    base = raw.get("base_model_name_or_path")
    if isinstance(base, str) and 0 < len(base) <= _LONGEST_BASE and base.isprintable():
        return base
    problems.append(
        f"base_model_name_or_path is {content.shown(base)}; expected the folder or hub "
        "id of the model that the adapter was trained from"
    )
    return ""


def _refuse(raw: dict[str, Any], problems: list[str]) -> None:
    """Appends the keys that change the model in a way that is not built."""
    known: list[str] = sorted(HANDLED)
    unknown: list[str] = []
    for key in sorted(set(raw) - HANDLED - set(HARMLESS)):
        value = raw[key]
        if value is None or value is False or value in ([], {}, ""):
            continue  # Switched off: PEFT writes unused keys, too.
        if key in REFUSED:
            why, remedy = REFUSED[key]
            problems.append(f"{key} is {_short(value)}: {why}, not built; {remedy}")
        else:
            unknown.append(key)
    problems += [
        f"unknown key {content.shown(key)}{nearest(key, known)} (it may change the "
        f"model, so it is not ignored; {MERGE})"
        for key in unknown[: content.SHOWN]
    ]
    if (rest := len(unknown) - content.SHOWN) > 0:
        problems.append(f"and {rest} more unknown keys")


def _check_initialisation(value: Any, problems: list[str]) -> None:
    """Refuses factors of a base that was changed before the training."""
    name = str(value).lower()
    if value is None or isinstance(value, bool) or name in _UNCHANGING:
        return
    key = f"init_lora_weights is {content.shown(value)}"
    if name.startswith("pissa_niter_") or name in _CHANGING:
        problems.append(
            f"{key}: it changes the weights of the base before the training, so the "
            f"factors do not fit the published weights; {_RESTORE}"
        )
    else:
        known = (*_UNCHANGING, *_CHANGING)
        problems.append(
            f"{key}; known: True, False, {', '.join(known)}{nearest(name, known)}"
        )


def _flag(raw: dict[str, Any], key: str, problems: list[str]) -> bool:
    value = raw.get(key)
    if not isinstance(value, bool | None):
        problems.append(f"{key} is {_short(value)}, expected true or false")
    return value is True


def _by_pattern(
    raw: dict[str, Any],
    key: str,
    is_valid: Callable[[Any], bool],
    steps: Steps,
    problems: list[str],
) -> tuple[tuple[Pattern, Any], ...]:
    """Reads {regular expression: number}, in the file's order."""
    found = raw.get(key) or {}
    if not isinstance(found, dict) or len(found) > patterns.MOST:
        problems.append(
            f"{key} is {_short(found)}, expected an object of at most {patterns.MOST} "
            "patterns"
        )
        return ()
    out, wrong = [], []
    for text, value in found.items():
        pattern = targets.compiled(key, text, steps, wrong)
        if not is_valid(value):
            named = content.shown(text)
            expected = "an integer from 1" if is_valid is _is_rank else "a number"
            wrong.append(f"{key}: {named} is {_short(value)}, expected {expected}")
        elif pattern is not None:
            out.append((pattern, value))
    problems += content.limited(wrong, f"problems of {key}")
    return tuple(out)


def _matched(found: tuple[tuple[Pattern, Any], ...], module: str, default: Any) -> Any:
    """Returns the value of the first pattern that matches the end of a name."""
    return next((v for pattern, v in found if pattern.matches_end(module)), default)


def _is_rank(value: Any) -> bool:
    return type(value) is int and 0 < value <= MAX_SIZE


def _is_alpha(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= MAX_SIZE


def _short(value: Any) -> str:
    text = content.shown(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
