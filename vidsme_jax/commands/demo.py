"""The command line: `vidsme demo --workdir runs/made`.

Makes the demo again: draws its clips, trains its model, and trains the reference, a
model that has seen only other clips. The folder then holds

    corpus/      clips, members.jsonl, nonmembers.jsonl
    others/      those of the reference
    checkpoint/  the model, as transformers loads it
    reference/   the same, after ten epochs on the others

On one machine the same command gives the same bytes; on another one, or with other
versions of libraries or of this package, the same clips and members, and weights that
round differently: the answers' loss and Min-K%++ then have the same AUC, scores of the
video's rows another one (by up to 0.07 on matched non-members, 0.34 on shifted ones).
The model of the package was trained before commit a21e09f.
After a stop or a kill the same command continues; finished parts are kept.

Exit status: 0 done; 2 not done, and a message says why; 130 interrupted.
"""

import json
import pathlib
from typing import Any, NoReturn

from absl import flags, logging
from ml_collections import ConfigDict

from vidsme_jax import commands, exits, settings, terminal
from vidsme_jax.addresses import no_folder
from vidsme_jax.base import AuditError
from vidsme_jax.finetune import options
from vidsme_jax.wording import printable

# By role of the model: the clips that it learns, and how they are drawn.
CORPORA: dict[str, tuple[str, dict[str, int]]] = {
    "demo": ("corpus", {"num_members": 100, "num_matched": 100, "num_shifted": 100}),
    "reference": ("others", {"num_members": 100, "num_matched": 100, "num_shifted": 0}),
}
SEEDS = {"demo": 0, "reference": 999}
EPOCHS = {"demo": 80, "reference": 10}
TARGETS = {"demo": "checkpoint", "reference": "reference"}
_ARCHITECTURE = ("config.json", "preprocessor_config.json")
_ARCHITECTURE += ("tokenizer.json", "tokenizer_config.json")


def configuration(folder: pathlib.Path, variant: str) -> ConfigDict:
    """Returns the configuration of a training.

    Args:
      folder: Holds the clips, and in `checkpoint` a config and a tokenizer.
      variant: "demo" or "reference".
    """
    config: Any = options.default()
    corpus = folder / CORPORA[variant][0]
    config.corpus.members = (str(corpus / "members.jsonl"),)
    config.corpus.nonmembers = (str(corpus / "nonmembers.jsonl"),)
    config.video.num_frames = 8
    config.model.checkpoint = str(folder / TARGETS["demo"])
    config.model.init = "random"
    config.model.dtype = "bfloat16"
    config.parallel.mode, config.parallel.data = "pmap", 1
    config.train.batch_size = 10
    config.train.epochs = EPOCHS[variant]
    config.train.learning_rate = 2e-3
    config.train.warmup_steps = 100
    config.train.seed = 0
    return config


def make(folder: pathlib.Path, stop: Any = None) -> None:
    """Makes whatever is missing of clips, model and reference.

    Args:
      folder: Made if need be.
      stop: See `training.run`.

    Raises:
      AuditError: The folder holds models that were made in another way.
      OSError: It cannot be written.
      KeyboardInterrupt: It was asked to stop.
    """
    from vidsme_jax.demo import clips
    from vidsme_jax.finetune import record, training

    wanted = [variant for variant in TARGETS if not _is_made(folder, variant)]
    for variant in wanted:
        name, counts = CORPORA[variant]
        logging.info("drawing %d clips into %s", sum(counts.values()), folder / name)
        clips.write_corpus(folder / name, **counts, seed=SEEDS[variant])
    (folder / TARGETS["demo"]).mkdir(parents=True, exist_ok=True)
    for name in _ARCHITECTURE:
        content = (settings.DEMO / "checkpoint" / name).read_bytes()
        (folder / TARGETS["demo"] / name).write_bytes(content)
    for variant in wanted:
        target = folder / TARGETS[variant]
        made = training.run(configuration(folder, variant), target, stop)
        terminal.show(record.summary(made, target))


def _is_made(folder: pathlib.Path, variant: str) -> bool:
    """Returns whether a model is there.

    Raises:
      AuditError: Another one is there.
    """
    target = folder / TARGETS[variant]
    if not any(path for name in options.EXPORTS for path in target.glob(name)):
        return False
    wanted = _lasting(settings.flatten(configuration(folder, variant)))
    try:
        record = json.loads((target / options.RECORD).read_text())
        found = _lasting(record["config"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        found = None
    if found == json.loads(json.dumps(wanted)):
        return True
    raise AuditError(
        [f"{target} holds another model than the demo's; take another --workdir"]
    )


def _lasting(flat: dict[str, Any]) -> dict[str, Any]:
    """Returns a configuration without its paths, which may be written differently."""
    paths = ("corpus.members", "corpus.nonmembers", "model.checkpoint")
    return {key: value for key, value in flat.items() if key not in paths}


def main(argv: list[str]) -> int:
    """Makes the demo and returns the exit status."""
    if len(argv) > 1:
        return exits.wrong([commands.unexpected(argv[1])])
    if not flags.FLAGS.workdir:
        return exits.wrong(["--workdir is missing, such as --workdir runs/made"])
    if wrong := no_folder(flags.FLAGS.workdir, "--workdir"):
        return exits.wrong(wrong)
    workdir = pathlib.Path(flags.FLAGS.workdir)
    shown = printable(str(workdir))
    commands.begin()
    from vidsme_jax.run.stopping import Stop

    stop = Stop()
    stop.listen()
    try:
        make(workdir, stop)
    except AuditError as error:
        return exits.wrong(error.problems)
    except OSError as error:
        return exits.stopped(exits.os_cause(error), workdir)
    except KeyboardInterrupt:
        terminal.show_error(f"interrupted: {shown} is kept; the same command continues")
        return exits.INTERRUPTED
    terminal.show(f"the demo is in {shown}")
    return exits.OK


def run() -> NoReturn:
    """Defines the flag, which other programs have too, and runs `main`."""
    flags.DEFINE_string("workdir", None, "Folder that receives clips and models.")
    commands.help_wanted(__doc__, "workdir")
    commands.start(main, commands.parse_flags)


if __name__ == "__main__":
    run()
