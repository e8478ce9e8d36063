"""Every configuration file and every key."""

import difflib
import importlib.util
import pathlib
import time

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict

from vidsme_jax import parallel, scores, settings
from vidsme_jax.base import AuditError
from vidsme_jax.models.frames.params import SPLIT
from vidsme_jax.settings import views
from vidsme_jax.wording import nearest

ROOT = pathlib.Path(__file__).parents[1]


def _get_config(name, *variant):
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*variant)


@pytest.mark.parametrize("variant", [(), ("demo",), ("7b",), ("7b-dpo",), ("34b",)])
def test_configs_build_and_keep_to_the_rules(variant):
    config = _get_config("llava", *variant).lock()
    assert not settings.problems(config)
    demo = variant in [(), ("demo",)]
    headline = scores.headline(config.headline, config.profile, config.slices)
    assert headline == ("response_min_k_plus_plus_100" if demo else "vid_sme")
    assert ("hf" in config.model.checkpoint) != demo


def test_every_key_is_checked():
    config = settings.default()
    assert sorted(settings.flatten(config)) == sorted(settings.RULES)
    faulty = ConfigDict()
    for key in settings.RULES:
        node = faulty
        *groups, name = key.split(".")
        for group in groups:
            if group not in node:
                node[group] = ConfigDict()
            node = node[group]
        node[name] = frozenset()  # Never allowed.
    found = settings.problems(faulty)
    assert len(found) == len(settings.RULES)
    assert all("it must be" in problem for problem in found)


def test_missing_and_unknown_keys_are_named():
    config = settings.default()
    config.model.checkpoint = "x"
    del config["batch_size"]
    config.batchsize = 3
    found = settings.problems(config)
    assert found[0] == "config.batchsize: no such key; did you mean 'batch_size'?"
    assert found[1].startswith("config.batch_size: missing; it must be")


def test_thousands_of_unknown_keys_take_no_time():
    config = settings.default()
    config.model.checkpoint = "x"
    for k in range(3000):
        config[f"num_frame_{k}"] = k
    begun = time.process_time()
    found = settings.problems(config)
    assert time.process_time() - begun < 0.5
    assert len(found) == 21 and found[20] == "and 2980 more unknown keys"


def test_a_key_is_shown_in_part():
    config = settings.default()
    config["x" * 100_000 + "\x1b[2J"] = 1
    found = settings.problems(config)[0]
    assert len(found) < 400 and found.endswith("... (100004 characters): no such key")


def test_the_nearest_name_is_that_of_difflib_and_quick():
    rng, known = np.random.default_rng(0), list(settings.RULES)
    for _ in range(200):
        letters = list(rng.choice(known))
        for place in rng.integers(len(letters), size=rng.integers(1, 6)):
            letters[place] = "abcdef_."[rng.integers(8)]
        name = "".join(letters)
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        assert nearest(name, known) == (
            f"; did you mean {close[0]!r}?" if close else ""
        )
    many = ["".join(rng.choice(list("abcdef"), 100)) for _ in range(5000)]
    for name in ("a" * 10_000_000, many[0][::-1], ""):
        begun = time.process_time()
        nearest(name, many * 20)
        assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("pmap", 0, 2), "pmap copies the whole model"),
        (("mesh", 4, 4), "asks for 4 x 4 devices, 8 are here"),
        (("mesh", 0, 16), "asks for 1 x 16 devices, 8 are here"),
    ],
)
def test_grids_that_cannot_be(arguments, text):
    with pytest.raises(AuditError, match=text):
        parallel.make_devices(*arguments)


def test_grids():
    assert parallel.make_devices("auto", 0, 1).mode == "pmap"
    devices = parallel.make_devices("auto", 0, 2)
    assert devices.mode == "mesh" and devices.mesh.devices.shape == (4, 2)
    sharding = devices.shardings(SPLIT)
    split = sharding("language_model/layers/up_proj/kernel", (3, 8, 6)).spec
    assert tuple(split) == (None, None, "model")
    odd = sharding("language_model/layers/up_proj/kernel", (3, 8, 5)).spec
    assert tuple(odd) == (None, None, None)


@pytest.mark.parametrize(
    ("gib", "mode", "shape"),
    [(10, "pmap", (8, 1)), (13, "mesh", (4, 2)), (70, "mesh", (1, 8))],
)
def test_the_grid_follows_from_the_memory(gib, mode, shape, monkeypatch):
    """Of 16 GiB a device parameters may fill three quarters."""
    monkeypatch.setattr(parallel, "_memory", lambda _: 16 * 2**30)
    devices = parallel.make_devices("auto", 0, 1, num_bytes=gib * 2**30)
    assert devices.mode == mode and devices.mesh.devices.shape == shape


@pytest.mark.parametrize(
    ("mode", "model", "gib", "dtype", "expected"),
    [
        (
            "auto",
            1,
            100,
            "bfloat16",
            r"take 100\.0 GiB \(107,374,182,400 bytes\) in bfloat16, at least 12\.5 "
            r"GiB .* on each of 8 devices; a device \(cpu\) holds 16\.0 GiB .* takes 9 "
            r"such devices in mode mesh, and 8 are here, or one that holds 133\.3",
        ),
        (
            "pmap",
            1,
            40,
            "bfloat16",
            r"Set config\.parallel\.mode = mesh and config\.parallel\.model = 4$",
        ),
        (
            "mesh",
            2,
            40,
            "float32",
            r"parallel\.model = 4, or config\.model\.dtype = bfloat16: 20\.0 GiB",
        ),
    ],
)
def test_a_model_that_does_not_fit(mode, model, gib, dtype, expected, monkeypatch):
    monkeypatch.setattr(parallel, "_memory", lambda _: 16 * 2**30)
    with pytest.raises(AuditError, match=expected):
        parallel.make_devices(mode, 0, model, num_bytes=gib * 2**30, dtype=dtype)


def test_compiled_programs_are_kept_where_the_config_says(monkeypatch):
    told = {}
    monkeypatch.setattr(parallel.jax.config, "update", told.__setitem__)
    parallel.keep_programs("")
    assert not told
    parallel.keep_programs("~/programs")
    folder = str(pathlib.Path.home() / "programs")
    assert told == {"jax_compilation_cache_dir": folder}


@pytest.mark.parametrize(
    ("mode", "data", "model", "keeps"),
    [("pmap", 1, 1, True), ("pmap", 2, 1, False), ("mesh", 1, 2, False)],
)
def test_no_program_of_several_cpu_devices_is_read_from_a_folder(
    mode, data, model, keeps, tmp_path, caplog
):
    """Read from one, a program with collective operations may hang (jaxlib 0.10.2)."""
    caplog.set_level("INFO", "absl")
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()
    try:
        parallel.keep_programs(str(tmp_path))
        parallel.make_devices(mode, data, model)
        jax.jit(lambda x: x + 1.0)(np.ones(3))
    finally:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before)
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()
    assert bool(list(tmp_path.iterdir())) == keeps
    assert (f"{tmp_path} is left as it is" in caplog.text) != keeps


def test_true_is_no_number():
    for key, rule in settings.RULES.items():
        if not isinstance(rule.default, bool):
            assert not rule.allowed.test(True), key
    for key in ("report.fprs", "studies.frames", "studies.k", "studies.q_scales"):
        assert not settings.RULES[key].allowed.test((True,)), key
    assert not settings.RULES["motion.bounds"].allowed.test((False, True, 0, 1))
    assert settings.RULES["motion.bounds"].allowed.test((0, 1, 0, 1.5))


def test_scores_are_text_or_a_tuple():
    test = settings.RULES["scores"].allowed.test
    assert all(map(test, ("all", "a,b", ("a", "b"), ["a"])))
    assert not any(map(test, ("", (), ("a,b",), ("('a'",), (3,), (("a",),), 3)))


def test_each_key_has_a_line_of_help_and_an_allowed_default():
    for key, rule in settings.RULES.items():
        assert rule.help.strip() and "\n" not in rule.help, key
        if rule.optional is None and key != "model.checkpoint":
            assert rule.allowed.test(rule.default), key


def test_views_take_what_a_configuration_says():
    config = settings.default()
    assert views.Settings.of(config) == views.Settings.of(ConfigDict())
    config.video.num_frames = 4
    given = views.Settings.of(config)
    assert given.video == views.view(views.Video, config) != views.Video()
    assert given.video.num_frames == 4 and given.motion.bounds is None
    config.video.num_frames = 16
    assert given.video.num_frames == 4
    faulty = ConfigDict({"video": 3, "batch_size": "many"})
    given = views.Settings.of(faulty)  # For `problems` to refuse.
    assert given.video == views.Video() and given.batch_size == "many"
