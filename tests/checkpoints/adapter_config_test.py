"""Every key of `adapter_config.json`: handled, harmless or refused by name."""

import dataclasses
import inspect
import random
import re
import time

import pytest
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists

from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import adapter_config, patterns, targets


def test_every_field_of_peft_is_decided():
    import peft

    handled = adapter_config.HANDLED
    tables = (handled, set(adapter_config.HARMLESS), set(adapter_config.REFUSED))
    fields = {field.name for field in dataclasses.fields(peft.LoraConfig)}
    assert fields <= set().union(*tables)
    assert sum(map(len, tables)) == len(set().union(*tables))
    source = inspect.getsource(adapter_config) + inspect.getsource(targets)
    for key in handled - {"revision", "peft_type"}:
        assert f'"{key}"' in source


KEYS = {"peft_type": "LORA", "base_model_name_or_path": "x", "r": 4, "lora_alpha": 8}


def _read(**keys):
    problems: list[str] = []
    adapter_config.read(KEYS | keys, problems)
    return problems


def _config(**keys):
    return adapter_config.read(KEYS | keys, [])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        *(
            ({"init_lora_weights": name}, f"{name}'.*path_initial_model_for_weight_con")
            for name in ("pissa_niter_16", "OLoRA", "corda", "loftq", "lora_ga")
        ),
        ({"init_lora_weights": "gausian"}, "known: True.*did you mean 'gaussian'"),
        (
            {"alora_invocation_tokens": [1]},
            "for some tokens only.*give another adapter",
        ),
        ({"arrow_config": {"top_k": 3}}, "for each token.*cannot be merged"),
        ({"monteclora_config": {"x": 1}}, "samples updates.*cannot be merged"),
        (
            {"kasa_config": {"beta": 1}},
            "changes the weights of the base.*merge_and_unl",
        ),
        ({"layer_replication": [[0, 2]]}, "repeats layers.*merge_and_unload"),
        ({"megatron_config": {"x": 1}}, "Megatron's.*merge_and_unload"),
        ({"target_parameters": ["w"]}, "no layer's weight.*merge_and_unload"),
        ({"trainable_token_indices": [3]}, "rows of the embedding.*merge_and_unload"),
        ({"use_bdlora": {"nblocks": 2}}, "block-diagonal.*merge_and_unload"),
        ({"use_qalora": True}, "quantised base.*merge_and_unload"),
        ({"enable_lora": [True]}, "fused layer.*merge_and_unload"),
        ({"peft_type": "IA3"}, "'IA3', expected 'LORA': merge it with PEFT"),
        ({"peft_type": "PROMPT_TUNING"}, "expected 'LORA': it equals no single weight"),
        ({"use_rslra": True}, "unknown key 'use_rslra'; did you mean 'use_rslora'"),
        ({"use_rslora": "yes"}, "use_rslora is 'yes', expected true or false"),
        ({"bias": "some"}, "bias is 'some', expected 'none', 'all' or 'lora_only'"),
        (
            {"modules_to_save": "lm_head"},
            "modules_to_save is 'lm_head', expected a list",
        ),
        ({"target_modules": 3}, "target_modules is 3, expected a list of names or a p"),
        ({"exclude_modules": "q("}, r"exclude_modules: 'q\(' is no regular expression"),
        ({"layers_pattern": ["h("]}, r"layers_pattern: 'h\(' is no regular expression"),
        ({"use_bdlor": True}, "unknown key 'use_bdlor'(?!.*did you mean 'use_bdlora')"),
        ({"layers_to_transform": ["1"]}, "layers_to_transform is .* a list of numbers"),
        ({"ensure_weight_tying": 1}, "ensure_weight_tying is 1, expected true or fal"),
        ({"revision": 3}, "revision is 3, expected the name of a branch"),
        ({"base_model_name_or_path": None}, "is None; expected the folder or hub id"),
        ({"r": 0}, "r is 0, lora_alpha 8; expected an integer from 1"),
        ({"r": 10**400}, r"r is 10+\.\.\.0+, lora_alpha 8"),
        ({"lora_alpha": float("nan")}, "lora_alpha nan; expected"),
        (
            {"rank_pattern": {"q": 2.5}},
            "rank_pattern: 'q' is 2.5, expected an integer from 1",
        ),
        ({"alpha_pattern": {"q(": 2}}, r"'q\(' is no regular expression"),
        (
            {"alpha_pattern": {"(?i)Q_PROJ": 3}},
            r"alpha_pattern: '\(\?i\)Q_PROJ' is no regular expression .*has flags",
        ),
        ({"alpha_pattern": [2]}, r"alpha_pattern is \[2\], expected an object"),
    ],
    ids=str,
)
def test_keys_that_are_refused(keys, message):
    (problem,) = _read(**keys)
    assert re.search(message, problem), problem


def test_keys_that_are_harmless():
    for name in (None, True, False, "gaussian", "eva", "orthogonal", "mica"):
        assert not _read(init_lora_weights=name)
    off = dict.fromkeys(adapter_config.REFUSED) | {"of_a_later_peft": False}
    assert not _read(**off, lora_dropout=0.1, fan_in_fan_out=True, qalora_group_size=16)
    assert not _read(lorap_lr_ratio=16.0, lorap_emb_lr=1e-6)  # As ms-swift writes.


def test_a_pattern_is_the_end_of_a_name():
    """Each side of an alternative is, as in PEFT: the pattern is one group."""
    found = _config(rank_pattern={"q_proj|up_proj": 2, "k.proj": 3})
    ranks = {"a.q_proj": 2, "a.up_proj": 2, "up_proj": 2, "a.k_proj": 3}
    ranks |= {"a.q_proj.x": 4, "a.q_proj_x": 4, "a.xup_proj": 4, "a.k_proj_x": 4}
    assert {name: found.rank_of(name) for name in ranks} == ranks
    found = _config(alpha_pattern={"q_proj|up_proj": 2})
    assert [found.scale_of(name) for name in ("a.q_proj", "a.q_proj.x")] == [0.5, 2]


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [
        ({"target_modules": ["q_proj"]}, "a.layers.0.q_proj a.layers.1.q_proj"),
        ({"target_modules": ["proj"]}, ""),
        (
            {"target_modules": r".*layers\.1\..*"},
            "a.layers.1.q_proj a.layers.1.up_proj",
        ),
        ({"target_modules": "q_proj"}, ""),
        (
            {"target_modules": ["q_proj"], "exclude_modules": ["1.q_proj"]},
            "a.layers.0.q_proj",
        ),
        (
            {"target_modules": ["q_proj"], "exclude_modules": r".*\.1\..*"},
            "a.layers.0.q_proj",
        ),
        (
            {"target_modules": ["q_proj"], "layers_to_transform": 1},
            "a.layers.1.q_proj",
        ),
        (
            {
                "target_modules": ["q_proj"],
                "layers_to_transform": [0],
                "layers_pattern": ["h", "layers"],
            },
            "a.layers.0.q_proj",
        ),
        (
            {
                "target_modules": ["q_proj"],
                "layers_to_transform": [0],
                "layers_pattern": "h",
            },
            "",
        ),
    ],
    ids=str,
)
def test_which_modules_have_factors(keys, chosen):
    found = _config(**keys).targets
    names = [f"a.layers.{k}.{m}_proj" for k in (0, 1) for m in ("q", "up")]
    assert found is not None
    assert " ".join(name for name in names if found.has(name)) == chosen


@pytest.mark.parametrize("stacks", [None, "layers", "(layers|h)", "model.layers", "h"])
@pytest.mark.parametrize("layer", [0, 1])
def test_layers_are_chosen_as_peft_does(stacks, layer):
    keys = {"target_modules": ["q_proj", "up"], "layers_to_transform": [layer]}
    keys["layers_pattern"] = stacks
    found = _config(**keys).targets
    for name in (
        *("model.layers.0.q_proj", "a.model.layers.1.q_proj", "layers.0.q_proj"),
        *("a.layers.0.experts.1.up", "a.b.layers.1.h.0.up", "h.0.q_proj"),
    ):
        theirs = check_target_module_exists(LoraConfig(**keys), name)
        assert found.has(name) == bool(theirs), name


def test_modules_that_are_not_named():
    for keys in ({}, {"target_modules": None}, {"target_modules": "all-linear"}):
        assert _config(**keys).targets is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"r": 10**4000},
            r"r is 10+\.\.\.0+, lora_alpha 8; expected an integer from 1",
        ),
        ({"lora_alpha": float("inf")}, "lora_alpha inf; expected"),
        ({"lora_alpha": 10**4000}, r"lora_alpha 10+\.\.\.0+; expected"),
        ({"base_model_name_or_path": "x" * 5000}, "base_model_name_or_path is 'xxx"),
        ({"base_model_name_or_path": "a\0b"}, r"base_model_name_or_path is 'a\\x00b'"),
        ({"base_model_name_or_path": "a\ud800"}, "base_model_name_or_path is 'a"),
        ({"rank_pattern": {"q" * 2001: 2}}, "it has 2001 characters, at most 2000"),
        ({"rank_pattern": {f"q{k}": 2 for k in range(5000)}}, "of at most 4096"),
        ({"rank_pattern": {r"(a)\1": 2}}, "it has GROUPREF, which is not built"),
        ({"rank_pattern": {"(?<=a)b": 2}}, "it has a lookbehind, which is not built"),
        ({"rank_pattern": {"(" * 500 + ")" * 500: 2}}, "is no regular expression"),
        ({"rank_pattern": {"a{4294967296}": 2}}, "is no regular expression"),
        ({"target_modules": ["q"] * 5000}, "at most 4096 of at most 2000 characters"),
        ({"modules_to_save": ["q"] * 300}, "expected a list of at most 256 names"),
        ({"bias": {"a": 1}}, "bias is {'a': 1}, expected 'none'"),
        ({"init_lora_weights": ["x" * 9999]}, "init_lora_weights is .*xxx"),
    ],
    ids=range(16),
)
def test_absurd_values_are_refused_in_few_words(keys, message):
    (problem,) = _read(**keys)
    assert re.search(message, problem), problem
    assert len(problem) < 900


def test_thousands_of_unknown_keys_or_patterns_are_counted():
    begun = time.process_time()
    found = _read(**{f"use_rslor{k}": k + 1 for k in range(3000)})
    assert len(found) == 21 and found[20] == "and 2980 more unknown keys"
    found = _read(alpha_pattern={f"q{k}(": 1 for k in range(3000)})
    assert len(found) == 21
    assert found[20] == "and 2980 more problems of alpha_pattern"
    assert time.process_time() - begun < 3


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(x+x+)+y", "(.*a){20}b"])
def test_patterns_whose_ways_double_take_no_time(pattern):
    found = _config(rank_pattern={pattern: 2}, target_modules=pattern)
    begun = time.process_time()
    for name in ("a" * 1000, "x" * 1000, "a." * 500):
        assert found.rank_of(name) == 4
        assert found.targets is not None and not found.targets.has(name)
    assert time.process_time() - begun < 10


def test_patterns_that_take_too_long_are_refused(monkeypatch):
    monkeypatch.setattr(patterns, "MOST_STEPS", 1000)
    found = _config(rank_pattern={"(?:(?=a+)a)+b": 2})
    with pytest.raises(AuditError, match="take over 1000 steps to match: name the mod"):
        found.rank_of("a" * 1000)


def test_patterns_match_as_those_of_python():
    rng = random.Random(0)
    parts = ["a", "b", r"\.", ".", r"\d", "[ab]", "[^a]", "1", r"\w", "^", "$", r"\b"]

    def drawn(depth):
        kind = rng.random() if depth < 4 else 0
        if kind < 0.4:
            return rng.choice(parts)
        inner = drawn(depth + 1)
        if kind < 0.6:
            return inner + drawn(depth + 1)
        if kind < 0.7:
            return f"({inner}|{drawn(depth + 1)})"
        if kind < 0.9:
            return f"(?:{inner})" + rng.choice(["*", "+", "?", "*?", "{2}", "{1,2}?"])
        return rng.choice(["(?=", "(?!"]) + inner + ")"

    steps = patterns.Steps()
    for _ in range(500):
        text = drawn(0)
        ours, name = patterns.Pattern(text, steps), "".join(rng.choices("ab.1", k=6))
        assert ours.matches(name) == bool(re.fullmatch(text, name)), (text, name)
        whole = re.match(rf"(.*\.)?({text})$", name)
        assert ours.matches_end(name) == bool(whole), (text, name)
