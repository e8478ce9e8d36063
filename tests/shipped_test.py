"""Configurations by name: what a bare name means, what is listed, what is refused."""

import os
import pathlib
import re
import sys

import pytest
from absl.testing import flagsaver

from vidsme_jax import commands, exits, main, settings
from vidsme_jax.base import AuditError
from vidsme_jax.run import rehearsal
from vidsme_jax.settings import shipped

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"

# 2026-11: how ml_collections loads a file.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")


@pytest.fixture
def given(monkeypatch, capsys, tmp_path):
    """Parses a command line in an empty folder; returns status and what was said."""
    monkeypatch.chdir(tmp_path)

    def parse(*arguments):
        try:
            main.parse(["vidsme", *arguments])
            status = None
        except SystemExit as end:
            status = end.code
        said = capsys.readouterr()
        return status, said.out, said.err

    with flagsaver.flagsaver():
        yield parse


def test_every_file_is_found_by_its_name_and_listed():
    assert shipped.names() == sorted(path.stem for path in CONFIGS.glob("*.py"))
    for name in shipped.names():
        assert pathlib.Path(shipped.resolve(name)).samefile(CONFIGS / f"{name}.py")
    assert shipped.resolve("llava:7b") == f"{shipped.folder() / 'llava.py'}:7b"
    listed = shipped.listing()
    assert max(map(len, listed.splitlines()[:-3])) <= 88
    for name in shipped.names():
        line = re.search(rf"^{name} +(\S.*)$", listed, re.MULTILINE)
        assert line is not None and len(line[1]) > 10, name
        assert all(f":{variant}" in listed for variant in shipped.variants(name))
    assert ":demo (default), :7b, :7b-dpo, :34b, :tiny" in listed


@pytest.mark.parametrize("name", shipped.names())
def test_every_variant_that_is_listed_is_one(name):
    module = shipped._module(CONFIGS / f"{name}.py")
    for variant in shipped.variants(name):
        assert module.get_config(variant)


def test_the_list_is_printed(given):
    status, out, error = given("--config", "list", "--config.workers=2")
    assert status == 0 and not error and out.startswith("finetune ")
    assert given("--config=list")[:2] == (status, out)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lava", "no configuration of that name is shipped; did you mean 'llava'?;"),
        ("lava:7b", "--config=lava: no configuration of that name is shipped; did"),
        ("nothing-like-it", "is shipped; --config list prints all; one of your own"),
        ("llava.py", "the one that is shipped is --config=llava"),
        ("configs/llava.py:7b", "the one that is shipped is --config=llava:7b"),
        ("./mime.py", "did you mean 'mine.py'?; --config list prints all"),
        ("./llva.py", "no such config file; did you mean 'llava'?"),
        ("a/b.py", "--config=a/b.py: no such config file; --config list prints all"),
        (".", "no configuration of that name"),
        ("x" * 5000, "no configuration of that name"),
        ("\x1b[2J", "--config=\\x1b[2J: no configuration"),
        ("llava:huge", "no variant 'huge'; known: demo, 7b"),
        ("", "no configuration of that name"),
    ],
)
def test_a_name_that_is_none(given, tmp_path, name, said):
    (tmp_path / "mine.py").touch()
    status, _, error = given(f"--config={name}")
    assert status == 2 and said in error, error
    assert "Traceback" not in error and "\x1b" not in error


def test_a_path_is_a_path(given, tmp_path):
    """Also one that has the name of a configuration that is shipped."""
    own = CONFIGS.joinpath("llava.py").read_text().replace("= 16", "= 3")
    (tmp_path / "llava.py").write_text(own)
    assert given("--config=./llava.py")[0] is None
    assert main._CONFIG.value.batch_size == 3
    assert given(f"--config={CONFIGS / 'llava.py'}:demo")[0] is None
    assert main._CONFIG.value.batch_size == 16


@pytest.mark.parametrize("body", ["settings.default()", "1 / 0"])
def test_python_writes_nothing_with_a_configuration(given, tmp_path, monkeypatch, body):
    (tmp_path / "mine.py").write_text(
        f"from vidsme_jax import settings\nget_config = lambda: {body}\n"
    )
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert given("--config=./mine.py")[0] == (2 if body == "1 / 0" else None)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]
    assert not sys.dont_write_bytecode  # Of what is imported later.


@pytest.mark.parametrize("other", ["llava.py", "configs/llava.py", "llava"])
def test_a_name_that_two_configurations_share_is_refused(given, tmp_path, other):
    """With both paths and the remedy; not if they say the same."""
    (tmp_path / "configs").mkdir()
    (tmp_path / other).write_bytes(CONFIGS.joinpath("llava.py").read_bytes())
    assert given("--config=llava:7b")[0] is None
    (tmp_path / other).write_text("import nothing")
    status, _, error = given("--config=llava:7b")
    assert status == 2
    own = shipped.folder() / "llava.py"
    assert f"--config=llava is the name of {own} and {other}, which are not" in error
    assert f"such as --config={other}:7b or --config={own}:7b" in error
    assert given(f"--config={own}:7b")[0] is None


def test_a_folder_of_that_name_is_no_configuration(given, tmp_path):
    (tmp_path / "llava").mkdir()
    assert given("--config=llava")[0] is None


def test_a_name_that_only_a_file_here_has(given, tmp_path):
    (tmp_path / "mine.py").write_text("")
    _, _, error = given("--config=mine")
    assert "is shipped; did you mean 'mine.py'?" in error


def test_the_short_form_sets_keys(given):
    """Over those of a configuration; without one, over the defaults."""
    short = "--model=a/b", "--members=a.json,b.json", "--nonmembers", "c", "--suspects="
    assert given(*short, "--members=d.json", "--config.workers=3")[0] is None
    config = main._CONFIG.value
    assert config.model.checkpoint == "a/b" and config.workers == 3
    assert config.corpus.members == ("a.json", "b.json", "d.json")
    assert config.corpus.nonmembers == ("c",) and config.corpus.suspects == ()
    assert config.batch_size == settings.default().batch_size
    assert commands.run_name(config) == "b"


def test_the_short_form_with_a_configuration(given):
    assert given("--config=llava", "--model=a/b", "--reference=c")[0] is None
    config = main._CONFIG.value
    assert config.model.checkpoint == "a/b" and config.reference.checkpoint == "c"
    assert config.batch_size == 16 and config.corpus.members
    assert commands.run_name(config) == "llava-b"


def test_keys_alone_do_without_a_configuration(given):
    assert given("--config.model.checkpoint=random:llava_qwen-tiny")[0] is None
    assert commands.run_name(main._CONFIG.value) == "llava_qwen-tiny"


def test_a_flag_and_its_key_that_differ_are_refused(given):
    status, _, error = given(
        *("--members=a", "--config.corpus.members=b", "--model=x"),
        *("--config.model.checkpoint=y", "--nonmembers=c,d"),
        "--config.corpus.nonmembers=('c', 'd')",
    )
    assert status == 2 and "2 problems" in error
    assert "--members=a and --config.corpus.members=b: these are the same key" in error
    assert "--model=x and --config.model.checkpoint=y: these are" in error


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("runs/tuned/", "tuned"),
        ("org/Name-7B", "Name-7B"),
        ("random:x-tiny", "x-tiny"),
        ("a b\x1b/c d", "c_d"),
        ("", "audit"),
        (".", None),
        ("..", None),
    ],
)
def test_a_run_is_named_after_its_model(given, tmp_path, model, name):
    assert given(f"--model={model}", "--members=a")[0] is None
    if name is None:
        folder = tmp_path if model == "." else tmp_path.parent
        name = re.sub(r"[^\w.@-]", "_", folder.name)
    found = commands.run_name(main._CONFIG.value)
    assert found == (name if model else pathlib.Path.cwd().name)


def test_nothing_is_given(given):
    assert given()[0] is None
    assert "--config llava (--config list prints all); or give --model and" in (
        commands.usage_problem(["vidsme"])
    )


def test_problems_that_stand_for_several_count_as_many(capsys):
    problems = ["a", "and 4 more unknown keys", "m.json: and 7 more problems of it"]
    exits.wrong([*problems, "x, y and 2 more of z"])
    assert "nothing was computed, 13 problems:" in capsys.readouterr().err


def _tree(folder):
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def _checked(name, tmp_path, **changes):
    config = shipped._module(CONFIGS / f"{name}.py").get_config("tiny")
    for key, value in changes.items():
        config.update_from_flattened_dict({key.replace("__", "."): value})
    return rehearsal.of_audit(config, str(tmp_path / "run"))


@pytest.fixture(autouse=True)
def _environment():
    """`--check` tells libraries to stay offline."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_a_check_says_what_was_found_and_writes_nothing(tmp_path):
    before = _tree(tmp_path)
    said = "\n".join(_checked("llava", tmp_path))
    assert _tree(tmp_path) == before
    assert said.startswith("nothing wrong was found; nothing was run or written\n")
    assert "corpus: 8 rows (4 members, 4 nonmembers) of 8 clips" in said
    assert "has something stored of 0 of 8 clips" in said
    assert "model: llava_next_video, float32, parameters of" in said
    assert "devices: " in said and "before the run: " in said
    assert "\nnot checked:\n  - whether the videos decode" in said


def test_a_check_lists_all_problems_of_all_kinds(tmp_path):
    """Those of the settings, the corpus and the model together, each once."""
    with pytest.raises(AuditError) as caught:
        _checked(
            "llava",
            tmp_path,
            headline="vid_smee",
            model__checkpoint="random:nothing",
            corpus__suspects=("nowhere.json",),
        )
    problems = caught.value.problems
    assert len(problems) == len(set(problems)) == 3
    for part in ("'vid_smee'", "random:nothing", "nowhere.json"):
        assert any(part in problem for problem in problems)


def test_a_check_fetches_nothing(tmp_path):
    """A checkpoint of the hub that the cache lacks is said not to be checked."""
    lines = _checked("llava", tmp_path, model__checkpoint="nobody/nothing-7b")
    said = "\n".join(lines)
    assert "config.model.checkpoint, its tokenizer and prompt: nobody/nothing" in said
    assert "model:" not in said and "devices: " in said


def test_the_flag_of_a_check(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "begin", lambda: None)
    arguments = ["vidsme", "--config=llava:tiny", "--check"]
    arguments.append(f"--workdir={tmp_path}/run")
    monkeypatch.setattr(sys, "argv", arguments)
    with flagsaver.flagsaver():
        assert main.main(main.parse(arguments)) == 0
        assert "corpus: 8 rows" in capsys.readouterr().out
        arguments.append("--config.headline=vidsme")
        assert main.main(main.parse(arguments)) == 2
        assert "did you mean 'vid_sme'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
