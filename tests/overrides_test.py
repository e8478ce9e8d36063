"""Values of keys: given on the command line, in a file, and from Python."""

import copy
import pathlib
import pickle
import sys
import warnings

import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from vidsme_jax import commands, exits, settings
from vidsme_jax.finetune import options
from vidsme_jax.settings import overrides, reference, views

COUNT, BOUNDS = (
    "an integer >= 1, or None",
    "(phi_min, phi_max, b_min, b_max), increasing, or None",
)


def _given(*arguments, config=None, rules=settings.RULES):
    if config is None:
        config = settings.default(rules)
        config.model.checkpoint = "x"
    rest, given = overrides.split(["x", *arguments], rules)
    overrides.apply(config.lock(), given, rules)
    return config, rest


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("corpus.max_clips=None", None),
        ("corpus.max_clips=1_000", 1000),
        ("corpus.max_clips=007", 7),
        ("corpus.max_clips=0x10", 16),
        ("motion.bounds=None", None),
        ("motion.bounds=0,1,0,1", (0, 1, 0, 1)),
        ("motion.bounds=[0, 1, 0, 1.5]", (0, 1, 0, 1.5)),
        ("motion.q_scale=1", 1.0),
        ("overwrite=T", True),
        ("overwrite=0", False),
        ("studies.q_scales=0.5", (0.5,)),
        ("studies.q_scales=0.5,", (0.5,)),
        ("studies.q_scales=(0.5)", (0.5,)),
        ("studies.orders=(1.5,1.0)", ((1.5, 1.0),)),
        ("studies.orders=[[1.5, 1.0], [2, 1]]", ((1.5, 1.0), (2, 1))),
        ("slices=video,response", ("video", "response")),
        ("slices=(video,)", ("video",)),
        ("slices=('response')", ("response",)),
        ("scores=vid_sme,perplexity", "vid_sme,perplexity"),
        ("scores=('vid_sme','perplexity')", ("vid_sme", "perplexity")),
        ("scores=['vid_sme']", ("vid_sme",)),
        ("scores=(vid_sme, perplexity)", ("vid_sme", "perplexity")),
        ("scores=('all')", ("all",)),
        ("studies.against=shuffled:1,reversed", ("shuffled:1", "reversed")),
        ("corpus.members=a.json", ("a.json",)),
        ("corpus.members=('a.json',)", ("a.json",)),
        ("corpus.members=my films, 2024/*.mp4", ("my films", "2024/*.mp4")),
        ("corpus.members=a.json,b.json,", ("a.json", "b.json")),
        ("corpus.members=(a.json, b.json)", ("a.json", "b.json")),
        ("corpus.members='a.json','b.json'", ("a.json", "b.json")),
        ("corpus.members=('a,b.json',)", ("a,b.json",)),
        ("corpus.members=[ab].mp4,(c).mp4", ("[ab].mp4", "(c).mp4")),
        ("corpus.fields=video=path,label=", ("video=path", "label=")),
        ("report.fprs=0.01,0.05", (0.01, 0.05)),
        ("studies.frames=1,2,4", (1, 2, 4)),
        ("motion.bounds=0,1.5,0,1", (0, 1.5, 0, 1)),
        ("corpus.members=2024", ("2024",)),
        ("corpus.members=", ()),
        ("model.prompt={question}\n<video>", "{question}\n<video>"),
        ("model.checkpoint=None", "None"),
    ],
)
def test_a_value_is_read_by_its_rule(argument, value):
    config, rest = _given(f"--config.{argument}")
    key, rule = argument.split("=")[0], settings.RULES[argument.split("=")[0]]
    found = settings.flatten(config)[key]
    assert found == value and type(found) is type(value)
    assert rest == ["x"]
    assert value is None or key == "model.prompt" or rule.allowed.test(found)


def test_a_name_with_commas_that_is_there_stays_one(tmp_path, monkeypatch):
    """Alone, among others, and as a pattern; a list of names is none."""
    monkeypatch.chdir(tmp_path)
    for name in ("a,b.json", "c,d,e.mp4", "c", "f.json"):
        (tmp_path / name).touch()
    for text, names in (
        ("a,b.json", ("a,b.json",)),
        ("a,b.json,f.json", ("a,b.json", "f.json")),
        ("f.json, a,b.json", ("f.json", "a,b.json")),
        ("c,d,e.mp4", ("c,d,e.mp4",)),
        ("*,d,*.mp4,c", ("*,d,*.mp4", "c")),
        ("[ab],b.json", ("[ab],b.json",)),
        ("a,g.json", ("a", "g.json")),
    ):
        config, _ = _given(f"--config.corpus.members={text}")
        assert config.corpus.members == names, text
    many = ",".join(["x"] * 5000)
    config, _ = _given(f"--config.corpus.members={many}")
    assert len(config.corpus.members) == 5000


def test_every_default_is_written_as_it_is_read():
    """The reference of keys shows what can be given."""
    for rules in (settings.RULES, options.RULES):
        for key, rule in rules.items():
            text = reference.written(rule.default)
            text = "" if text == "''" else text  # A shell takes the quotes away.
            config, _ = _given(f"--config.{key}={text}", rules=rules)
            found = settings.flatten(config)[key]
            assert found == rule.default, key
            assert type(found) is type(rule.default), key


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("corpus.max_clips=none", f"corpus.max_clips is 'none'; it must be {COUNT}"),
        ("corpus.max_clips=True", f"corpus.max_clips is 'True'; it must be {COUNT}"),
        ("corpus.max_clips=4.0", f"corpus.max_clips is '4.0'; it must be {COUNT}"),
        ("corpus.max_clips=", f"corpus.max_clips is ''; it must be {COUNT}"),
        ("motion.bounds=()", f"motion.bounds is (); it must be {BOUNDS}"),
        (
            "motion.bounds=(0,1,0,nan)",
            f"motion.bounds is '(0,1,0,nan)'; it must be {BOUNDS}",
        ),
        (
            "motion.bounds=(0,1,0,True)",
            f"motion.bounds is (0, 1, 0, True); it must be {BOUNDS}",
        ),
        ("batch_size=None", "batch_size is 'None'; it must be an integer >= 1"),
        ("batch_size=true", "batch_size is 'true'; it must be an integer >= 1"),
        ("motion.q_scale=nan", "motion.q_scale is nan; it must be a number in (0, 1]"),
        ("motion.q_scale=0,5", "motion.q_scale is '0,5'; it must be a number in (0"),
        ("motion.r_scale=inf", "motion.r_scale is inf; it must be a number > 0"),
        ("overwrite=maybe", "overwrite is 'maybe'; it must be true or false"),
        (
            "studies.orders=((True, 2),)",
            "studies.orders is ((True, 2),); it must be a tuple of different pairs",
        ),
        (
            "slices=('video', 'respons')",
            "slices is ('video', 'respons'); it must be a tuple of different slices: "
            "video, instruction, response; did you mean 'response'?",
        ),
        (
            "model.dtype=fp16",
            "model.dtype is 'fp16'; it must be one of bfloat16, float16, float32; did "
            "you mean 'float16'?",
        ),
        ("study=scale", "did you mean 'scales'?"),
        (
            "corpus.max_clip=4",
            "corpus.max_clip: no such key; did you mean 'corpus.max_clips'?",
        ),
        ("copus.seed=4", "copus.seed: no such key; did you mean 'corpus.seed'?"),
        ("batch_size.x=4", "batch_size.x: no such key; did you mean 'batch_size'?"),
        (
            "video=3",
            "video is '3'; it is a group of keys, such as config.video.num_frames",
        ),
    ],
)
def test_what_is_no_value_is_said_in_one_sentence(argument, said):
    config, _ = _given(f"--config.{argument}")
    (problem,) = settings.problems(config)
    assert problem.startswith("config.") and said in problem


def test_a_value_of_the_file_is_reset_to_none():
    config = settings.variant(settings.default(), "tiny", {"tiny": "random:x"})
    config.motion.bounds = (0, 1, 0, 1)
    given = "--config.corpus.max_clips=None", "--config.motion.bounds=None"
    _given(*given, config=config)
    assert config.corpus.max_clips is None and config.motion.bounds is None
    assert not settings.problems(config)
    assert views.Settings.of(config).corpus.max_clips is None


def test_forms_of_flags():
    config, rest = _given(
        *("--config.corpus.seed", "3", "-config.workers=2", "--config.overwrite"),
        *("--workdir=w", "--noconfig.corpus.allow_outside", "--config=f.py"),
        *("--config.corpus.members=a", "--config.corpus.members=b", "more"),
        *("--config.batch_size=2", "--config.batch_size=4"),
        *("--config.motion.r_scale", "--", "--config.workers=9"),
    )
    assert config.corpus.seed == 3 and config.workers == 2 and config.overwrite
    assert config.corpus.members == ("a", "b") and config.batch_size == 4
    assert config.motion.r_scale == ""
    assert rest == ["x", "--workdir=w", "--config=f.py", "more", "--", *rest[-1:]]


def test_finetune_reads_its_own_keys():
    config, _ = _given("--config.train.max_steps=True", rules=options.RULES)
    (problem,) = options.problems(config)
    said = (
        "config.train.max_steps is 'True'; it must be an integer from 0 to 1000000000"
    )
    assert problem == said
    config.train.learning_rate = True
    said = "config.train.learning_rate is True; it must be a number > 0, at most 10"
    assert said in options.problems(config)


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("motion.q_scale", True, True),
        ("motion.q_scale", 1, 1.0),
        ("motion.q_scale", np.float32(0.5), 0.5),
        ("motion.q_scale", np.bool_(True), True),
        ("batch_size", np.int64(8), 8),
        ("batch_size", "8", "8"),
        ("overwrite", "true", "true"),
        ("corpus.max_clips", True, True),
        ("corpus.members", ["a"], ("a",)),
        ("corpus.members", (pathlib.Path("a"),), ("a",)),
        ("report.fprs", np.array([0.1, 0.2]), (0.1, 0.2)),
        ("studies.orders", [[1.5, 1]], ((1.5, 1),)),
        ("motion.bounds", (0.0, np.float64(1), 0.0, 1.0), (0.0, 1.0, 0.0, 1.0)),
    ],
)
def test_from_python_nothing_changes_its_meaning(key, value, kept):
    config = settings.default()
    group, _, name = key.rpartition(".")
    (config[group] if group else config)[name] = value
    found = settings.flatten(config)[key]
    assert found == kept and type(found) is type(kept)
    assert settings.flatten(copy.deepcopy(config)) == settings.flatten(config)
    assert settings.flatten(pickle.loads(pickle.dumps(config)))[key] == kept
    wrong = [p for p in settings.problems(config) if key in p]
    assert bool(wrong) == isinstance(kept, bool | str)


def test_one_name_in_place_of_a_tuple():
    config = settings.default()
    config.corpus.members = "a.json"
    assert any(
        "config.corpus.members is 'a.json'" in p and p.endswith("write ('a.json',)")
        for p in settings.problems(config)
    )


def test_views_of_what_is_not_faulty():
    config = settings.default()
    config.video = 3
    config.corpus.max_clips, config.corpus.seed = True, 5
    given = views.Settings.of(settings.without(config, ["video", "corpus.max_clips"]))
    assert given.video == views.Video() and given.corpus.seed == 5
    assert given.corpus.max_clips is None and config.corpus.max_clips is True


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return None", "TypeError: get_config() must return a ConfigDict, such as"),
        ("return {'video': 3}", "it returned dict"),
        ("config.vido.fps = 3", "AttributeError: no key 'vido' Did you mean \"video\""),
        ("return confg", "NameError: name 'confg' is not defined"),
        ("raise ValueError('no')", "used: no\n"),
        ("return (", "SyntaxError: '(' was never closed"),
    ],
)
def test_a_file_that_gives_no_configuration(body, said, refused):
    assert said in refused(
        "from vidsme_jax import settings\n\ndef get_config():\n"
        f"    config = settings.default()\n    {body}\n    return config\n"
    )


def test_a_file_without_a_configuration(refused):
    assert "it has no function get_config(variant='')" in refused("x = 1\n")


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Returns what is said of a file that holds a text."""

    def run(text: str) -> str:
        return _refused(text, tmp_path / "c.py", monkeypatch, capsys)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the load_module")
        yield run


def _refused(text, path, monkeypatch, capsys):
    values = flags.FlagValues()
    monkeypatch.setattr(commands.flags, "FLAGS", values)
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    path.write_text(text)
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=[])
    with pytest.raises(SystemExit) as end:
        commands.parse(["x", f"--config={path}", "--config.workers=1"])
    assert end.value.code == exits.WRONG
    printed = capsys.readouterr().err
    assert "the configuration cannot be used: " in printed
    return printed


def test_plain_configurations_are_set_too():
    config = ConfigDict({"workers": 1, "motion": {"q_scale": 0.5}})
    _given("--config.workers=many", "--config.motion.q_scale=x", config=config)
    assert config.workers == "many" and config.motion.q_scale == "x"
