"""Writes docs/keys.md, the reference of keys: `python tests/keys_page.py`."""

import pathlib

from vidsme_jax.finetune import options
from vidsme_jax.settings import reference, views

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "keys.md"
_HEAD = """\
# Every key of the configuration

`vidsme COMMAND --help` prints the keys that a command reads. A key is set on the
command line by `--config.KEY=VALUE`, or in a configuration. A tuple is a list with
commas, such as `--config.corpus.members=a.json,b.json`, or a literal of Python; a name
with commas that is that of a file stays one, and given several times the lists are
joined. `None` is given as such. Of a key that takes true or false the name alone is
true. This page is written by `python tests/keys_page.py`, of what the program checks.

```sh
vidsme audit --help
```

"""
_SHARED = """\
A training has keys of its own, and some of those above with the same meaning; its own,
and those whose default or values differ, are listed."""


def page() -> str:
    """Returns the page."""
    audit, training = views.KEYS, options.KEYS
    own = {
        key: rule
        for key, rule in training.rules.items()
        if audit.rules.get(key) is not rule
    }
    sections = [
        ("Of an audit or a study", "`vidsme audit`; others read some of them.", audit),
        ("Of a training", _SHARED, training._replace(rules=own)),
    ]
    return _HEAD + reference.as_markdown(sections)


if __name__ == "__main__":
    PAGE.write_text(page())
