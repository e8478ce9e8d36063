"""The tables and the figure of the controlled benchmark."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import _evidence

# The scores that tables show; all are in the JSON file.
SHOWN = (
    "vid_sme",
    "vid_sme_mean",
    "mean_renyi_1",
    "min_k_plus_plus_100",
    "response_vid_sme",
    "response_vid_sme_max_30",
    "response_mean_renyi_1",
    "response_pmi",
    "response_pmi_blank",
    "response_min_k_prob_30",
    "response_min_k_plus_plus_30",
    "response_min_k_plus_plus_100",
    "response_loss",
    "response_loss_ref",
    "response_min_k_plus_plus_100_ref",
    "response_wbc",
    "lira",
    "rmia",
)


def number(found: Mapping[str, float] | None, chance: float = 0.5) -> str:
    """Writes a value with its interval; bold above chance, italic below."""
    if found is None:
        return ""
    text = f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
    if found["low"] > chance:
        return f"**{text}**"
    return f"_{text}_" if found["high"] < chance else text


def markdown(
    found: Sequence[Mapping[str, Any]], names: Sequence[str], what: str = "auc"
) -> str:
    """Returns a table: a row a score, a column a setting."""
    heads = [f"{x['method']} {x['snapshot']}{x['kind']}" for x in found]
    lines = ["| score | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for key in ("seeds", "member_loss", "gap"):
        cells = (
            f"{x[key]:.3f}" if isinstance(x[key], float) else x[key] for x in found
        )
        lines.append(
            f"| {key.replace('_', ' ')} | " + " | ".join(map(str, cells)) + " |"
        )
    for name in names:
        its = [x["scores"].get(name, {}).get(what) for x in found]
        if any(its):
            chance = (_chance(what, x) for x in found)
            lines.append(f"| `{name}` | " + " | ".join(map(number, its, chance)) + " |")
    if what == "auc":
        for name in found[0]["reference"]:
            its = [x["scores"][f"{name}_ref"].get("auc_less_plain") for x in found]
            gains = " | ".join(number(x, 0.0) for x in its)
            lines.append(f"| _gain of_ `{name}_ref` _over_ `{name}` | {gains} |")
        for kind, title in (("reference", "reference alone"), ("blind", "no model")):
            for name in found[0][kind]:
                its = [x[kind][name]["auc"] for x in found]
                lines.append(
                    f"| _{title}:_ `{name}` | " + " | ".join(map(number, its)) + " |"
                )
    return "\n".join(lines)


def _chance(what: str, x: Mapping[str, Any]) -> float:
    return {"auc": 0.5, "tpr": x["fpr"]}.get(what, _evidence.MORE_FPR)


def draw(found: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
    """Draws AUC against the epochs, and against the gap of the answer losses."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = ("response_min_k_plus_plus_100", "response_loss", "response_loss_ref")
    names += ("response_mean_renyi_1", "response_vid_sme", "vid_sme", "lira")
    colours = {name: f"C{k}" for k, name in enumerate(names)}
    pools = list(dict.fromkeys(x["pool"] for x in found))
    figure, axes = plt.subplots(
        2, len(pools), figsize=(5.5 * len(pools), 8), squeeze=False, sharey=True
    )
    styles = {"full": "-", "lora": "--", "projector": ":"}
    for column, pool in enumerate(pools):
        for method, style in styles.items():
            its = [x for x in found if (x["pool"], x["method"]) == (pool, method)]
            its = [x for x in its if not x["kind"]]
            for name in names:
                own = [x for x in its if name in x["scores"]]
                if not own:
                    continue
                values = [x["scores"][name]["auc"] for x in own]
                y = [v["value"] for v in values]
                error = [
                    [v["value"] - v["low"] for v in values],
                    [v["high"] - v["value"] for v in values],
                ]
                label = name if method == "full" else None
                kind = dict(color=colours[name], ls=style, marker="o", ms=3, lw=1)
                axes[0, column].errorbar(
                    [x["epochs"] for x in own], y, error, label=label, capsize=2, **kind
                )
                axes[1, column].plot([max(x["gap"], 1e-3) for x in own], y, **kind)
        axes[0, column].set(title=pool, xscale="log", xlabel="epochs", ylabel="AUC")
        axes[1, column].set(
            xscale="log",
            ylabel="AUC",
            xlabel="answer loss of non-members less that of members, nats a token",
        )
        for axis in axes[:, column]:
            axis.axhline(0.5, color="grey", lw=0.5)
    axes[0, 0].legend(fontsize=7)
    figure.suptitle("full: solid, low-rank: dashed, projector: dotted", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
