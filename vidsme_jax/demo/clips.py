"""Scenes into a corpus: video files, and manifests that name them."""

import fractions
import json
import pathlib

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from jaxtyping import UInt8

from vidsme_jax.demo.drawing import (
    FORMATS,
    QUESTIONS,
    SHIFTED_BRIGHTNESS,
    SHIFTED_SPEED,
    Scene,
    caption,
    choice,
    draw,
    make_scene,
)


def encode(
    path: pathlib.Path,
    frames: UInt8[np.ndarray, "frames height width 3"],
    fps: int,
    *,
    crf: int = 28,
) -> None:
    """Writes an H.264 mp4 file, the same bytes whenever the libraries are the same.

    Args:
      path: Where to.
      frames: RGB; height and width must be even.
      fps: Frames per second.
      crf: x264's constant rate factor: smaller is better and larger.
    """
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"yuv420p needs even sides, got {height} x {width}.")
    with av.open(str(path), "w", format="mp4", options={"fflags": "bitexact"}) as file:
        stream = file.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.time_base = fractions.Fraction(1, fps)
        stream.codec_context.thread_count = 1
        # With x264's macroblock tree, clips this small differ from run to run.
        stream.options = {"crf": str(crf), "preset": "slow", "mbtree": "0"}
        # x264 writes its settings, 600 bytes, into a message that no decoder needs.
        strip = BitStreamFilterContext("filter_units=remove_types=6", stream)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(pixels), format="rgb24"
            )
            frame.pts = index
            for packet in stream.encode(frame):
                file.mux(strip.filter(packet))
        for packet in stream.encode():
            file.mux(strip.filter(packet))
        file.mux(strip.filter(None))


def _write_clip(path: pathlib.Path, scene: Scene, shape: tuple[int, int]) -> None:
    frames = [draw(scene, index, *shape) for index in range(scene.num_frames)]
    encode(path, np.stack(frames), scene.fps)


def write_corpus(
    folder: pathlib.Path,
    *,
    num_members: int,
    num_matched: int,
    num_shifted: int,
    seed: int,
) -> None:
    """Writes `clips/*.mp4`, `members.jsonl` and `nonmembers.jsonl`.

    The scenes of members and of matched non-members are drawn together and dealt out
    at random; the shifted non-members are brighter, less steady and faster. Every
    group has the same mix of frame shapes, and the numbers in the file names are dealt
    out over all groups.

    Args:
      folder: Made if need be.
      num_members: Clips in members.jsonl, group "".
      num_matched: Clips in nonmembers.jsonl, group "matched".
      num_shifted: Clips in nonmembers.jsonl, group "shifted".
      seed: Of everything.
    """
    rng = np.random.default_rng(seed)
    scenes = [make_scene(rng) for _ in range(num_members + num_matched)]
    scenes = [scenes[index] for index in rng.permutation(len(scenes))]
    shifted = [
        make_scene(rng, speed=SHIFTED_SPEED, brightness=SHIFTED_BRIGHTNESS)
        for _ in range(num_shifted)
    ]
    groups = {
        "": scenes[:num_members],
        "matched": scenes[num_members:],
        "shifted": shifted,
    }
    numbers = iter(rng.permutation(len(scenes) + num_shifted).tolist())
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    rows = {group: [] for group in groups}
    for group, members in groups.items():
        for index, scene in enumerate(members):
            name = f"{next(numbers):04d}"
            video = f"clips/{name}.mp4"
            _write_clip(folder / video, scene, FORMATS[index % len(FORMATS)])
            rows[group].append(
                {
                    "id": name,
                    "video": video,
                    "question": choice(rng, QUESTIONS),
                    "answer": caption(scene),
                    "group": group,
                }
            )
    _write_manifest(folder / "members.jsonl", rows[""])
    _write_manifest(folder / "nonmembers.jsonl", rows["matched"] + rows["shifted"])


def _write_manifest(path: pathlib.Path, rows: list[dict[str, str]]) -> None:
    rows = sorted(rows, key=lambda row: row["id"])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
