"""Stored results of `validity.py` as tables of Markdown; shares in %."""

import re
from collections.abc import Callable, Iterable
from typing import Any

Cells = dict[str, Any]

_VERDICTS = {
    "supported": "supported",
    "ranks_above_no_placebo": "ranks above",
    "chance": "chance",
    "shift": "shift",
    "underpowered": "underpowered",
    "not_tested": "not tested",
}


def tables(cells: Cells) -> str:
    """Returns one table a step, of what there is."""
    made = []
    for step, (title, of) in _STEPS.items():
        its = {k.partition("/")[2]: v for k, v in cells.items() if _step(k) == step}
        if its:
            draws = [each["draws"] for each in its.values()]
            number = f"{min(draws)}" + f" to {max(draws)}" * (min(draws) < max(draws))
            made.append(f"**{step}** ({number} draws a row): {title}\n\n{of(its)}")
    return "\n\n".join(made)


def _step(name: str) -> str:
    return name.partition("/")[0]


def _share(cell: dict[str, Any], name: str) -> str:
    found = cell["numbers"].get(name)
    return "-" if found is None else f"{100 * found['mean']:.3g}"


def _mean(cell: dict[str, Any], name: str) -> str:
    found = cell["numbers"].get(name)
    return "-" if found is None else f"{found['mean']:.2f}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _ordered(cells: Cells) -> list[str]:
    """Sorts names with their numbers by value."""
    parts = {name: re.split(r"(\d+(?:\.\d+)?)", name) for name in cells}
    key = {n: [(0, float(x), "") if k % 2 else (1, 0.0, x) for k, x in enumerate(p)]
           for n, p in parts.items()}  # fmt: skip
    return sorted(cells, key=key.__getitem__)


def _altered(cells: Cells) -> str:
    (cell,) = cells.values()
    names = [x.partition(":")[0] for x in cell["numbers"] if x.endswith(": shift")]
    return _table(
        ("second half", "pixels or motion differ", "container differs", "blind AUC"),
        (
            (
                name,
                _share(cell, f"{name}: shift"),
                _share(cell, f"{name}: apart"),
                _mean(cell, f"{name}: auc"),
            )
            for name in names
        ),
    )


def _blind(cells: Cells) -> str:
    whats = [f"{name} 0.95" for name in ("motion", "pixels", "text")]
    shapes = [x.partition(", ")[2] for x in _ordered(cells) if x.startswith("size")]

    def row(shape: str) -> list[str]:
        size = cells[f"size, {shape}"]
        found = [size, *(cells.get(f"{what}, {shape}") for what in whats)]
        power = [_share(x, "p <= 0.05") if x else "-" for x in found[1:]]
        return [shape, _share(size, "p <= 0.05"), _share(size, "p <= 0.1"), *power]

    head = ("a role", "p_b <= 0.05 of nothing", "p_b <= 0.1", *whats)
    return _table(head, map(row, shapes))


def _adjusted(cells: Cells) -> str:
    names = ("p_r <= 0.05", "both", "p_s <= 0.05")
    return _table(
        ("null world", "p_r <= 0.05", "p_r and p_s", "p_s alone", "blind AUC"),
        (
            (
                name,
                *(_share(cells[name], x) for x in names),
                _mean(cells[name], "blind auc"),
            )
            for name in _ordered(cells)
        ),
    )


def _verdicts(cells: Cells) -> str:
    def row(name: str) -> list[str]:
        cell = cells[name]
        each = [[_share(cell, f"{x} {v}") for v in _VERDICTS] for x in _MODELS]
        ps = [_share(cell, f"{p} <= 0.05") for p in ("p_s", "p_b", "p_r", "p_d")]
        return [name, *each[0], *each[1][1:5], "/".join(ps), _mean(cell, "blind auc")]

    head = ["world", *_VERDICTS.values()]
    head += [f"no placebo: {x}" for x in list(_VERDICTS.values())[1:5]]
    return _table([*head, "p_s/p_b/p_r/p_d <= 0.05", "A_b"], map(row, _ordered(cells)))


_MODELS = ("placebo", "none")


def _intervals(cells: Cells) -> str:
    """Returns the smallest to the largest coverage over all AUCs."""
    kinds = ("auc", "tpr 0.05", "tpr 0.1", "accuracy")

    def span(cell: dict[str, Any], kind: str, what: str) -> str:
        shares = {
            float(name.split()[-1 - len(what.split())]): its["mean"]
            for name, its in cell["numbers"].items()
            if name.startswith(f"{kind} ")
            and name.endswith(f" {what}")
            and len(name.split()) == len(kind.split()) + 1 + len(what.split())
        }
        if not shares:
            return "-"
        low = min(shares, key=shares.__getitem__)
        most = max(shares.values())
        return f"{100 * shares[low]:.3g} (at {low:g}) to {100 * most:.3g}"

    def row(name: str) -> list[str]:
        its = cells[name]
        return [
            name,
            *(span(its, kind, "covered") for kind in kinds),
            span(its, "accuracy", "best covered"),
        ]

    named = [name for name in _ordered(cells) if not name.startswith("maxT")]
    head = ("a role", "AUC", "TPR at 5 %", "TPR at 10 %", "accuracy", "best accuracy")
    found = _table(head, map(row, named))
    maxt = [
        (name, _share(cells[name], "family-wise error"))
        for name in _ordered(cells)
        if name.startswith("maxT")
    ]
    return f"{found}\n\n{_table(('77 scores', 'family-wise error'), maxt)}"


def _rows(cells: Cells) -> str:
    def shown(cell: dict[str, Any]) -> str:
        return "; ".join(
            f"{name}: {_mean(cell, name) if 'auc' in name else _share(cell, name)}"
            for name in cell["numbers"]
        )

    rows = ((name, str(cells[name]["draws"]), shown(cells[name])) for name in
            _ordered(cells))  # fmt: skip
    return _table(("cell", "draws", "shares"), rows)


_STEPS: dict[str, tuple[str, Callable[[Cells], str]]] = {
    "altered": ("48 + 48 drawn clips, none a member", _altered),
    "blind": ("44 columns in three families; one column of AUC 0.95", _blind),
    "verdicts": (
        "verdicts with a placebo that shares 0.7 of the noise, and without",
        _verdicts,
    ),
    "intervals": ("coverage, smallest to largest over AUC 0.5 to 0.99", _intervals),
    "adjusted": ("scores that know nothing of membership", _adjusted),
    "suspects": ("sets, lists, the whole program", _rows),
    "power": ("power at the smallest AUC that is named, level 5 %", _rows),
}
