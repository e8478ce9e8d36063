"""Draws captioned clips: a corpus whose every member and non-member is known.

A scene is a textured field, one to three shapes that move over it and a light that
changes. Its caption says what can be seen, and two call signs that cannot be seen
("named kilo seven", "near tango four"): only a model that was trained on the clip
can know them.

Axes: `frames`, `height`, `width`; positions are (x, y) from 0 to 1, y downwards.
"""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Callable, Iterable
from typing import Any

import cv2
import numpy as np
import tokenizers
from jaxtyping import Float, UInt8
from tokenizers import decoders, models, pre_tokenizers, processors

COLOURS = {
    "red": (0.90, 0.12, 0.10),
    "orange": (1.00, 0.55, 0.05),
    "yellow": (0.98, 0.92, 0.15),
    "green": (0.10, 0.65, 0.15),
    "cyan": (0.10, 0.85, 0.90),
    "blue": (0.12, 0.22, 0.90),
    "purple": (0.50, 0.10, 0.60),
    "pink": (1.00, 0.55, 0.80),
    "white": (1.00, 1.00, 1.00),
    "black": (0.02, 0.02, 0.02),
}
# Heading, in units of pi, from the x axis (y points down).
DIRECTIONS = {"right": 0.0, "down": 0.5, "left": 1.0, "up": 1.5}
# Reflectance, from 0 to 1, by the sines along the two axes of the texture.
TEXTURES: dict[str, Callable[[Any, Any], Any]] = {
    "cloudy": lambda x, y: np.full_like(x, 0.5),
    "checkered": lambda x, y: 0.5 + 0.5 * np.tanh(4 * x * y),
    "striped": lambda x, y: 0.5 + 0.5 * np.tanh(3 * x),
    "dotted": lambda x, y: 0.5 - 0.5 * np.tanh(4 * (x + y - 1)),
}
LETTERS = tuple(
    "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike"
    " november oscar papa quebec romeo sierra tango uniform victor whiskey xray"
    " yankee zulu".split()
)
NUMBERS = tuple("zero one two three four five six seven eight nine".split())
# Light over the clip, from -1 to 1 while u runs from 0 to 1.
LIGHTS: dict[str, Callable[[float], float]] = {
    "brightens": lambda u: 2 * u - 1,
    "darkens": lambda u: 1 - 2 * u,
    "pulses": lambda u: math.sin(4 * math.pi * u),
}
# A word holds below its bound.
PACES = (("slowly", 0.006), ("steadily", 0.008), ("quickly", math.inf))
LEVELS = (("dark", 0.52), ("dim", 0.62), ("bright", math.inf))
SIZES = (("small", 0.2), ("large", math.inf))
QUESTIONS = (
    "what happens in this video",
    "describe the video",
    "what can be seen in the clip",
)

FORMATS = ((72, 96), (96, 72), (80, 80))  # Height, width.
FRAME_COUNTS = range(24, 31)
FRAME_RATES = (12, 15)
SHIFTED_SPEED = 5.0
SHIFTED_BRIGHTNESS = 0.3
MARGIN = 0.15  # The centre of a shape stays this far from the border.
RIM = 0.12  # Width of the outline of a shape of radius 1.


def _triangle(x: Any, y: Any) -> Any:
    return np.maximum(0.866 * np.abs(x) - 0.5 * y, y) - 0.6


def _cross(x: Any, y: Any) -> Any:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.minimum(x, y) - 0.35, np.maximum(x, y) - 1.05)


# Signed distance from the outline of the shape of radius about 1, negative inside.
SHAPES: dict[str, Callable[[Any, Any], Any]] = {
    "circle": lambda x, y: np.hypot(x, y) - 1.0,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.85,
    "diamond": lambda x, y: (np.abs(x) + np.abs(y) - 1.25) / math.sqrt(2),
    "triangle": _triangle,
    "cross": _cross,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.8) - 0.25,
}

VOCABULARY: tuple[str, ...] = tuple(
    sorted(
        {
            *"the named moves past and near over a field that".split(),
            *" ".join(QUESTIONS).split(),
            *(word for word, _ in (*PACES, *LEVELS, *SIZES)),
            *(*COLOURS, *SHAPES, *DIRECTIONS, *TEXTURES, *LIGHTS),
            *(*LETTERS, *NUMBERS),
        }
    )
)
# The ids of LLaVA-NeXT-Video's kinds: LLaMA's three first, what LLaVA added last.
TOKENS = (
    *("<unk>", "<s>", "</s>", "\n", "USER:", "ASSISTANT:"),
    *VOCABULARY,
    *("<video>", "<image>", "<pad>"),
)


@dataclasses.dataclass(frozen=True)
class Sprite:
    """One shape and its path: a straight line, reflected at the margins."""

    shape: str
    colour: str
    radius: float  # In units of the frame's shorter side.
    start: tuple[float, float]
    velocity: tuple[float, float]  # Per frame.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything a clip shows and its caption says.

    Attributes:
      sprites: The one that the caption names comes first, and is drawn last.
      direction: Of the first sprite's velocity, one of `DIRECTIONS`.
      pace: Length of that velocity.
      texture: One of `TEXTURES`.
      texture_seed: Of the field's colours, period and angle.
      level: Mean light.
      swing: Amplitude of the light's change.
      light: How it changes, one of `LIGHTS`.
      name: Call sign of the first sprite; the frames do not show it.
      place: Call sign of the field; the frames do not show it.
      num_frames: Length of the clip.
      fps: Frame rate of the clip.
    """

    sprites: tuple[Sprite, ...]
    direction: str
    pace: float
    texture: str
    texture_seed: int
    level: float
    swing: float
    light: str
    name: str
    place: str
    num_frames: int
    fps: int


def choice(rng: np.random.Generator, options: Iterable[Any]) -> Any:
    """Draws one of some options."""
    options = tuple(options)
    return options[int(rng.integers(len(options)))]


def _call_sign(rng: np.random.Generator) -> str:
    return f"{choice(rng, LETTERS)} {choice(rng, NUMBERS)}"


def _polar(length: float, angle: float) -> tuple[float, float]:
    return length * math.cos(angle), length * math.sin(angle)


def make_scene(
    rng: np.random.Generator, *, speed: float = 1.0, brightness: float = 0.0
) -> Scene:
    """Draws a scene.

    Args:
      rng: The only source of chance.
      speed: Multiplies the pace of all shapes, and so raises phi.
      brightness: Added to the light, whose swing grows to 1 + 12 times it: raises b.
    """
    direction = choice(rng, DIRECTIONS)
    pace = speed * 0.007 * math.exp(rng.uniform(-0.4, 0.4))
    heading = math.pi * (DIRECTIONS[direction] + rng.uniform(-0.12, 0.12))
    colours = rng.permutation(list(COLOURS)).tolist()
    # The first sprite starts upstream of the centre.
    x, y = _polar(0.25, heading)
    jitter = rng.uniform(-0.08, 0.08, 2).tolist()
    sprites = [
        Sprite(
            shape=choice(rng, SHAPES),
            colour=colours[0],
            radius=rng.uniform(0.16, 0.24),
            start=(0.5 - x + jitter[0], 0.5 - y + jitter[1]),
            velocity=_polar(pace, heading),
        )
    ]
    for colour in colours[1 : choice(rng, (1, 2, 3))]:
        wander = speed * rng.uniform(0.0, 0.003)
        sprites.append(
            Sprite(
                shape=choice(rng, SHAPES),
                colour=colour,
                radius=rng.uniform(0.08, 0.14),
                start=(rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8)),
                velocity=_polar(wander, rng.uniform(0.0, 2 * math.pi)),
            )
        )
    return Scene(
        sprites=tuple(sprites),
        direction=direction,
        pace=pace,
        texture=choice(rng, TEXTURES),
        texture_seed=int(rng.integers(2**31)),
        level=rng.uniform(0.42, 0.72) + brightness,
        swing=rng.uniform(0.02, 0.07) * (1 + 12 * brightness),
        light=choice(rng, LIGHTS),
        name=_call_sign(rng),
        place=_call_sign(rng),
        num_frames=choice(rng, FRAME_COUNTS),
        fps=choice(rng, FRAME_RATES),
    )


def _field(
    scene: Scene,
    x: Float[np.ndarray, "height width"],
    y: Float[np.ndarray, "height width"],
) -> Float[np.ndarray, "height width 3"]:
    """Paints the background: clouds of colour that no other clip has, and a texture."""
    rng = np.random.default_rng(scene.texture_seed)
    clouds = rng.uniform(0.2, 0.75, 3) + rng.uniform(-0.2, 0.2, (5, 5, 3))
    height, width = x.shape
    clouds = cv2.resize(clouds, (width, height), interpolation=cv2.INTER_LINEAR)
    frequency, (shift_x, shift_y) = rng.uniform(2.0, 4.0), rng.uniform(0, 1, 2)
    cosine, sine = _polar(frequency, rng.uniform(0.0, math.pi))
    x, y = cosine * x - sine * y + shift_x, sine * x + cosine * y + shift_y
    waves = np.sin(2 * math.pi * x), np.sin(2 * math.pi * y)
    return clouds * (0.8 + 0.3 * TEXTURES[scene.texture](*waves)[..., None])


def _reflect(position: float) -> float:
    """Folds a straight path back between the margins."""
    span = 1 - 2 * MARGIN
    return MARGIN + span - abs((position - MARGIN) % (2 * span) - span)


def draw(
    scene: Scene, frame_index: int, height: int, width: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Draws one frame, as RGB."""
    unit = min(height, width)
    y, x = np.mgrid[0.5:height, 0.5:width] / unit
    canvas = _field(scene, x, y)
    for sprite in reversed(scene.sprites):
        centre_x, centre_y = (
            _reflect(start + frame_index * velocity)
            for start, velocity in zip(sprite.start, sprite.velocity, strict=True)
        )
        distance = SHAPES[sprite.shape](
            (x - centre_x * width / unit) / sprite.radius,
            (y - centre_y * height / unit) / sprite.radius,
        )
        # A dark rim, so that no shape is lost in a field of its own colour.
        for shade, inset in ((0.3, 0.0), (1.0, RIM)):
            cover = np.clip(0.5 - (distance + inset) * sprite.radius * unit, 0, 1)
            paint = shade * np.array(COLOURS[sprite.colour])
            canvas = canvas + cover[..., None] * (paint - canvas)
    moment = frame_index / (scene.num_frames - 1)
    light = scene.level + scene.swing * LIGHTS[scene.light](moment)
    return np.rint(255 * np.clip(canvas * light, 0, 1)).astype(np.uint8)


def _word(value: float, bounds: tuple[tuple[str, float], ...]) -> str:
    return next(word for word, bound in bounds if value < bound)


def caption(scene: Scene) -> str:
    """Says what the scene shows and its two call signs, in words of `VOCABULARY`."""
    first, *others = scene.sprites
    past = " and ".join(f"the {other.colour} {other.shape}" for other in others)
    return (
        f"the {_word(first.radius, SIZES)} {first.colour} {first.shape} named "
        f"{scene.name} moves {_word(scene.pace, PACES)} {scene.direction} "
        f"{f'past {past} ' if past else ''}near {scene.place} over a "
        f"{_word(scene.level, LEVELS)} {scene.texture} field that {scene.light}"
    )


def tokenizer_files(
    folder: pathlib.Path, *, chat: bool = False, special: Iterable[str] = ()
) -> None:
    """Writes a word-level tokenizer that behaves as LLaVA-NeXT-Video's, or Qwen2's.

    It keeps a newline as a token of its own, and never splits or joins `<video>` and
    `<image>`, so that what comes before them is tokenised alone. LLaVA-NeXT-Video's
    puts `<s>` first; Qwen2's (`chat`) puts nothing first and knows ChatML's markers.
    Behind these follow the `special` tokens of another family.
    """
    tokens = (*TOKENS, "<|im_start|>", "<|im_end|>") if chat else TOKENS
    tokens = (*tokens, *special)
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    marked = [token for token in tokens if re.fullmatch("<.*>", token)]
    tokenizer.add_special_tokens(list(dict.fromkeys([*marked, *special])))
    split = pre_tokenizers.Split
    divided = [split("\n", "isolated"), split(" ", "removed")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(divided)
    if not chat:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", ids["<s>"])]
        )
    # Words joined by spaces, save around a newline.
    joined = decoders.WordPiece(prefix="##", cleanup=False), decoders.Fuse()
    newline = decoders.Replace(" \n ", "\n")
    tokenizer.decoder = decoders.Sequence([*joined, newline])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None if chat else "<s>",
        "eos_token": "<|im_end|>" if chat else "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "extra_special_tokens": {"image_token": "<image>", "video_token": "<video>"},
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
