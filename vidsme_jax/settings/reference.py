"""The reference of keys: each with its default, what is allowed, and its help.

`vidsme COMMAND --help` and the page `docs/keys.md` show this text.
"""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from vidsme_jax.settings.rules import Rule

_WIDTH = 88
_INDENT = 6


class Keys(NamedTuple):
    """Keys that belong together.

    Attributes:
      rules: Of the keys, by name.
      titles: By group, such as "corpus", what it is of.
    """

    rules: Mapping[str, Rule]
    titles: Mapping[str, str]

    def only(self, *beginnings: str) -> "Keys":
        """Returns the keys whose names begin so, such as "corpus."."""
        kept = {k: rule for k, rule in self.rules.items() if k.startswith(beginnings)}
        return self._replace(rules=kept)

    def without(self, *beginnings: str) -> "Keys":
        """Returns the keys whose names do not begin so."""
        kept = {
            k: rule for k, rule in self.rules.items() if not k.startswith(beginnings)
        }
        return self._replace(rules=kept)


def titles(kinds: Mapping[str, type]) -> dict[str, str]:
    """Returns what groups are of, as the docstrings of their records say.

    Args:
      kinds: By the name of a group, its record: "Of `NAME.*`: what it is of."
    """
    lines = {
        name: (kind.__doc__ or "").partition("\n")[0] for name, kind in kinds.items()
    }
    return {name: line.partition(": ")[2].rstrip(".") for name, line in lines.items()}


def written(value: Any) -> str:
    """Returns a value as the command line takes it, without a shell's quotes.

    Example:
      >>> written((0.01, 0.05)), written(()), written(True), written("")
      ('0.01,0.05', '()', 'true', "''")
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        plain = value and not any(isinstance(each, tuple) for each in value)
        return ",".join(map(written, value)) if plain else repr(value)
    return str(value) if value != "" else "''"


def allowed(rule: Rule) -> str:
    """Returns the words of what a key may hold, as the end of a sentence."""
    return f"{rule.allowed.words}{', or None' if rule.optional else ''}"


def as_text(keys: Keys) -> str:
    """Returns the reference for a terminal.

    Args:
      keys: Those that a command reads.

    Returns:
      A heading a group; of each key a line `--config.KEY=DEFAULT`, and beneath it what
      it is and what is allowed.
    """
    blocks = []
    for name, its in _grouped(keys.rules):
        title = keys.titles.get(name, "")
        lines = [f"{name}: {title}" if title else name or "without a group"]
        for key, rule in its:
            lines.append(f"  --config.{key}={written(rule.default)}")
            said = f"{rule.help} Allowed: {allowed(rule)}."
            blank = " " * _INDENT
            lines += textwrap.wrap(
                said,
                _WIDTH,
                initial_indent=blank,
                subsequent_indent=blank,
                break_on_hyphens=False,
                break_long_words=False,
            )
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def as_markdown(sections: Iterable[tuple[str, str, Keys]]) -> str:
    """Returns the reference as a page.

    Args:
      sections: Of each its heading, a paragraph, and its keys.

    Returns:
      A table a group: key, default, what is allowed, what it is.
    """
    lines = []
    for heading, paragraph, keys in sections:
        lines += [f"## {heading}", "", paragraph, ""]
        for name, its in _grouped(keys.rules):
            title = keys.titles.get(name, "")
            shown = f"`{name}.*`: {title}" if title else f"`{name}.*`"
            lines += [f"### {shown if name else 'Without a group'}", ""]
            lines += ["| key | default | allowed | what it is |", "|---|---|---|---|"]
            lines += [_row(key, rule) for key, rule in its]
            lines.append("")
    return "\n".join(lines)


def _row(key: str, rule: Rule) -> str:
    default = f"`{written(rule.default)}`"
    return f"| `{key}` | {default} | {_cell(allowed(rule))} | {_cell(rule.help)} |"


def _cell(text: str) -> str:
    """Returns text for a cell of a table, which no sign of it ends or marks."""
    return re.sub(r"([|*<>_])", r"\\\1", text)


def _grouped(
    rules: Mapping[str, Rule],
) -> list[tuple[str, Sequence[tuple[str, Rule]]]]:
    """Returns keys by group; those without one, which is named "", come last."""
    found: dict[str, list[tuple[str, Rule]]] = {}
    for key, rule in rules.items():
        found.setdefault(key.rpartition(".")[0], []).append((key, rule))
    return sorted(found.items(), key=lambda item: not item[0])
