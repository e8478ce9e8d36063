"""Prepared corpora of made-up clips, each known by its number."""

import pathlib

import numpy as np

from vidsme_jax.base import ClipError, Frames, Item, MotionStatistics
from vidsme_jax.clock import Clock
from vidsme_jax.prepared import dataset, layout, writing
from vidsme_jax.prepared.layout import Variant
from vidsme_jax.prepared.writing import Writer

PNG = Variant(sampling="uniform", num_frames=3, fps=0.0, jpeg_quality=0)


def frames(number: int) -> Frames:
    ramp = np.linspace(0, 200, 12)[None, None, :, None] + np.zeros((3, 8, 1, 3))
    noise = np.random.default_rng(number).integers(0, 56, (3, 8, 12, 3))
    return Frames(
        pixels=(ramp + noise).astype(np.uint8),
        indices=(0, 2, 2),
        content_hash=f"{number * 0x0CCCCCCC:08x}" + "0" * 56,
        clock=clock(number),
        warnings=("cut short",) * (number % 3),
        container={"codec": "h264", "fps": number / 3} if number % 2 else {},
    )


def clock(number: int) -> Clock | None:
    if number % 4 == 3:
        return None
    times = (0.0, number / 3, number * 1e5 / 7)
    return Clock(times=times, shown=(0.0, number / 11, 0.1), duration=number / 9)


def motion(number: int) -> MotionStatistics:
    return MotionStatistics(number / 3, number / 7)


def item(number: int, root: pathlib.Path, **more) -> Item:
    given = {"id": f"é{number}", "video": f"v/{number}.mp4", "role": "suspects"}
    given |= {"clip": str(root / "v" / f"{number}.mp4"), "answer": "a"}
    given["source"], given["date"] = f"film {number // 2}", f"20{10 + number}-05"
    given["candidates"] = ("a", "größer") * (number % 2)
    return Item(**(given | more))


def write(
    root: pathlib.Path,
    items: list[Item],
    variant: Variant = PNG,
    shards: int = 4,
    failed: tuple[int, ...] = (),
) -> pathlib.Path:
    """Prepares what is missing of items whose number is in their video's name."""
    if not variant.folder(root).exists():
        layout.write_settings(variant.folder(root), variant, shards)
    with writing.opened(root, variant, len(items)) as writer:
        digests = stage(writer, items, variant, failed)
        writer.finish(items, digests, workers=2)
    return layout.versions(variant.folder(root))[-1]


def stage(
    writer: Writer,
    items: list[Item],
    variant: Variant = PNG,
    failed: tuple[int, ...] = (),
) -> dict[str, str]:
    """Stages what is missing of items; returns their digests by key."""
    digests = {}
    for item in items:
        number = int(pathlib.Path(item.video).stem)
        digest = writer.digest_of(item.clip)
        if digest is None and number in failed:
            error = ClipError("decode", "no frame")
            digest = writer.fail(item.clip, frames(number).content_hash, error)
        elif digest is None:
            example = dataset.encode(frames(number), motion(number), variant)
            digest = writer.add(item.clip, example)
        digests[item.clip] = digest
    return digests
