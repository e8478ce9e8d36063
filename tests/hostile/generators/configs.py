"""Hostile values of keys, as the command line has them.

A case passes the flags; all of them are wrong but those of the honest ones.
"""

from collections.abc import Iterator

from generators import EITHER, HONEST, Case, rng_of
from vidsme_jax import settings

VALUES = (
    *("", " ", "None", "nan", "inf", "-inf", "1e400", "-1", "9" * 5000, "1" + "0" * 30),
    *("0x", "1_0", "True", "()", "(", "[", "{", "[[[", "(" * 5000, "[" * 200),
    *("()()", "lambda: 1", "__import__('os')", "{}.x", "'\\ud800'", "\ud800", "\0"),
    *("\x1b]0;owned\x07", "a\nb", "é", "\u202e", "~nosuchuser/x", "/", "..", "-", "--"),
    *("('a',)*10", "1+1", "9**9**9", "f'{1}'", "...", "b'x'", "{1}", "1j", "'" * 999),
)


def cases(seed: int = 0, random: int = 40) -> Iterator[Case]:
    """Yields cases; `random` of them set several keys at once."""
    yield Case(
        "honest", _passing("--config.workers=2", "--config.model.checkpoint=a"), HONEST
    )
    for key in settings.RULES:
        rng = rng_of(seed, key)
        for k in rng.choice(len(VALUES), size=4, replace=False):
            flag = f"--config.{key}={VALUES[k]}"
            yield Case(f"{key} is value {k}", _passing(flag), EITHER)
    for name in (
        *(
            "",
            ".",
            "..",
            ".a",
            "a.",
            "video..num_frames",
            "video",
            "video.num_frames.x",
        ),
        *(
            "__class__",
            "video.__init__",
            "a" * 5000,
            "a." * 300,
            "\x1b[2J",
            "é",
            "\ud800",
        ),
        *("lock", "update", "to_dict", "video.lock", "_fields", "keys", "0", "-"),
    ):
        shown = name[:20].encode("ascii", "backslashreplace").decode()
        yield Case(f"no key {shown!r}", _passing(f"--config.{name}=1"))
    many = [f"--config.unknown_{n}=1" for n in range(3000)]
    yield Case("3,000 unknown keys", _passing(*many))
    keys = list(settings.RULES)
    for k in range(random):
        rng = rng_of(seed, f"several {k}")
        flags = [
            f"--config.{keys[rng.integers(len(keys))]}={VALUES[rng.integers(len(VALUES))]}"
            for _ in range(rng.integers(2, 8))
        ]
        yield Case(f"several {k}", _passing(*flags), EITHER)


def _passing(*flags: str):
    return lambda folder: flags
