"""The scope of an audit: which attacks were run, and which were not.

The kinds are those that EDPB opinion 28/2024 names in paragraph 55, on testing whether
a model resists state-of-the-art attacks: attribute and membership inference,
exfiltration, regurgitation of training data, model inversion, reconstruction.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vidsme_jax.base import SLICES
from vidsme_jax.wording import counted

_SLICES = {
    "video": "the tokens of the video",
    "instruction": "the tokens of the question",
    "response": "the tokens of the answer",
}
_STATEMENT = (
    "EDPB opinion 28/2024 (paragraph 55) asks for structured tests against attribute "
    "and membership inference, exfiltration, regurgitation of training data, model "
    "inversion and reconstruction attacks. This audit ran membership inference alone, "
    "by the attacks listed. What it found is evidence about these attacks with these "
    "settings, and says nothing about resistance to others."
)
_NEVER = {
    "attribute inference": "no attribute of a person or a clip is inferred",
    "exfiltration": "nothing is drawn out of the model or its system",
    "regurgitation of training data": (
        "no answer is searched for texts of the training data; pictures a model of "
        "this kind does not give"
    ),
    "model inversion": "no input is reconstructed from parameters or outputs",
    "reconstruction attacks": "no training example is reconstructed",
}
_MEMBERSHIP = {
    "membership inference with shadow models (LiRA, RMIA)": (
        "needs models that were trained with and without each clip"
    ),
    "membership inference by gradients, hidden states or trained classifiers": (
        "scores are of next-token distributions alone"
    ),
    "membership inference by altered clips (neighbourhood, DIS-CO, KCMP)": (
        "each clip is shown as it is, and in a second order of its frames"
    ),
    "canaries": (
        "`vidsme canary` makes and tests them; this audit has looked for none"
    ),
    "the sound of a clip": "only pictures and texts are read",
}


def scope(
    scores: Sequence[str],
    slices: Sequence[str],
    *,
    headline: str,
    reference: bool,
    suspects: Mapping[str, Any],
    greedy: bool,
) -> dict[str, Any]:
    """Returns the annex on scope, JSON-ready.

    Args:
      scores: Names of those that were computed.
      slices: Whose tokens were scored.
      headline: The declared score.
      reference: Whether there is a reference model.
      suspects: Of `suspects.suspects`.
      greedy: Whether answers are the model's own.

    Returns:
      `statement`; `run`, each with `name` and `what`; `not_run`, with `name` and `why`.
    """
    where = ", ".join(_SLICES[x] for x in slices)
    number = counted(len(scores), "score")
    run = {
        "membership inference of single clips": (
            f"{number} of next-token distributions over {where}; headline {headline}, "
            "the others exploratory"
        )
    }
    if greedy:
        run["membership inference without known answers"] = (
            "scores of the model's own, most probable answers"
        )
    if reference:
        run["membership inference calibrated by a reference model"] = (
            "each score less that of a model that has not been trained on the members"
        )
    if suspects["set"]:
        run["membership inference of a set (dataset inference)"] = (
            "suspects together against clips that were certainly not used"
        )
    no = dict(_NEVER)
    for name in SLICES:
        if name not in slices:
            no[f"membership inference by {_SLICES[name]}"] = "not asked for (slices)"
    if not reference:
        no["membership inference calibrated by a reference model"] = "none was given"
    return {
        "statement": _STATEMENT,
        "run": [{"name": name, "what": what} for name, what in run.items()],
        "not_run": [
            {"name": name, "why": why} for name, why in (no | _MEMBERSHIP).items()
        ],
    }
