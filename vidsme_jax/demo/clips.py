"""Scenes into a corpus: video files, and manifests that name them."""

import fractions
import json
import pathlib

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from jaxtyping import UInt8

from vidsme_jax.demo import drawing


def encode(
    path: pathlib.Path,
    frames: UInt8[np.ndarray, "frames height width 3"],
    fps: int,
) -> None:
    """Writes an H.264 mp4 file, the same bytes whenever the libraries are the same.

    Args:
      path: Where to.
      frames: RGB; height and width must be even.
      fps: Frames per second.
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
        stream.options = {"crf": "28", "preset": "slow", "mbtree": "0"}
        # x264 writes its settings, 600 bytes, into a message that no decoder needs.
        strip = BitStreamFilterContext("filter_units=remove_types=6", stream)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = index
            for packet in stream.encode(frame):
                file.mux(strip.filter(packet))
        for packet in stream.encode():
            file.mux(strip.filter(packet))
        file.mux(strip.filter(None))


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
    scenes = [drawing.make_scene(rng) for _ in range(num_members + num_matched)]
    scenes = [scenes[index] for index in rng.permutation(len(scenes))]
    scenes += [
        drawing.make_scene(
            rng, speed=drawing.SHIFTED_SPEED, brightness=drawing.SHIFTED_BRIGHTNESS
        )
        for _ in range(num_shifted)
    ]
    numbers = rng.permutation(len(scenes)).tolist()
    counts = {"": num_members, "matched": num_matched, "shifted": num_shifted}
    places = [(group, k) for group, count in counts.items() for k in range(count)]
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    rows = []
    for scene, number, (group, k) in zip(scenes, numbers, places, strict=True):
        name, shape = f"{number:04d}", drawing.FORMATS[k % len(drawing.FORMATS)]
        frames = [
            drawing.draw(scene, index, *shape) for index in range(scene.num_frames)
        ]
        encode(folder / f"clips/{name}.mp4", np.stack(frames), scene.fps)
        row = {"id": name, "video": f"clips/{name}.mp4"}
        row |= {
            "question": drawing.choice(rng, drawing.QUESTIONS),
            "answer": drawing.caption(scene),
        }
        rows.append(row | {"group": group})
    rows.sort(key=lambda row: row["id"])
    for role in ("members", "nonmembers"):
        mine = [row for row in rows if (row["group"] == "") == (role == "members")]
        text = "".join(json.dumps(row) + "\n" for row in mine)
        (folder / f"{role}.jsonl").write_text(text)
