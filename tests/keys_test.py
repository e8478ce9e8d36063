"""The reference of keys: on the page, and in the help of every command."""

import pytest

import forked
import keys_page
from vidsme_jax import __main__ as command
from vidsme_jax import settings
from vidsme_jax.finetune import options
from vidsme_jax.settings import reference, views

_FORMS = ("--help", "-h", "--version")


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    given = [(name, form) for name in command.COMMANDS for form in _FORMS]
    asked = [["vidsme", list(each)] for each in given]
    lines = forked.all_of(asked, tmp_path_factory.mktemp("help"))
    return dict(zip(given, lines, strict=True))


def test_the_page_is_current():
    assert keys_page.PAGE.read_text() == keys_page.page(), (
        "write it anew: python tests/keys_page.py"
    )


def test_the_page_has_every_key():
    page = keys_page.page()
    for key, rule in [*settings.RULES.items(), *options.RULES.items()]:
        assert f"| `{key}` | " in page
        assert reference._cell(rule.help) in page
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1


@pytest.mark.parametrize("name", command.COMMANDS)
def test_help_is_complete_and_quick(said, name):
    """What it does, examples and statuses; without any library that takes seconds."""
    status, text, heavy = said[name, "--help"]
    assert status == 0 and not heavy
    assert said[name, "-h"] == [status, text, heavy]
    assert f"vidsme {name} --" in text or f"vidsme {name} " in text
    assert "\nExit status: 0 " in text and "\nflags:\n" in text
    assert max(map(len, text.partition("\nkeys, ")[2].splitlines()), default=0) < 200
    status, text, heavy = said[name, "--version"]
    assert (status, heavy) == (0, []) and text.startswith("vidsme_jax ")


@pytest.mark.parametrize(
    ("name", "rules"),
    [("audit", settings.RULES), ("finetune", options.RULES)],
)
def test_help_shows_every_key(said, name, rules):
    text = said[name, "--help"][1]
    words = " ".join(text.split())
    for key, rule in rules.items():
        assert f"  --config.{key}={reference.written(rule.default)}\n" in text
        assert " ".join(f"{rule.help} Allowed: {reference.allowed(rule)}.".split()) in (
            words
        )
    for group in {key.partition(".")[0] for key in rules if "." in key}:
        assert f"\n{group}: " in text


@pytest.mark.parametrize(
    ("name", "has", "lacks"),
    [
        ("prepare", ["corpus.members", "video.fps", "workers"], ["report.alpha"]),
        ("power", ["corpus.members", "report.alpha"], ["model.checkpoint", "scores"]),
        ("report", ["report.alpha", "scores", "gate.max_auc"], ["model.checkpoint"]),
    ],
)
def test_help_shows_the_keys_that_are_read(said, name, has, lacks):
    text = said[name, "--help"][1]
    assert all(f"--config.{key}=" in text for key in has)
    assert not any(f"--config.{key}=" in text for key in lacks)


@pytest.mark.parametrize("name", ["lookup", "match", "compare", "verify", "canary"])
def test_a_command_without_a_configuration_has_no_keys(said, name):
    assert "--config.KEY" not in said[name, "--help"][1]


def test_titles_are_there_for_every_group():
    for keys in (views.KEYS, options.KEYS):
        groups = {key.rpartition(".")[0] for key in keys.rules} - {"", "studies"}
        assert all(keys.titles[group] for group in groups)
