"""The steps of `card.py`: what each runs, how long it takes, and what it should show.

Seconds are of a 7B model on an H100 or H200. Compiling is estimated at 60 to 80 s for
each program of a 7B model, as such programs took on two busy cores, and at 10 to 40 s
for the small ones; drawing a model at 25 s, carrying it to torch at 30 s, importing
everything at 10 s. An H100 took less but for 8 % in steps 1 and 7 (`results/h100`);
limits follow from these.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

SIZES = ("tiny", "small", "7b")

# Milliseconds a clip, best and worst, of the parts of a pair of a LongVA-shaped 7B with
# 16 frames (74.3 TFLOP), at one and at four clips a step: a roofline at 790 TFLOP/s and
# 4.0 TB/s. Worst is what programs compiled for an H200 do with 85 % of the matrix rate,
# best has 93 % and what can be had without a kernel of our own. The weights of a layer
# are not copied (`layers.lay_out`); that was 6.5 ms a step, 13 GB read and written.
ROOFLINE: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "tower, products": ((9.1, 9.1), (9.1, 9.1)),  # 78 % of the rate: K is 1024.
    "tower, attention and the rest": ((4.3, 4.3), (4.1, 4.1)),
    "decoder, products": ((84.0, 91.9), (84.0, 91.9)),  # 93 % and 85 % of the rate.
    "decoder, attention": ((5.0, 5.0), (5.0, 5.0)),  # 2.24 TFLOP at 450 TFLOP/s.
    "decoder, norms and so on": ((6.0, 6.0), (6.0, 6.0)),  # 3.8 of it the SiLU.
    "head, product": ((7.1, 7.1), (7.1, 7.1)),  # 90 % of the rate.
    # Best is the 24.6 bytes a logit of the compiled program, worst its instructions.
    "head, statistics": ((4.3, 10.0), (4.3, 10.0)),
}
_PAIR = 74.3  # TFLOP of the pair.
_RATE = 790.0  # TFLOP/s of a product of random bfloat16 matrices on an H200.
_ROOF = "roofline at 790 TFLOP/s and 4.0 TB/s"


def _sum(part: str, batch: int) -> tuple[float, float]:
    """Milliseconds a clip of what begins with `part`, best and worst."""
    column = 0 if batch == 1 else 1
    parts = [ms[column] for name, ms in ROOFLINE.items() if name.startswith(part)]
    return sum(best for best, _ in parts), sum(worst for _, worst in parts)


class Expected(NamedTuple):
    """What a line of a step should say.

    Attributes:
      line: The name of the line, and the key after it.
      low: The least; None for no bound.
      high: The most.
      source: Where these come from.
      where: What else the line must hold, such as {"batch": 4}.
    """

    line: tuple[str, str]
    low: float | None
    high: float | None
    source: str
    where: Mapping[str, Any] = {}

    def found(self, lines: list[dict[str, Any]]) -> Any:
        """Returns what the last such line says, None if there is none."""
        name, key = self.line
        for line in reversed(lines):
            if line.get("name") == name and self.where.items() <= line.items():
                return line.get(key)
        return None

    def fits(self, value: Any) -> bool:
        """Whether a number that was found is within the bounds."""
        below = self.low is not None and value < self.low
        return not below and not (self.high is not None and value > self.high)

    def __str__(self) -> str:
        """In a few words."""
        name, key = self.line
        where = "".join(f", {k} {v}" for k, v in self.where.items())
        bounds = {
            (True, True): f"{self.low} to {self.high}",
            (True, False): f"at least {self.low}",
            (False, True): f"at most {self.high}",
        }[self.low is not None, self.high is not None]
        return f"{name} {key}{where}: {bounds} ({self.source})"


def _pairs(batch: int) -> list[Expected]:
    best, worst = _sum("", batch)
    ours, where = "pairs/ours against transformers, tuned", {"batch": batch}
    rates = [round(1000 / ms, 2) for ms in (worst, best)]
    shares = [round(_PAIR * rate / _RATE * 100, 1) for rate in rates]
    return [
        Expected((ours, "value"), *rates, _ROOF, where),
        Expected(("pairs/mfu", "value"), *shares, f"{_ROOF}; aim: 75", where),
        Expected((ours, "ratio"), 2.0, None, "aim", where),
    ]


def _parts(batch: int) -> list[Expected]:
    return [
        Expected(
            (f"parts/{part}, ours", "value"),
            *(round(ms / 1000, 4) for ms in _sum(part, batch)),
            _ROOF,
            {"batch": batch},
        )
        for part in ("tower", "decoder", "head")
    ]


@dataclasses.dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
      name: A word.
      what: What it does.
      seconds: Expected in all, at 7b.
      compiling: Expected of these for compiling, with an empty cache.
      commands: A script and its arguments each; {size}, {stem} (files of this step in
        the folder of results) are filled in.
      tiny: What is added at the size tiny, to each command that has a size.
      sizes: Taken for {size} where a model lacks one.
      expected: At 7b.
      optional: Packages without which the step may be skipped; its command then exits
        with 2 and names one of them in its last line.
    """

    name: str
    what: str
    seconds: int
    compiling: int
    commands: tuple[tuple[str, ...], ...]
    tiny: tuple[str, ...] = ()
    sizes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    expected: tuple[Expected, ...] = ()
    optional: tuple[str, ...] = ()

    def lines(self, size: str, stem: str) -> list[tuple[str, ...]]:
        """Returns its commands at a size."""
        filled = {"size": self.sizes.get(size, size), "stem": stem}
        return [
            tuple(part.format(**filled) for part in command)
            + (self.tiny if size == "tiny" and "{size}" in command else ())
            for command in self.commands
        ]


_SIZE = ("--size", "{size}")
_SHORT = ("--repeats", "1")
STEPS = (
    Step(
        "machine",
        "packages, imports, devices; every kernel at tiny size against its oracle",
        90,
        40,
        (
            ("machine.py",),
            ("attention.py", "--size", "tiny", *_SHORT),
            ("head.py", "--size", "tiny", *_SHORT),
            ("flow.py", "--size", "tiny", *_SHORT),
            ("pairs.py", "--size", "tiny", "--no-loop", "--steps", "1", *_SHORT),
        ),
        expected=(
            Expected(("attention/error", "value"), None, 3e-2, "bfloat16"),
            Expected(("head/error, logits of deviation 3", "value"), None, 1e-4, "aim"),
        ),
    ),
    Step(
        "attention",
        "the decoder's attention at 2304 and 8192 tokens against XLA's and torch's",
        50,
        15,
        (("attention.py", *_SIZE),),
        tiny=("--tokens", "300", *_SHORT),
        expected=(
            # cuDNN, head of 128, causal: kernel times in tokamax's tables for an H100.
            Expected(
                ("attention/time against torch", "tflop_per_s"),
                450.0,
                532.0,
                "cuDNN on an H100 at 2k tokens",
                {"tokens": 2304},
            ),
            Expected(
                ("attention/time against torch", "tflop_per_s"),
                595.0,
                629.0,
                "cuDNN on an H100 at 4k and 8k tokens",
                {"tokens": 8192},
            ),
        ),
    ),
    Step(
        "pairs",
        "clips a second at one and at four clips a step, against transformers",
        310,
        150,
        (("pairs.py", *_SIZE, "--batch", "1", "4", "--no-loop"),),
        tiny=("--steps", "1", *_SHORT),
        expected=(*_pairs(1), *_pairs(4)),
    ),
    Step(
        "parts",
        "what the time of a pair goes to, with a profile of the step",
        130,
        70,
        (
            (
                "parts.py",
                *_SIZE,
                *("--batch", "4", "--no-torch", "--trace", "{stem}-trace.tar.gz"),
            ),
        ),
        tiny=_SHORT,
        expected=tuple(_parts(4)),
    ),
    Step(
        "next",
        "clips a second of LLaVA-NeXT-Video at four clips a step",
        170,
        70,
        (
            (
                "pairs.py",
                *("--model", "llava_next_video"),
                *_SIZE,
                *("--batch", "4", "--steps", "2", "--no-loop"),
            ),
        ),
        tiny=("--steps", "1", *_SHORT),
        sizes={"small": "tiny"},
        expected=(
            # 70.5 TFLOP at the shares of the pair above; its head has a fifth of the
            # classes, which gives two to four points.
            Expected(
                ("pairs/ours against transformers, tuned", "value"), 7.9, 9.2, _ROOF
            ),
            Expected(("pairs/mfu", "value"), 70.0, 82.0, f"{_ROOF}; aim: 75"),
            Expected(
                ("pairs/ours against transformers, tuned", "ratio"), 2.0, None, "aim"
            ),
        ),
    ),
    Step(
        "long",
        "one clip of 128 frames, with the device's memory at the peak",
        130,
        80,
        (("scaling.py", *_SIZE, "--axes", "frames", "--frames", "128"),),
        tiny=_SHORT,
        expected=(
            # 708 TFLOP: parts of the pair that grow with the frames times 8, attention
            # with their square (137 TFLOP) at 450 to 600 TFLOP/s.
            Expected(("scaling/frames", "value"), 1.17, 1.38, _ROOF),
            # 40 GB. The compiler plans 19.3 GiB: 14.8 of parameters, 4.5 temporary.
            Expected(
                ("scaling/device memory", "value"),
                18.0,
                37.2,
                "19.3 planned by the compiler; aim: 40 GB",
            ),
        ),
    ),
    Step(
        "flow",
        "optical flow of a clip of 720p against OpenCV's",
        50,
        20,
        (("flow.py", *_SIZE),),
        tiny=_SHORT,
        expected=(
            # 2.1 ms on an H200 and 3 on an H100 is what its bytes take; 25 ms is an
            # estimate for 1,800 launches of small kernels a clip.
            Expected(("flow/7b", "value"), 2.1, 25.0, "bytes moved"),
        ),
    ),
    Step(
        "endtoend",
        "clips a second from video files to stored signals",
        180,
        90,
        (("endtoend.py", *_SIZE, "--batch", "4", "--clips", "32", "--repeats", "3"),),
        tiny=("--clips", "4", *_SHORT),
        expected=(Expected(("endtoend/7b/files", "ratio"), 0.9, None, "aim"),),
        optional=("av", "opencv-python-headless", "ml-collections", "pyarrow"),
    ),
)
