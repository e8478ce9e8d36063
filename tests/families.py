"""What every family can do, by the package's own commands, on tiny random checkpoints.

A family takes part by being listed in `models.FAMILIES`; one that nobody published,
whose tower sees two frames at once, is added here. All runs of a family score the same
clips in batches of one shape, so that few programs are compiled for it: the step on
eight devices, on two meshes, greedy answers, and a plain pass that they are held
against. The classes that derive from `Capabilities` share the families out.
"""

import functools
import json
import pathlib
from typing import Any

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from asked_test import assert_same, score, stored
from decoding import decode
from made_up_family import FAMILY
from oracles import every_row
from tiled import placed
from vidsme_jax import audit, models, settings
from vidsme_jax.base import PROFILE_ORDERS, SLICES, AuditError, TokenSignals
from vidsme_jax.models import random
from vidsme_jax.models.batches import Shape, stack
from vidsme_jax.models.interface import LoadedModel
from vidsme_jax.models.rows import Shown, Text, joined
from vidsme_jax.prepared import preparation
from vidsme_jax.run.stacking import seen
from vidsme_jax.settings import views
from vidsme_jax.store import signals

EVERY = (*models.FAMILIES, FAMILY)
TINY = tuple(x for family in EVERY for x in family.sizes if x.endswith("-tiny"))
FRAMES, LIMIT = 5, 4
SHANNON = PROFILE_ORDERS.index(1)
SCORES = "vid_sme,perplexity,instruction_loss,response_loss,response_vid_sme"
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


def configuration(name: str, **changes: Any) -> Any:
    """Returns that of eight drawn clips, each on a device of its own."""
    config = settings.variant(settings.default(), "tiny", {"tiny": f"random:{name}"})
    config.video.num_frames = FRAMES
    config.slices, config.scores, config.headline = SLICES, SCORES, "vid_sme"
    config.parallel.mode, config.parallel.data, config.parallel.model = "pmap", 8, 1
    config.batch_size, config.compile_cache = 8, ""
    config.update_from_flattened_dict(changes)
    return config


class Plain:
    """One causal pass over text, video and text, all logits kept: one program."""

    def __init__(self, loaded: LoadedModel):
        """Makes the program."""
        self.model, self._state = loaded.model, loaded.state

        @jax.jit
        def run(state, batch):
            module = nnx.merge(loaded.graphdef, state)
            hidden, _ = module.read(module.see(batch.pixels), batch)
            logits = hidden[0, 0] @ module.head.T
            return jax.nn.log_softmax(logits.astype(np.float32))

        self._run = run

    def shown(self, frames: Any) -> Shown:
        """Returns what the model is shown of decoded frames."""
        known = Shown(len(frames.pixels))
        if self.model.timed:
            clock = frames.clock
            known = known._replace(times=clock.times, duration=clock.duration)
        return seen(self.model, self.model.prepare(frames.pixels), known)

    def lay_out(self, frames: Any, text: Text, order: np.ndarray):
        """Returns the rows of the video, and of one text behind it."""
        shown = self.shown(frames)
        prompt = self.model.tokenise(None, shown)._replace(after=())
        return self.model.lay_out(shown, prompt, order, [text], SLICES)

    def log_p(
        self, frames: Any, text: Text, order: np.ndarray, pixels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns log p of every class: of the video's rows, and of the text's tokens.

        Args:
          frames: As decoded, for their times.
          text: Behind the video.
          order: Of `pixels`.
          pixels: At the model's input size.
        """
        laid_out = self.lay_out(frames, text, order)
        rows, view = every_row(joined(laid_out)), self.model.views(order)[-1]
        asked = len(text.after) + len(text.answer)
        size, around = len(rows.feature) - asked, (rows.feature < 0).sum() - asked
        size, around = (int(-(-n // 64) + 1) * 64 for n in (size, around))
        shape = Shape(size, size, around)
        batch = stack(*placed(self.model, [rows], pixels, [view]), shape)
        found = np.asarray(self._run(self._state, batch), np.float64)
        found = found[: len(rows.feature)]
        # The last row predicts what would come behind the text.
        return found[laid_out.kept[laid_out.slice == 0]], found[-asked - 1 :]


def _entropy(log_p: np.ndarray) -> np.ndarray:
    return -(np.exp(log_p) * log_p).sum(-1)


def _audited(config: Any, workdir: pathlib.Path) -> tuple[Any, dict[str, Any]]:
    """The whole audit; returns its report and the clips' signals by key."""
    report = audit.run(config, workdir)
    assert not report.failures and len(report.table.id) == 8
    for name, values in report.table.scores.items():
        assert np.isfinite(values).all(), name
    store = signals.Signals(workdir / "signals", signals.recorded(workdir / "signals"))
    return report, {clip.key: clip for clip in store.read(list(store.finished))}


class Capabilities:
    """The tests; a class that derives from it has the `names` of some families."""

    names: tuple[str, ...] = ()

    def pytest_generate_tests(self, metafunc):
        """Runs all tests of a family, then those of the next one."""
        if "name" in metafunc.fixturenames:
            metafunc.parametrize("name", self.names, scope="class")

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _listed(cls):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(models, "FAMILIES", EVERY)
            yield

    @pytest.fixture(scope="class")
    @classmethod
    def loaded(cls, name, _listed):
        return models.load(f"random:{name}", dtype="float32")

    @pytest.fixture(scope="class")
    @classmethod
    def plain(cls, loaded):
        return Plain(loaded)

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, name, tmp_path_factory):
        return tmp_path_factory.mktemp(name)

    @pytest.fixture(scope="class")
    @classmethod
    def whole(cls, name, folder, _listed):
        """The audit on eight devices with `pmap`."""
        return _audited(configuration(name), folder / "whole")

    def test_both_directions_and_all_slices_are_those_of_plain_passes(
        self, whole, plain
    ):
        """Each text as if it stood alone behind its video, frames in either order."""
        report, clips = whole
        model, natural = plain.model, np.arange(FRAMES)
        keys = sorted(clips)[:2]
        for key in keys:
            clip, frames = clips[key], decode(pathlib.Path(key), num_frames=FRAMES)
            pixels = model.prepare(frames.pixels)
            (its,) = clip.texts
            text = model.tokenise(its.asked)
            ids = np.array([*text.after, *text.answer])
            np.testing.assert_array_equal(its.tokens, ids)
            for d, order in enumerate((natural, natural[::-1])):
                video, asked = plain.log_p(frames, text, order, pixels)
                # Frames that changed places before the model, text and times in place.
                turned = plain.log_p(frames, text, natural, pixels[order])
                close(video, turned[0])
                close(asked, turned[1])
                assert video.std() > 0.5, "weights too small for errors to show"
                close(clip.signals.log_prob[d], video.max(-1))
                close(clip.signals.renyi[d, :, SHANNON], _entropy(video))
                close(its.signals.log_prob[d], asked[np.arange(len(ids)), ids])
                close(its.signals.renyi[d, :, SHANNON], _entropy(asked[:-1]))
            one, other = clip.signals.renyi[..., SHANNON]
            assert np.abs(one - other).max() > 1e-2, "reversal does nothing"
            assert set(its.slice.tolist()) == {1, 2}
        assert np.unique(report.table.scores["vid_sme"]).size == 8

    def test_reversal_moves_features_alone(self, loaded):
        model, natural = loaded.model, np.arange(FRAMES)
        shown = Shown(FRAMES, tuple(0.7 * natural), 0.7 * FRAMES)
        prompt, text = model.tokenise(None, shown), Text((), (7, 8), (9, 2))
        one, other = (
            model.lay_out(shown, prompt, order, [text], SLICES)
            for order in (natural, natural[::-1])
        )
        columns = ("token", "position", "segment", "kept", "target", "slice", "text")
        for name in (*columns, "means"):
            a, b = getattr(one, name), getattr(other, name)
            np.testing.assert_array_equal(a, b, err_msg=name)
        assert ((one.feature < 0) == (other.feature < 0)).all()
        if len(model.views(natural[::-1])) > 1:  # The view is in that order already.
            np.testing.assert_array_equal(one.feature, other.feature)
            return
        for frame in range(FRAMES):
            of = [x.feature[x.kept[x.frame == frame]] for x in (one, other)]
            assert len(of[0]) == model.rows_per_frame
            np.testing.assert_array_equal(*of)
        assert (one.feature != other.feature).any()

    def test_a_mesh_gives_the_signals_of_pmap(self, name, whole, folder):
        """Two copies, each over four devices, more than there are heads of keys."""
        changes = {"parallel.mode": "mesh", "parallel.data": 2, "parallel.model": 4}
        changes |= {"slices": SLICES[:1], "scores": "vid_sme"}
        _, scored = score(configuration(name, **changes), folder / "mesh")
        assert not scored.failures
        found = stored(scored.runs[0])
        assert found.keys() == whole[1].keys()
        for key, clip in found.items():
            for name in TokenSignals._fields:
                one = getattr(clip.signals, name)
                if one is not None:
                    close(one, getattr(whole[1][key].signals, name), err_msg=name)

    def test_greedy_answers_are_those_of_a_loop_without_a_cache(
        self, name, folder, loaded, plain
    ):
        config = configuration(name, response="greedy", response_tokens=LIMIT)
        if not hasattr(nnx.merge(loaded.graphdef, loaded.state), "decoder"):
            with pytest.raises(AuditError, match="cannot generate answers"):
                score(config, folder / "greedy")
            return
        _, scored = score(config, folder / "greedy")
        assert not scored.failures
        model, natural = plain.model, np.arange(FRAMES)
        parts = (folder / "greedy" / "answers").glob("part-*")
        told = {x["key"]: x for part in parts for x in pq.read_table(part).to_pylist()}
        said = []
        for key, clip in list(stored(scored.runs[0]).items())[:2]:
            frames = decode(pathlib.Path(key), num_frames=FRAMES)
            pixels = model.prepare(frames.pixels)
            (its,) = clip.texts
            text, ids = Text((), model.tokenise(its.asked).after), []
            while len(ids) < LIMIT and not (ids and ids[-1] in model.ends):
                behind = text._replace(answer=tuple(ids))
                last = plain.log_p(frames, behind, natural, pixels)[1][-1]
                second, first = np.sort(last)[-2:]
                assert first - second > 1e-3, "this fixture's steps are unclear"
                ids.append(int(last.argmax()))
            assert told[key]["ids"] == ids == its.tokens[its.slice == 2].tolist()
            said.append(ids)
        assert len(told) == 8 and said

    def test_prepared_clips_score_as_decoded_ones(self, name, whole, folder):
        config = configuration(name)
        preparation.run(views.Settings.of(config), folder / "prepared")
        config.corpus.prepared = str(folder / "prepared")
        _, found = _audited(config, folder / "from-prepared")
        assert found.keys() == whole[1].keys()
        for key, clip in found.items():
            assert_same(clip, whole[1][key])

    def test_an_adapter_is_merged_and_its_base_is_the_reference(
        self, name, whole, folder, loaded
    ):
        merged, delta = _adapter(random.folder(name), folder)
        adapted = models.load(str(folder / "adapter"), dtype="float32")
        other = models.load(str(merged), dtype="float32")
        moved = 0
        leaves = (jax.tree.leaves(x.state) for x in (adapted, other, loaded))
        for one, wanted, base in zip(*leaves, strict=True):
            close(one, wanted, rtol=1e-6, atol=1e-6)
            moved += bool(np.abs(np.asarray(one) - np.asarray(base)).max() > 1e-3)
        assert moved and delta
        changes = {"reference.adapter": "off", "scores": f"{SCORES},vid_sme_ref"}
        config = configuration(name, **changes)
        config.model.checkpoint = str(folder / "adapter")
        _, scored = score(config, folder / "adapted")
        assert not scored.failures and not scored.lacking
        target, reference = map(stored, scored.runs)
        assert target.keys() == reference.keys() == whole[1].keys()
        for key, clip in reference.items():
            assert_same(clip, whole[1][key])
            away = target[key].signals.log_prob - clip.signals.log_prob
            assert np.abs(away).max() > 1e-3


def _adapter(base: pathlib.Path, target: pathlib.Path) -> tuple[pathlib.Path, int]:
    """Writes a LoRA of some layers, and the same merged by hand.

    Returns:
      The folder of the merged checkpoint, and how many layers were changed.
    """
    tensors = load_file(base / "model.safetensors")
    leaves = tuple(f".{x}.weight" for x in ("q_proj", "down_proj"))
    names = [x for x in tensors if x.endswith(leaves) or x == "query.weight"]
    rng, rank, alpha = np.random.default_rng(5), 3, 6
    factors = {}
    for name in names:
        rows, columns = tensors[name].shape
        a = rng.standard_normal((rank, columns), np.float32) / columns**0.5
        b = rng.standard_normal((rows, rank), np.float32) / 4
        module = f"base_model.model.{name.removesuffix('.weight')}"
        factors |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
        tensors[name] = tensors[name] + alpha / rank * b @ a
    (target / "adapter").mkdir()
    save_file(factors, target / "adapter" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha}
    config |= {"base_model_name_or_path": str(base)}
    config |= {"target_modules": sorted({x.split(".")[-2] for x in names})}
    (target / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    merged = target / "merged"
    for path in base.rglob("*"):
        if path.is_file() and path.name != "model.safetensors":
            copy = merged / path.relative_to(base)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    save_file(tensors, merged / "model.safetensors", metadata={"format": "pt"})
    return merged, len(names)
