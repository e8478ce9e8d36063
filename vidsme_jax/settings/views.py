"""Every key of the configuration, as typed records: a stage is given what it reads.

A field defines its key: type, default, allowed values and one line of help.
"""

import dataclasses
import typing
from typing import Any, TypeVar

from ml_collections import ConfigDict

from vidsme_jax.settings import rules
from vidsme_jax.settings.reference import Keys, titles
from vidsme_jax.settings.rules import Allowed, Rule

T = TypeVar("T")
Number = int | float


def key(default: Any, allowed: Allowed, help: str, optional: type | None = None) -> Any:
    """Makes the field of a key; the arguments are those of `rules.Rule`."""
    rule = Rule(default, allowed, help, optional)
    return dataclasses.field(default=default, metadata={"rule": rule})


@typing.dataclass_transform(
    kw_only_default=True, frozen_default=True, field_specifiers=(key,)
)
def group(kind: type[T]) -> type[T]:
    """Makes a record of keys; its values are not checked (`settings.problems` does)."""
    return typing.no_type_check(dataclasses.dataclass(frozen=True, kw_only=True)(kind))


def read(kind: type[T], given: Any) -> T:
    """Returns a record of a group's values; keys that it lacks take their defaults."""
    values = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if isinstance(given, ConfigDict) and field.name in given:
            value, inner = given[field.name], typing.cast(Any, field.type)
            values[field.name] = (
                value if "rule" in field.metadata else read(inner, value)
            )
    return kind(**values)


@group
class Corpus:
    """The keys `corpus.*`: where the clips come from."""

    members: tuple[str, ...] = key((), rules.SOURCES, "Known members.")
    nonmembers: tuple[str, ...] = key((), rules.SOURCES, "Known non-members.")
    suspects: tuple[str, ...] = key(
        (), rules.SOURCES, "Clips whose membership is unknown."
    )
    calibration: tuple[str, ...] = key(
        (), rules.SOURCES, "Non-members of the same kind as the suspects."
    )
    video_root: str = key("", rules.FOLDER, "Videos' folder; '': the manifest's.")
    urls: str = key(
        "",
        rules.path(
            "a table of url and file, a folder, or a path with {id}, of this machine",
            empty=True,
        ),
        "Where the files of a manifest's URLs are on disk; nothing is downloaded.",
    )
    allow_outside: bool = key(
        False, rules.BOOL, "Whether manifests may name videos outside their folders."
    )
    max_clips: int | None = key(
        None,
        rules.integer(1),
        "At most this many videos of each role, drawn at random; None: all.",
        int,
    )
    seed: int = key(0, rules.integer(0), "Seed of the subsample that max_clips draws.")
    windows: int = key(
        1,
        rules.integer(1, 999),
        "Number of equal parts of each video; each is a clip, all of one source.",
    )
    prepared: str = key(
        "",
        rules.text("a folder, or one in gs:// or s3://", empty=True),
        "A corpus that `vidsme prepare` wrote, in place of decoding; '': none. Without "
        "members, nonmembers, suspects and calibration, its own rows are used.",
    )
    prepared_cache: str = key(
        "~/.cache/vidsme_jax/prepared",
        rules.path("a folder of this machine"),
        "Local copies of prepared corpora in gs:// and s3://.",
    )
    jpeg_quality: int = key(
        0, rules.JPEG_QUALITY, "JPEG quality of prepared frames; 0: PNG, without loss."
    )
    fields: tuple[str, ...] = key(
        (),
        rules.FIELDS_CHOSEN,
        "Names of columns: ('video=path', 'label=') reads the video from the column "
        "path, and ignores the column label.",
    )
    allow_duplicates: bool = key(
        False,
        rules.BOOL,
        "Equal files under different names, and near-duplicates, may be in two roles; "
        "the same file in two roles is always an error.",
    )


@group
class Video:
    """The keys `video.*`: which frames are decoded."""

    num_frames: int = key(16, rules.integer(2), "Frames sampled from each clip.")
    sampling: str = key(
        "uniform",
        rules.one_of("uniform", "midpoint", "fps"),
        "uniform: from the first to the last frame, as released; midpoint: the middle "
        "of equal parts; fps: video.fps frames a second, at most num_frames.",
    )
    fps: Number = key(1.0, rules.POSITIVE, "Frames a second with video.sampling=fps.")
    against: str = key(
        "reversed",
        rules.ORDER,
        "The second order of the frames; shuffled: the same for clips of one length.",
    )
    # A clip that exceeds these is listed as a failure.
    max_pixels: int = key(8192 * 4320, rules.integer(1), "Largest width times height.")
    max_seconds: Number = key(600.0, rules.POSITIVE, "Longest clip, in seconds.")


@group
class Motion:
    """The keys `motion.*`: optical flow, and how motion and light become q and r."""

    # Both give the same motion within 0.1 %. Prepared clips have that of opencv with
    # them; jax computes it again, from their frames.
    flow: str = key(
        "auto",
        rules.one_of("auto", "opencv", "jax"),
        "opencv: on the host; jax: on the devices; auto: jax unless they are CPUs.",
    )
    q_scale: Number = key(
        1.0, rules.PART, "beta1 of the paper: q = 1 + q_scale * scaled flow variance."
    )
    r_scale: Number = key(
        0.1, rules.POSITIVE, "beta2 of the paper: r = 1 + r_scale * scaled brightness."
    )
    bounds: tuple[Number, Number, Number, Number] | None = key(
        None,
        rules.BOUNDS,
        "Ranges that scale motion and brightness; None: those of the corpus.",
        tuple,
    )


@group
class Checkpoint:
    """The keys `model.*`: which model, and how it is prompted."""

    checkpoint: str = key(
        "",
        rules.text("a folder or a hub id"),
        "Checkpoint of the audited model: a folder, a hub id or random:NAME.",
    )
    dtype: str = key(
        "bfloat16",
        rules.one_of("bfloat16", "float16", "float32"),
        "Type of parameters and matrix products.",
    )
    prompt: str = key(
        "family",
        rules.PROMPT,
        "family: the family's own; mcq, caption: those of the release; or any text.",
    )
    allow_pickle: bool = key(
        False,
        rules.BOOL,
        "Whether pickled weights (.bin) are read; no code of them runs.",
    )


@group
class Reference:
    """The keys `reference.*`: a model that has not seen the members."""

    checkpoint: str = key(
        "",
        rules.text("a folder or a hub id", empty=True),
        "Checkpoint of the reference model, as model.checkpoint; '': no reference.",
    )
    prompt: str = key("family", rules.PROMPT, "As model.prompt, of the reference.")
    adapter: str = key(
        "",
        rules.ADAPTER,
        "off: the reference is model.checkpoint without its adapter, but with its "
        "non_lora_trainables.bin.",
    )


@group
class Parallel:
    """The keys `parallel.*`: how devices are arranged."""

    mode: str = key(
        "auto",
        rules.one_of("auto", "pmap", "mesh"),
        "auto: pmap if the model fits a device, else a mesh over as few as hold it.",
    )
    data: int = key(
        0,
        rules.integer(0),
        "Copies of the model, each with its share of the clips; 0: all devices.",
    )
    model: int = key(1, rules.integer(1), "Devices over which each copy is split.")


@group
class Report:
    """The keys `report.*`: what is declared, rates, intervals and lists of suspects."""

    comparison: str = key(
        "all",
        rules.text("all, or the name of a group of non-members"),
        "The comparison whose verdict is declared: all, or a group of non-members.",
    )
    alpha: Number = key(0.05, rules.LEVEL, "Significance level of every test.")
    smallest_auc: Number = key(
        0.6, rules.AUC, "The smallest AUC of interest, for statements on power."
    )
    fprs: tuple[Number, ...] = key(
        (0.001, 0.01, 0.05),
        rules.RATES,
        "False-positive rates at which TPRs are reported.",
    )
    num_permutations: int = key(
        1999,
        rules.integer(100),
        "Permutations of each test; no p-value is below 1 / (this number + 1).",
    )
    fdr: Number = key(0.05, rules.RATE, "False discovery rate of the list of suspects.")
    published: str = key(
        "",
        rules.path("a file of this machine, of `vidsme lookup --out`", empty=True),
        "Result of `vidsme lookup`, shown above all scores; '': none.",
    )
    control: str = key(
        "",
        rules.FOLDER,
        "Folder of `vidsme finetune --control`, shown with the verdict; '': none.",
    )


@group
class Gate:
    """The keys `gate.*`: what an audit may find at most; exit status 4 otherwise."""

    max_auc: Number | None = key(
        None,
        rules.AUC,
        "Largest lower end of the AUC's interval that passes; None: no limit.",
        float,
    )
    max_tpr: Number | None = key(
        None, rules.RATE, "The same of the TPR at gate.fpr; None: no limit.", float
    )
    fpr: Number = key(
        0.01, rules.RATE, "The false-positive rate of gate.max_tpr, one of report.fprs."
    )
    score: str = key(
        "",
        rules.text("a score name", empty=True),
        "The gate's score; '': the headline.",
    )


@group
class Studies:
    """The keys `studies.*`: the values that a study goes through."""

    frames: tuple[int, ...] = key(
        (1, 2, 4, 8, 16, 32, 64, 128), rules.COUNTS, "Values of video.num_frames."
    )
    k: tuple[Number, ...] = key(
        (0, 5, 10, 30, 60, 90, 100),
        rules.PERCENTAGES,
        "K (percent) of all studies except frames and against.",
    )
    q_scales: tuple[Number, ...] = key(
        (0.25, 0.5, 0.75, 1.0), rules.PARTS, "Values of motion.q_scale."
    )
    r_scales: tuple[Number, ...] = key(
        (0.05, 0.1, 0.2, 0.5, 1.0), rules.POSITIVES, "Values of motion.r_scale."
    )
    orders: tuple[tuple[Number, Number], ...] = key(
        ((1.0, 1.0), (1.5, 1.0), (2.0, 1.0), (1.5, 1.05), (2.0, 1.1)),
        rules.PAIRS,
        "Pairs (q, r), each the same for all clips.",
    )
    against: tuple[str, ...] = key(
        ("reversed", *(f"shuffled:{seed}" for seed in range(5))),
        rules.ORDERS,
        "Values of video.against.",
    )


@group
class Settings:
    """A whole configuration."""

    corpus: Corpus = read(Corpus, None)
    video: Video = read(Video, None)
    motion: Motion = read(Motion, None)
    model: Checkpoint = read(Checkpoint, None)
    reference: Reference = read(Reference, None)
    slices: tuple[str, ...] = key(
        ("video",),
        rules.SLICES_CHOSEN,
        "Which rows are scored: those of the video, the question, the answer.",
    )
    response: str = key(
        "given",
        rules.one_of("given", "greedy"),
        "given: the manifest's answers; greedy: the model's own, by greedy decoding.",
    )
    response_tokens: int = key(128, rules.integer(1), "Most tokens of a greedy answer.")
    profile: str = key(
        "exact",
        rules.one_of("exact", "official"),
        "exact: as defined, larger = member; official: the release's arithmetic, names "
        "and sign.",
    )
    scores: str | tuple[str, ...] = key(
        "all",
        rules.SCORES,
        "Names of scores, or all; list prints them and stops.",
    )
    headline: str = key(
        "vid_sme",
        rules.text("a score name"),
        "The score that is declared in advance and gets the verdict.",
    )
    parallel: Parallel = read(Parallel, None)
    batch_size: int = key(8, rules.integer(1), "Clips of a step, over all devices.")
    share: str = key(
        "",
        rules.SHARE,
        "I/N: scores every N-th clip, as one of N processes; '': all clips.",
    )
    workers: int = key(
        0,
        rules.integer(0),
        "Host threads that decode and measure clips; 0: one for each core.",
    )
    compile_cache: str = key(
        "~/.cache/vidsme_jax/xla",
        rules.path("a folder of this machine, or '' for none", empty=True),
        "Folder of compiled programs, for the next run; not of several CPU devices.",
    )
    report: Report = read(Report, None)
    gate: Gate = read(Gate, None)
    # frames, against: a run for each value, clips decoded once. The others: all from
    # the stored signals of one run.
    study: str = key(
        "", rules.STUDY, "The study to make, which varies one setting; '': an audit."
    )
    studies: Studies = read(Studies, None)
    overwrite: bool = key(
        False, rules.BOOL, "Deletes what an earlier run stored, and scores again."
    )

    @classmethod
    def of(cls, config: ConfigDict) -> "Settings":
        """Reads a configuration; keys that it lacks take their defaults."""
        return read(cls, config)


def view(kind: type[T], config: ConfigDict) -> T:
    """Returns one group of a configuration; keys that it lacks take their defaults.

    Args:
      kind: One of this module's records but `Settings`.
      config: A whole configuration, also one of another program with the same keys.
    """
    return read(kind, config.get(_GROUPS[kind]))


def rules_of(kind: Any, prefix: str = "") -> dict[str, Rule]:
    """Returns the rules of a record's keys, by name after a prefix."""
    found = {}
    for field in dataclasses.fields(kind):
        name = f"{prefix}{field.name}"
        nested = dataclasses.is_dataclass(field.type)
        found |= (
            rules_of(field.type, f"{name}.")
            if nested
            else {name: field.metadata["rule"]}
        )
    return found


_GROUPS: dict[Any, str] = {
    field.type: field.name
    for field in dataclasses.fields(Settings)  # type: ignore[arg-type]
    if dataclasses.is_dataclass(field.type)
}
RULES = rules_of(Settings)
KEYS = Keys(RULES, titles({name: kind for kind, name in _GROUPS.items()}))
