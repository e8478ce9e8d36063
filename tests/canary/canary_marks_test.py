"""The variants: 40 dB, identified after a platform, the same by seed, nothing lost."""

import hashlib
import io
import json

import av
import cv2
import numpy as np
import pytest

from canary.canary_clips import drawn, encode, grained, made, packets, pictures
from vidsme_jax.base import AuditError
from vidsme_jax.canary import key, making, marks, survival

N = 6
CLIPS = {
    "drawn": dict(frames=drawn(96, 128, 12)),
    "grained": dict(frames=grained(drawn(144, 176, 10, seed=1), 6.0)),
    "black and white": dict(
        frames=np.repeat(255 * (drawn(64, 64, 9, 2) > 90), 1, 0).astype(np.uint8)
    ),
    "uneven, with sound": dict(
        frames=drawn(80, 64, 10, seed=3),
        times=[0, 40, 41, 99, 300, 301, 302, 600, 980, 1000],
        sound="aac",
    ),
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Canary sets of all clips."""
    folder = tmp_path_factory.mktemp("canaries")
    (folder / "clips").mkdir()
    for name, how in CLIPS.items():
        encode(folder / f"clips/{name}.mp4", **how)
    return folder, made(folder / "clips", folder / "out", N)


def _variants(folder, name):
    return sorted((folder / "out/variants" / name).iterdir())


@pytest.mark.parametrize("name", CLIPS)
def test_every_picture_keeps_40_db(sets, name):
    folder, found = sets
    original, times = pictures(folder / f"clips/{name}.mp4")
    (its,) = (each for each in found.sets if each.name == name)
    worst = []
    for path in _variants(folder, name):
        frames, theirs = pictures(path)
        assert np.allclose(theirs, times, atol=1e-4)
        error = np.square(frames.astype(float) - original).mean((1, 2, 3))
        worst.append(10 * np.log10(255**2 / error.max()))
        grey = [x @ np.array([0.299, 0.587, 0.114]) for x in (frames, original)]
        luma = np.square(grey[0] - grey[1]).mean((1, 2)).max()
        assert 10 * np.log10(255**2 / luma) >= 40
    assert min(worst) >= 40
    assert its.psnr == pytest.approx(min(worst), abs=1e-6)
    assert min(worst) < 40.7 or name == "black and white"  # As strong as it may be.


@pytest.mark.long
@pytest.mark.parametrize("name", CLIPS)
def test_variants_are_identified_after_a_platform(sets, name):
    """Scaled to 336 px, x264 at crf 28, 8 pictures: by tools other than the product's.

    OpenCV scales, MPEG-4 holds H.264 of another preset, and what is compared is the
    mean picture, blurred.
    """
    folder, found = sets
    (its,) = (each for each in found.sets if each.name == name)

    def blurred(frames):
        return cv2.GaussianBlur(frames.mean(0), (0, 0), 336 / 24)

    before, after = [], []
    for path in _variants(folder, name):
        frames, _ = pictures(path)
        frames = np.stack([cv2.resize(x, (336, 336)) for x in frames])
        places = np.linspace(0, len(frames) - 1, 8).astype(int)
        file = io.BytesIO()
        with av.open(file, "w", format="mp4") as target:
            stream = target.add_stream("libx264", rate=25)
            stream.height = stream.width = 336
            stream.pix_fmt, stream.options = "yuv420p", {"crf": "28", "preset": "slow"}
            for pixels in frames:
                target.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
            target.mux(stream.encode())
        coded, _ = pictures(io.BytesIO(file.getvalue()))
        before.append(blurred(frames[places].astype(float)))
        after.append(blurred(coded[places].astype(float)))
    before, after = (np.stack(x) - np.mean(x, 0) for x in (before, after))
    apart = np.square(after[:, None] - before[None]).mean((2, 3, 4))
    assert apart.argmin(1).tolist() == list(range(N))
    # The nearest other variant is farther than what coding did, by much.
    others = np.square(before[:, None] - before[None]).mean((2, 3, 4))
    nearest = others[~np.eye(N, dtype=bool)].reshape(N, -1).min(1)
    assert (np.diag(apart) < 0.5 * nearest).all()
    assert its.survival["identified"] == 1.0
    assert its.survival["distance"] > its.survival["noise"]
    assert survival.Survival(**its.survival).is_enough


def test_a_seed_makes_the_same_bytes_and_another_one_others(sets, tmp_path):
    folder, found = sets
    clip = folder / "clips/drawn.mp4"
    again = made(clip, tmp_path / "again", N)
    (before,) = (each for each in found.sets if each.name == "drawn")
    assert again.sets[0].files == before.files
    assert again.sets[0].chosen == before.chosen
    other = made(clip, tmp_path / "other", N, seed=6)
    assert not set(other.sets[0].files) & set(before.files)
    chance = [made(clip, tmp_path / f"chance{k}", 2, seed=None) for k in range(2)]
    assert not set(chance[0].sets[0].files) & set(chance[1].sets[0].files)


def test_what_is_written_says_what_was_published_in_the_key_alone(sets):
    folder, found = sets
    out = folder / "out"
    rows = [json.loads(x) for x in (out / "variants.jsonl").read_text().splitlines()]
    assert len(rows) == N * len(CLIPS)
    assert {row["source"] for row in rows} == set(CLIPS)
    for each in found.sets:
        digests = [
            hashlib.sha256(path.read_bytes()).hexdigest()
            for path in _variants(folder, each.name)
        ]
        assert tuple(digests) == each.files
        published = out / "publish" / f"{each.name}.mp4"
        assert (
            hashlib.sha256(published.read_bytes()).hexdigest()
            == each.files[each.chosen]
        )
        its = [row for row in rows if row["source"] == each.name]
        assert [set(row) for row in its] == [{"id", "video", "source"}] * N
        # No count of links, date or size of a name tells.
        assert {p.stat().st_nlink for p in _variants(folder, each.name)} == {1}
    assert len(list((out / "publish").iterdir())) == len(CLIPS)
    assert (out / "key.json").stat().st_mode & 0o077 == 0
    digest = hashlib.sha256((out / "key.json").read_bytes()).hexdigest()
    assert key.read(out).digest == found.digest == digest


def test_sound_is_copied(sets):
    folder, _ = sets
    original = packets(folder / "clips/uneven, with sound.mp4")
    assert len(original) > 10
    for path in _variants(folder, "uneven, with sound"):
        assert packets(path) == original


def test_sound_that_mp4_cannot_hold_is_kept_in_matroska(tmp_path):
    encode(tmp_path / "a.mkv", drawn(64, 64, 5), sound="pcm_s16le")
    made(tmp_path / "a.mkv", tmp_path / "out", 2)
    (published,) = (tmp_path / "out/publish").iterdir()
    assert published.suffix == ".mkv"
    assert packets(published) == packets(tmp_path / "a.mkv")


def test_the_texts_of_a_manifest_go_with_the_variants(tmp_path):
    encode(tmp_path / "a.mp4", drawn(64, 64, 4))
    rows = [
        {"video": "a.mp4", "question": f"q{k}", "answer": "a", "group": "g"}
        for k in range(2)
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(x) + "\n" for x in rows))
    made(tmp_path / "m.jsonl", tmp_path / "out", 2)
    lines = (tmp_path / "out/variants.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [row["id"] for row in found] == [
        f"a/{variant:04d}/{place}" for variant in range(2) for place in range(2)
    ]
    assert [row["question"] for row in found] == ["q0", "q1"] * 2
    assert {(row["answer"], row["group"]) for row in found} == {("a", "g")}


def test_the_choice_is_uniform():
    drawn_ = [marks.drawn("0f", "choice", f"set {k}") % 8 for k in range(8000)]
    counts = np.bincount(drawn_, minlength=8)
    assert np.square(counts - 1000).sum() / 1000 < 24.3  # Chi-square, p = 0.001.


def test_marks_are_even_and_unlike_one_another():
    found = np.stack([marks.pattern("0f", "a", k, 120, 160).ravel() for k in range(32)])
    luma = found[:, : 120 * 160]
    assert np.abs(luma.mean(1)).max() < 1e-9
    sizes = np.sqrt(np.square(luma).mean(1))
    assert np.allclose(sizes, marks.STRENGTH)
    alike = np.corrcoef(luma)[~np.eye(32, dtype=bool)]
    assert np.abs(alike).max() < 0.75 and abs(alike.mean()) < 0.05


def test_marks_that_coding_wipes_out_are_said():
    rng = np.random.default_rng(0)
    base, own = rng.normal(100, 9, 4000), rng.normal(0, 1, (8, 4000))
    lost = [
        survival.Seen(base + mark, base + rng.normal(0, 9, 4000), 81.0) for mark in own
    ]
    assert not survival.of(lost).is_enough
    kept = [survival.Seen(base + mark, base + 0.9 * mark, 0.01) for mark in own]
    assert survival.of(kept).is_enough
    assert survival.of(kept).kept == pytest.approx(0.9)
    assert survival.of(kept).distance == pytest.approx(0.9 * np.sqrt(2), rel=0.02)


def _odd(folder):
    encode(folder / "clip.mkv", drawn(64, 64, 3)[:, :, :63], pix_fmt="yuv444p")
    return "63x64 pixels; both sides must be even"


def _small(folder):
    encode(folder / "clip.mp4", drawn(64, 64, 3)[:, :16])
    return "64x16 pixels"


def _no_video(folder):
    (folder / "clip.mp4").write_bytes(b"no video at all")
    return "clip.mp4: "


def _turned(folder):
    encode(folder / "plain.mp4", drawn(64, 96, 3))
    content = bytearray((folder / "plain.mp4").read_bytes())
    (folder / "plain.mp4").unlink()
    at = content.index(b"tkhd") + 4 + 40  # The matrix of the track.
    turned = [0, 1 << 16, 0, (1 << 32) - (1 << 16), 0, 0, 64 << 16, 0, 1 << 30]
    content[at : at + 36] = b"".join(x.to_bytes(4, "big") for x in turned)
    (folder / "clip.mp4").write_bytes(content)
    return "its pictures are rotated by"


@pytest.mark.parametrize("write", [_odd, _small, _no_video, _turned])
def test_what_cannot_be_marked_is_a_sentence(tmp_path, write):
    said = write(tmp_path)
    with pytest.raises(AuditError) as caught:
        made(tmp_path, tmp_path / "out", 2)
    (problem,) = caught.value.problems
    assert said in problem
    assert not (tmp_path / "out").exists()


def test_other_formats_are_written_in_the_usual_one(tmp_path):
    encode(tmp_path / "a.mkv", drawn(64, 64, 4), pix_fmt="yuv444p")
    encode(tmp_path / "b.mkv", drawn(64, 64, 4), codec="ffv1", pix_fmt="bgr0")
    found = made(tmp_path, tmp_path / "out", 2)
    for name in "ab":
        original, _ = pictures(tmp_path / f"{name}.mkv")
        for path in _variants(tmp_path, name):
            frames, _ = pictures(path)
            error = np.square(frames.astype(float) - original)
            assert 10 * np.log10(255**2 / error.mean()) > 30  # Colours are halved.
    assert all(each.psnr >= 40 for each in found.sets)


def test_strengths_are_what_40_db_leave(sets):
    for each in sets[1].sets:
        most = 2.56 * (1.5 if each.name == "black and white" else 1.05)
        assert 1.0 < each.strength < most
    assert making.LEAST_PSNR == 40.0
