"""Every key of the configuration: its default, what it means and what it allows."""

import math
import pathlib
import re
from collections.abc import Callable
from typing import Any

DEMO = pathlib.Path(__file__).parents[1] / "demo"
STUDIES = ("frames", "k", "scales", "orders", "against", "natural")

# key: (default, what is allowed, test). A default that is a type is a placeholder for
# None or a value of that type.
_Allowed = tuple[str, Callable[[Any], Any]]
_Rule = tuple[Any, str, Callable[[Any], Any]]


def _strings(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(v, str) and v for v in value)


def _one_of(*names: str) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(names)}", lambda value: value in names


def _integer(low: int) -> tuple[str, Callable[[Any], bool]]:
    return f"an integer >= {low}", lambda value: isinstance(value, int) and value >= low


FIELDS = ("video", "question", "candidates", "answer", "id", "group", "date")


def _tfds_fields(value: Any) -> bool:
    """Whether each names a field once, and a feature."""
    if not _strings(value):
        return False
    pairs = [text.partition("=") for text in value]
    names = [name for name, _, _ in pairs]
    distinct = len(set(names)) == len(names) and set(names) <= set(FIELDS)
    return distinct and all(feature for _, _, feature in pairs)


_BOOL: _Allowed = ("true or false", lambda value: isinstance(value, bool))
_SOURCES: _Allowed = ("a tuple of manifests, folders, globs or tfds:", _strings)
_SCALE: _Allowed = (
    "a number > 0",
    lambda v: isinstance(v, int | float) and 0 < v < math.inf,
)


def _bounds(value: Any) -> bool:
    if not (isinstance(value, tuple) and len(value) == 4):
        return False
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in value):
        return False
    return value[0] < value[1] and value[2] < value[3]


_ORDERS = re.compile(r"reversed|shuffled:\d{1,9}")


def _order(value: Any) -> bool:
    return isinstance(value, str) and _ORDERS.fullmatch(value) is not None


def _each(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Tests a tuple that is not empty and holds nothing twice."""
    return lambda value: (
        isinstance(value, tuple)
        and bool(value)
        and all(map(test, value))
        and len(set(value)) == len(value)
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _pair_of_orders(value: Any) -> bool:
    if not (isinstance(value, tuple) and len(value) == 2 and all(map(_number, value))):
        return False
    return 1 <= value[0] <= 2 and 1 <= value[1] < math.inf


RULES: dict[str, _Rule] = {
    # Where the clips come from, one tuple of sources a role.
    "corpus.members": ((), *_SOURCES),
    "corpus.nonmembers": ((), *_SOURCES),
    "corpus.suspects": ((), *_SOURCES),
    "corpus.calibration": ((), *_SOURCES),
    # What relative video paths are relative to; "" is the manifest's own folder.
    "corpus.video_root": ("", "a folder", lambda v: isinstance(v, str)),
    # Whether a manifest may name videos outside of that folder.
    "corpus.allow_outside": (False, "true or false", lambda v: isinstance(v, bool)),
    # A seeded subsample of so many videos per role; None takes all.
    "corpus.max_clips": (int, *_integer(1)),
    "corpus.seed": (0, *_integer(0)),
    # The folder that `python -m vidsme_jax.prepare` filled; "" decodes the videos. If
    # no role has a source, the rows are those that were stored with the clips.
    "corpus.prepared": ("", "a folder", lambda v: isinstance(v, str)),
    # Of prepared frames; 0 is PNG, which loses nothing.
    "corpus.jpeg_quality": (
        0,
        "0 (lossless PNG) or 1 to 100",
        lambda v: isinstance(v, int) and 0 <= v <= 100,
    ),
    # What features of a tfds: dataset are, such as ("video=clip", "answer=caption");
    # the rest is found by name, and the video by being the only one that can be it.
    "corpus.tfds_fields": (
        (),
        f"a tuple of FIELD=FEATURE, FIELD one of {', '.join(FIELDS)}",
        _tfds_fields,
    ),
    "video.num_frames": (16, *_integer(2)),
    # uniform: linspace over all frames, as in the release; midpoint: centres of equal
    # parts; fps: `video.fps` frames a second, at most num_frames.
    "video.sampling": ("uniform", *_one_of("uniform", "midpoint", "fps")),
    "video.fps": (1.0, *_SCALE),
    # The order of the frames that the natural one is held against: reversed, as in the
    # paper, or shuffled:SEED, one permutation for all clips of a length.
    "video.against": (
        "reversed",
        "reversed or shuffled:SEED, such as shuffled:0",
        _order,
    ),
    # What is decoded at most: width times height of a frame (here 8192 x 4320), and
    # seconds a clip. What exceeds it is listed as a failure.
    "video.max_pixels": (8192 * 4320, *_integer(1)),
    "video.max_seconds": (600.0, *_SCALE),
    # opencv: on the host; jax: on the devices (motion.backends); auto: jax where these
    # are no CPUs. Both give the same motion within 0.1 %. Prepared clips have that of
    # opencv with them; jax computes it again, from their frames.
    "motion.flow": ("auto", *_one_of("auto", "opencv", "jax")),
    # beta1 and beta2: q = 1 + q_scale * ..., r = 1 + r_scale * ... (motion.orders).
    "motion.q_scale": (
        1.0,
        "a number in (0, 1]",
        lambda v: isinstance(v, int | float) and 0 < v <= 1,
    ),
    "motion.r_scale": (0.1, *_SCALE),
    # (phi_min, phi_max, b_min, b_max); None takes them from the evaluated corpus.
    "motion.bounds": (tuple, "(phi_min, phi_max, b_min, b_max), increasing", _bounds),
    # A local folder, a hub id, or random:NAME (models.random.CONFIGS); the family is
    # read from its config.json.
    "model.checkpoint": (
        "",
        "a folder or a hub id",
        lambda v: isinstance(v, str) and v != "",
    ),
    "model.dtype": ("bfloat16", *_one_of("bfloat16", "float16", "float32")),
    # family: the family's own prompt; mcq and caption: the two system prompts of the
    # release; or any text that holds <video> once.
    "model.prompt": (
        "family",
        "family, mcq, caption, or a text that holds <video> once",
        lambda v: isinstance(v, str) and v != "",
    ),
    # Pickled weights (.bin); their tensors are read without running anything of them.
    "model.allow_pickle": (False, *_BOOL),
    # exact: the mathematics, larger = member; official: the release's arithmetic, names
    # and sign (lower = member).
    "profile": ("exact", *_one_of("exact", "official")),
    # Names separated by commas, or all; list prints them and stops.
    "scores": ("all", "score names, or all", lambda v: isinstance(v, str) and v != ""),
    # The one score declared in advance.
    "headline": ("vid_sme", "a score name", lambda v: isinstance(v, str) and v != ""),
    # auto: pmap where the model fits a device, else a mesh over as few as hold it.
    "parallel.mode": ("auto", *_one_of("auto", "pmap", "mesh")),
    # Devices along each axis; data = 0 takes every device that is left.
    "parallel.data": (0, *_integer(0)),
    "parallel.model": (1, *_integer(1)),
    # Clips per step, over all devices; each is scored in both directions.
    "batch_size": (8, *_integer(1)),
    # Host threads that decode and measure ahead of the device; 0: one a core.
    "workers": (0, *_integer(0)),
    # Where compiled programs are kept for the next run; "" keeps none.
    "compile_cache": (
        "~/.cache/vidsme_jax/xla",
        "a folder, or '' for none",
        lambda v: isinstance(v, str),
    ),
    "report.fprs": (
        (0.001, 0.01, 0.05),
        "a tuple of rates in (0, 1)",
        lambda v: isinstance(v, tuple) and v and all(0 < x < 1 for x in v),
    ),
    "report.num_bootstrap": (1000, *_integer(100)),
    # False discovery rate at which suspects are listed.
    "report.fdr": (
        0.05,
        "a rate in (0, 1)",
        lambda v: isinstance(v, float) and 0 < v < 1,
    ),
    # "": an audit. frames, against: a run for each, clips decoded once. k, scales,
    # orders (adaptive (q, r) against fixed ones), natural (without the second order of
    # the frames): all from the stored signals of one run.
    "study": (
        "",
        "one of frames, k, scales, orders, against, natural, or empty for an audit",
        lambda v: v in ("", *STUDIES),
    ),
    "studies.frames": (
        (1, 2, 4, 8, 16, 32, 64, 128),
        "a tuple of different integers >= 1",
        _each(lambda v: isinstance(v, int) and v >= 1),
    ),
    # Of all studies but frames and against.
    "studies.k": (
        (0, 5, 10, 30, 60, 90, 100),
        "a tuple of different percentages from 0, the single row, to 100",
        _each(lambda v: _number(v) and 0 <= v <= 100),
    ),
    "studies.q_scales": (
        (0.25, 0.5, 0.75, 1.0),
        "a tuple of different numbers in (0, 1]",
        _each(lambda v: _number(v) and 0 < v <= 1),
    ),
    "studies.r_scales": (
        (0.05, 0.1, 0.2, 0.5, 1.0),
        "a tuple of different numbers > 0",
        _each(lambda v: _number(v) and 0 < v < math.inf),
    ),
    "studies.orders": (
        ((1.0, 1.0), (1.5, 1.0), (2.0, 1.0), (1.5, 1.05), (2.0, 1.1)),
        "a tuple of different pairs (q, r) with q in [1, 2] and r >= 1",
        _each(_pair_of_orders),
    ),
    "studies.against": (
        ("reversed", *(f"shuffled:{seed}" for seed in range(5))),
        "a tuple of different orders, each reversed or shuffled:SEED",
        _each(_order),
    ),
    # Deletes what an earlier run left in the work directory.
    "overwrite": (False, *_BOOL),
}
