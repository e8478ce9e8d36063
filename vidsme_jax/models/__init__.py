"""Model families: from a checkpoint to a model on devices.

`inspect` checks everything that can be checked on the host; the plan it returns then
loads the tensors.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vidsme_jax.base import AuditError, nearest
from vidsme_jax.checkpoints import files, loading
from vidsme_jax.models import dialects, plans, preprocessing, prompts, random
from vidsme_jax.models.interface import LoadedModel, Model
from vidsme_jax.models.llava_next_video import params as llava_next_video
from vidsme_jax.models.llava_onevision import params as llava_onevision
from vidsme_jax.models.llava_qwen import params as llava_qwen

# From a checkpoint, dtype, prompt and whether pickled files may be read; problems are
# appended. The checkpoint that is returned has the tower's tensors, wherever they lie.
Reader = Callable[
    [files.Checkpoint, str, str, bool, list[str]], tuple[Model, files.Checkpoint]
]


def inspect(
    checkpoint: str, *, dtype: str, prompt: str = "family", allow_pickle: bool = False
) -> Model:
    """Checks a checkpoint on the host, without reading its tensors.

    Args:
      checkpoint: A local folder, a hub id, or "random:NAME" (see `random.CONFIGS`).
      dtype: "bfloat16", "float16" or "float32".
      prompt: "family", a name of `prompts.SYSTEM`, or a text with one `<video>`.
      allow_pickle: Whether pickled weights may be read (see `checkpoints.pickled`).

    Raises:
      AuditError: Lists every problem of config, tokenizer, preprocessing and tensors.
    """
    where = checkpoint
    if checkpoint.startswith(random.SCHEME):
        where = str(random.folder(checkpoint.removeprefix(random.SCHEME)))
    opened = files.open_checkpoint(where, allow_pickle=allow_pickle)
    family = family_of(opened)
    problems: list[str] = []
    model, opened = MODELS[family](opened, dtype, prompt, allow_pickle, problems)
    if problems:
        raise AuditError([_prefixed(opened, p) for p in problems])
    fillings = loading.plan_loading(opened, model.abstract()[1], model.names)

    def fill(abstract: nnx.State, shardings: loading.Shardings) -> nnx.State:
        return loading.load(fillings, abstract, shardings, checkpoint_name=checkpoint)

    return dataclasses.replace(model, fill=fill)


def load(
    checkpoint: str,
    *,
    dtype: str = "bfloat16",
    prompt: str = "family",
    allow_pickle: bool = False,
) -> LoadedModel:
    """Loads a checkpoint onto the first device; see `inspect` for the arguments."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    model = inspect(checkpoint, dtype=dtype, prompt=prompt, allow_pickle=allow_pickle)
    return model.load(lambda *_: device)


def family_of(checkpoint: files.Checkpoint) -> str:
    """Returns the name in `MODELS` of the family that a checkpoint belongs to.

    Raises:
      AuditError: It is of no family that is built.
    """
    raw = checkpoint.config
    if llava_qwen.is_mine(raw):
        return "llava_qwen"
    family = raw.get("model_type")
    if not isinstance(family, str) or family not in MODELS:
        raise AuditError(
            [
                f"checkpoint {checkpoint.name}: unknown family (model_type {family!r}, "
                f"architectures {raw.get('architectures')!r}); known: "
                f"{', '.join(MODELS)}{nearest(str(family), list(MODELS))}"
            ]
        )
    return family


def read_tokenizer(checkpoint: files.Checkpoint, problems: list[str]) -> Any:
    """Returns the tokenizer of transformers, or None with a problem."""
    from transformers import AutoTokenizer, logging

    # It warns of each model that it has no class for, and of old keys in its config.
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    causes = []
    try:
        for folder in checkpoint.folders:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    return AutoTokenizer.from_pretrained(
                        str(folder), local_files_only=True, trust_remote_code=False
                    )
            except Exception as error:  # Any kind: there is no usable tokenizer.
                cause = (str(error).strip() or "?").splitlines()[0]
                causes.append(f"{type(error).__name__}: {cause}")
    finally:
        logging.set_verbosity(before)
    problems.append(f"no usable tokenizer ({causes[0]})")
    return None


def _hugging_face(
    read_config: Any,
    read_preprocessing: Any,
    style: Callable[[Any], prompts.Style],
    checkpoint: files.Checkpoint,
    dtype: str,
    prompt: str,
    allow_pickle: bool,
    problems: list[str],
) -> tuple[Model, files.Checkpoint]:
    """Reads a checkpoint whose tokenizer has a token for the video."""
    del allow_pickle  # Everything is in the checkpoint's own files.
    vision = checkpoint.config.get("vision_config")
    size = vision.get("image_size") if isinstance(vision, dict) else None
    image_size = size if isinstance(size, int) else 224
    prepare = read_preprocessing(_video_preprocessing(checkpoint), image_size, problems)
    config, video_token = read_config(
        checkpoint.config, jnp.dtype(dtype), prepare.mean, prepare.std, problems
    )
    tokenizer = read_tokenizer(checkpoint, problems)
    text, tokenise = "", prompts.no_text
    if tokenizer is not None:
        chosen = style(tokenizer)
        text = prompts.text_of(prompt, chosen, "", problems)
        tokenise = prompts.around_token(
            tokenizer, text, chosen.turn, video_token, problems
        )
    model = plans.describe(
        config,
        family=checkpoint.config["model_type"],
        fingerprint=checkpoint.fingerprint(),
        dtype=dtype,
        remarks=checkpoint.remarks,
        prompt=text,
        names=dialects.names(config),
        prepare=prepare,
        tokenise=tokenise,
    )
    return model, checkpoint


def _llava_qwen(
    checkpoint: files.Checkpoint,
    dtype: str,
    prompt: str,
    allow_pickle: bool,
    problems: list[str],
) -> tuple[Model, files.Checkpoint]:
    """Reads an original-format checkpoint, whose tower may lie elsewhere."""
    raw, remarks = checkpoint.config, []
    checkpoint, tower_config, image = _with_tower(
        checkpoint, allow_pickle, problems, remarks
    )
    if problems:  # Without its tower nothing else can be read.
        raise AuditError([_prefixed(checkpoint, p) for p in problems])
    vision = llava_qwen.read_tower(tower_config, jnp.dtype(dtype), problems)
    if vision.kind == "siglip":
        prepare = preprocessing.siglip(vision.image_size)
    else:
        prepare = preprocessing.from_json(image, vision.image_size, problems)
    tokenizer = read_tokenizer(checkpoint, problems)
    config = llava_qwen.read_config(
        raw,
        vision,
        None if tokenizer is None else len(tokenizer),
        jnp.dtype(dtype),
        prepare.mean,
        prepare.std,
        problems,
        remarks,
    )
    text, tokenise = "", prompts.no_text
    if tokenizer is not None:
        text = prompts.text_of(prompt, prompts.CHATML, llava_qwen.SYSTEM, problems)
        tokenise = prompts.around_text(tokenizer, text, prompts.CHATML.turn)
    if beacons := llava_qwen.beacons(checkpoint.tensors):
        remarks.append(beacons)
    model = plans.describe(
        config,
        family="llava_qwen",
        fingerprint=checkpoint.fingerprint(),
        dtype=dtype,
        remarks=(*checkpoint.remarks, *remarks),
        prompt=text,
        names=llava_qwen.names(config),
        prepare=prepare,
        tokenise=tokenise,
    )
    return model, checkpoint


def _with_tower(
    checkpoint: files.Checkpoint,
    allow_pickle: bool,
    problems: list[str],
    remarks: list[str],
) -> tuple[files.Checkpoint, dict[str, Any], dict[str, Any] | None]:
    """Returns the checkpoint with its tower's tensors, config and preprocessing.

    The checkpoint's own tensors count; the tower's folder gives its sizes, its
    preprocessing and, where the checkpoint has none, its tensors.
    """
    name = llava_qwen.tower_name(checkpoint.config, problems)
    inside = any(key.startswith(llava_qwen.TOWER) for key in checkpoint.tensors)
    known = llava_qwen.known_tower(name)
    if not name:
        return checkpoint, {}, None
    wanted = ("*.json",) if inside else files.patterns(allow_pickle)
    try:
        folder = files.find(name, wanted, near=checkpoint.folder)
    except AuditError as error:
        if known is None or not inside:
            known_names = list(llava_qwen.KNOWN_TOWERS)
            need = "sizes" if inside else "tensors (the checkpoint has none of it)"
            problems += [
                f"config.json: mm_vision_tower: its {need} are needed, but {problem}; "
                f"relative paths are tried from {checkpoint.folder} and from here; the "
                f"sizes of {', '.join(known_names)} need no files"
                for problem in error.problems
            ]
        return checkpoint, known or {}, None
    image = folder / "preprocessor_config.json"
    if (folder / "config.json").is_file():
        config = files.read_json(folder / "config.json")
    else:
        config = known or {}
        if known is None:
            problems.append(f"config.json: mm_vision_tower: no config.json in {folder}")
    if not inside:
        found = files.read_tensors(name, folder, allow_pickle=allow_pickle)
        # A whole CLIP has a text tower too.
        tower = {
            llava_qwen.TOWER + key: info
            for key, info in found.items()
            if key.startswith("vision_model.")
        }
        checkpoint = dataclasses.replace(checkpoint, tensors=checkpoint.tensors | tower)
        remarks.append(f"the tower's tensors are those of {name}")
    return checkpoint, config, files.read_json(image) if image.is_file() else None


def _video_preprocessing(checkpoint: files.Checkpoint) -> dict[str, Any] | None:
    """Returns the settings for video frames, wherever this version keeps them."""
    whole = checkpoint.json("processor_config.json") or {}
    for key in ("video_processor", "image_processor"):
        if isinstance(whole.get(key), dict):
            return whole[key]
    return checkpoint.json("video_preprocessor_config.json", "preprocessor_config.json")


def _vicuna_or_chatml(tokenizer: Any) -> prompts.Style:
    """LLaVA-NeXT-Video 7B is a Vicuna, 34B speaks ChatML."""
    chatml = "<|im_start|>" in tokenizer.get_vocab()
    return prompts.CHATML if chatml else prompts.VICUNA


def _prefixed(checkpoint: files.Checkpoint, problem: str) -> str:
    setting = problem.startswith("config.model.")
    return problem if setting else f"checkpoint {checkpoint.name}: {problem}"


MODELS: dict[str, Reader] = {
    "llava_next_video": functools.partial(
        _hugging_face,
        llava_next_video.read_config,
        preprocessing.from_json,
        _vicuna_or_chatml,
    ),
    "llava_onevision": functools.partial(
        _hugging_face,
        llava_onevision.read_config,
        preprocessing.straight_from_json,
        lambda _: prompts.CHATML,
    ),
    "llava_qwen": _llava_qwen,
}
