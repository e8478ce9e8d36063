"""The synthetic corpus: reproducible, decodable, and fair between the classes."""

import collections
import dataclasses
import itertools
import json
import pathlib

import av
import cv2
import numpy as np
import pytest
import transformers
from scipy import stats

from vidsme_jax.demo import clips, drawing

COUNTS = {"num_members": 15, "num_matched": 15, "num_shifted": 15}
PROMPT = "USER: <video>\nwhat happens in this video ASSISTANT: the red ring pulses"


def _decode(path: pathlib.Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([f.to_ndarray(format="rgb24") for f in file.decode(video=0)])


def _motion(frames: np.ndarray) -> tuple[float, float]:
    """Returns phi and b of 16 frames, straight from their definitions."""
    indices = np.linspace(0, len(frames) - 1, 16).astype(int)
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames[indices]]
    flows = (
        cv2.calcOpticalFlowFarneback(
            one, two, np.zeros((*one.shape, 2), np.float32), 0.5, 3, 15, 3, 5, 1.2, 0
        )
        for one, two in itertools.pairwise(gray)
    )
    phi = np.mean([flow.var() for flow in flows])
    return float(phi), float(np.std([frame.mean() for frame in gray]))


def _auc(larger: np.ndarray, smaller: np.ndarray) -> float:
    wins = stats.mannwhitneyu(larger, smaller).statistic
    return wins / (len(larger) * len(smaller))


def _rows(folder: pathlib.Path) -> list[dict[str, str]]:
    names = ("members.jsonl", "nonmembers.jsonl")
    text = "".join((folder / name).read_text() for name in names)
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("corpus")
    clips.write_corpus(folder, **COUNTS, seed=0)
    return folder


@pytest.fixture(scope="module")
def motion(corpus: pathlib.Path) -> dict[str, np.ndarray]:
    """Group to the (phi, b) of its clips."""
    groups = collections.defaultdict(list)
    for row in _rows(corpus):
        groups[row["group"]].append(_motion(_decode(corpus / row["video"])))
    return {group: np.array(values) for group, values in groups.items()}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("tokenizer")
    drawing.tokenizer_files(folder)
    # The checkpoint's config, beside it, must not change the tokenizer's class.
    (folder / "config.json").write_text('{"model_type": "llava_next_video"}')
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_same_seed_same_bytes(tmp_path: pathlib.Path):
    def contents(name: str, seed: int) -> dict[str, bytes]:
        folder = tmp_path / name
        clips.write_corpus(
            folder, num_members=2, num_matched=1, num_shifted=1, seed=seed
        )
        files = (path for path in folder.rglob("*") if path.is_file())
        return {str(f.relative_to(folder)): f.read_bytes() for f in files}

    first, again, other = contents("a", 0), contents("b", 0), contents("c", 1)
    assert first == again
    assert len(first) == 6
    assert not set(first.values()) & set(other.values())


def test_clips_decode_to_what_was_drawn(tmp_path: pathlib.Path):
    rng = np.random.default_rng(3)
    for (height, width), brightness in zip(
        drawing.FORMATS, (0.0, 0.3, 0.0), strict=True
    ):
        scene = drawing.make_scene(rng, brightness=brightness)
        drawn = np.stack(
            [drawing.draw(scene, i, height, width) for i in range(scene.num_frames)]
        )
        path = tmp_path / "clip.mp4"
        clips.encode(path, drawn, scene.fps)
        decoded = _decode(path)
        assert decoded.shape == (scene.num_frames, height, width, 3)
        assert np.abs(decoded.astype(float) - drawn).mean() < 8
        with av.open(str(path)) as file:
            video = file.streams.video[0]
            assert video.codec_context.name == "h264"
            assert video.codec_context.pix_fmt == "yuv420p"
            assert video.frames == scene.num_frames
            assert video.average_rate == scene.fps


def test_odd_sides_are_refused(tmp_path: pathlib.Path):
    frames = np.zeros((2, 15, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="even sides, got 15 x 16"):
        clips.encode(tmp_path / "clip.mp4", frames, 12)


def test_manifests_name_every_clip_once(corpus: pathlib.Path):
    rows = _rows(corpus)
    videos = sorted(row["video"] for row in rows)
    clips = sorted((corpus / "clips").iterdir())
    assert videos == [f"clips/{clip.name}" for clip in clips]
    assert sum(clip.stat().st_size for clip in clips) < 5000 * len(clips)
    assert len({row["id"] for row in rows}) == len(rows)
    groups = collections.Counter(row["group"] for row in rows)
    assert groups == {"": 15, "matched": 15, "shifted": 15}
    members = (corpus / "members.jsonl").read_text().splitlines()
    assert {json.loads(line)["group"] for line in members} == {""}
    assert len(members) == 15


def test_groups_share_the_mix_of_shapes(corpus: pathlib.Path):
    shapes = collections.defaultdict(collections.Counter)
    for row in _rows(corpus):
        with av.open(str(corpus / row["video"])) as file:
            video = file.streams.video[0]
            shapes[row["group"]][video.height, video.width] += 1
    assert shapes[""] == dict.fromkeys(drawing.FORMATS, 5)
    assert shapes[""] == shapes["matched"] == shapes["shifted"]


def test_file_names_do_not_tell_the_class(corpus: pathlib.Path):
    numbers = collections.defaultdict(list)
    for row in _rows(corpus):
        numbers[row["group"]].append(int(row["id"]))
    assert sorted(itertools.chain(*numbers.values())) == list(range(45))
    for one, two in itertools.combinations(numbers.values(), 2):
        assert stats.ks_2samp(one, two).pvalue > 0.01


def test_members_and_matched_move_alike(motion: dict[str, np.ndarray]):
    for statistic in range(2):
        members, matched = motion[""][:, statistic], motion["matched"][:, statistic]
        assert stats.ks_2samp(members, matched).pvalue > 0.01
        assert members.std() > 0.2 * members.mean()


def test_shifted_clips_stand_out(motion: dict[str, np.ndarray]):
    for statistic in range(2):
        for group in ("", "matched"):
            shifted, others = motion["shifted"], motion[group]
            assert _auc(shifted[:, statistic], others[:, statistic]) > 0.95


def test_shifted_scenes_are_brighter():
    plain = drawing.make_scene(np.random.default_rng(5))
    shifted = drawing.make_scene(np.random.default_rng(5), speed=5.0, brightness=0.3)
    middle = plain.num_frames // 2
    light, dark = (drawing.draw(s, middle, 48, 64).mean() for s in (shifted, plain))
    assert light > 1.2 * dark
    assert shifted.pace == pytest.approx(5 * plain.pace)
    assert shifted.direction == plain.direction


def test_every_shape_and_texture_can_be_seen():
    scene = drawing.make_scene(np.random.default_rng(0))
    replace = dataclasses.replace
    sprites = (replace(scene.sprites[0], shape=shape) for shape in drawing.SHAPES)
    scenes = [
        *(replace(scene, sprites=(sprite,)) for sprite in sprites),
        *(replace(scene, sprites=(), texture=name) for name in drawing.TEXTURES),
    ]
    images = [drawing.draw(scene, 0, 72, 96).astype(float) for scene in scenes]
    for one, two in itertools.combinations(images, 2):
        assert np.abs(one - two).max() > 10


def test_shapes_stay_in_the_frame():
    rng = np.random.default_rng(0)
    reached = [
        drawing._reflect(start + index * velocity)
        for scene in (drawing.make_scene(rng, speed=5.0) for _ in range(50))
        for sprite in scene.sprites
        for start, velocity in zip(sprite.start, sprite.velocity, strict=True)
        for index in range(scene.num_frames)
    ]
    assert min(reached) >= drawing.MARGIN - 1e-9
    assert max(reached) <= 1 - drawing.MARGIN + 1e-9
    assert drawing._reflect(0.4) == pytest.approx(0.4)


def test_captions_tell_seen_and_unseen():
    rng = np.random.default_rng(0)
    scenes = [drawing.make_scene(rng) for _ in range(100)]
    captions = [drawing.caption(scene) for scene in scenes]
    used = {word for text in captions for word in text.split()}
    assert used <= set(drawing.VOCABULARY)
    assert len(drawing.VOCABULARY) <= 120
    assert {word for text in drawing.QUESTIONS for word in text.split()} <= set(
        drawing.VOCABULARY
    )
    assert len(set(captions)) == len(captions)
    for scene, text in zip(scenes, captions, strict=True):
        words = text.split()
        sprite = scene.sprites[0]
        assert {sprite.colour, sprite.shape, scene.direction} <= set(words)
        assert f"named {scene.name} moves" in text
        assert f"near {scene.place} over" in text
        # The call signs are not in the pixels.
        renamed = dataclasses.replace(scene, name="zulu nine", place="x")
        assert np.array_equal(
            drawing.draw(scene, 7, 24, 32), drawing.draw(renamed, 7, 24, 32)
        )


def test_tokenizer_round_trip(tokenizer):
    ids = tokenizer(PROMPT)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.unk_token_id not in ids
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(ids) == f"<s> {PROMPT}"
    rng = np.random.default_rng(0)
    for _ in range(20):
        text = drawing.caption(drawing.make_scene(rng))
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert len(ids) == len(text.split())
        assert tokenizer.decode(ids) == text


def test_tokenizer_specials(tokenizer):
    assert len(tokenizer) == len(drawing.TOKENS) == len(set(drawing.TOKENS))
    assert tokenizer.convert_tokens_to_ids(["<unk>", "<s>", "</s>"]) == [0, 1, 2]
    assert tokenizer.eos_token == "</s>"
    assert tokenizer.pad_token == "<pad>"
    assert set(tokenizer("the").keys()) == {"input_ids", "attention_mask"}
    video, newline = tokenizer.convert_tokens_to_ids(["<video>", "\n"])
    # One token per mention, spaced or not.
    assert tokenizer("<video><video> <video>")["input_ids"] == [1, *[video] * 3]
    assert tokenizer("the<video>\nclip?")["input_ids"] == [
        *tokenizer("the")["input_ids"],
        video,
        newline,
        0,
    ]
    assert "<video>" not in tokenizer.decode([video], skip_special_tokens=True)


def test_what_precedes_the_video_is_tokenised_alone(tokenizer):
    prefix = tokenizer("USER: ")["input_ids"]
    for rest in ("<video>", "<video>\nwhat", "<video>the clip", "<video><image>"):
        assert tokenizer(f"USER: {rest}")["input_ids"][: len(prefix)] == prefix
