"""Every stage of a device fails in turn: once, for one clip, for all, at random.

What is expected is the same of each stage: what fails once is done again; a clip that
always fails is listed, and the others' numbers are as without it, bit by bit; what
fails with every clip is one problem, and the same command goes on once it is mended.
Of the answers that a model generates, the first token and those after it are one
program, so that they fail alike.
"""

import collections
import dataclasses
import random

import jax
import numpy as np
import pytest

from asked_test import assert_same, score, stored
from killed_run import asking, manifest
from killed_run import config as small
from vidsme_jax import parallel, settings
from vidsme_jax.base import AuditError
from vidsme_jax.motion import backends
from vidsme_jax.run import preparing, stacking, stopping

COUNT, TEXTS = 5, 2
CAUSE = "INTERNAL: the device failed"


@dataclasses.dataclass(frozen=True)
class Stage:
    """Where a device fails.

    Attributes:
      kind: Of the run: "video", "greedy" (answers are generated), "reference".
      program: That fails: "step", "answers" or "flow".
      late: Whether it fails where results are fetched, else where it is sent.
      place: Of the run that fails: 1 is the reference model.
      stage: Of the failure that is listed.
    """

    kind: str
    program: str
    late: bool
    place: int = 0
    stage: str = "signals"


STAGES = {
    "dispatch": Stage("video", "step", False),
    "fetch": Stage("video", "step", True),
    "dispatch of the flow": Stage("video", "flow", False, stage="motion"),
    "fetch of the flow": Stage("video", "flow", True, stage="motion"),
    "dispatch of answers": Stage("greedy", "answers", False),
    "fetch of answers": Stage("greedy", "answers", True),
    "dispatch after answers": Stage("greedy", "step", False),
    "dispatch of the reference": Stage("reference", "step", False, 1),
    "fetch of the reference": Stage("reference", "step", True, 1),
}


def _config(kind, folder):
    """Two clips a batch, of which the last is alone in its own."""
    if kind == "video":
        return small(COUNT, batch_size=2, **{"motion.flow": "jax"})
    path = manifest(folder / "m.jsonl", TEXTS, COUNT)
    changes = {"batch_size": 2, "scores": "vid_sme,response_loss", "response_tokens": 3}
    if kind == "greedy":
        return asking(path, response="greedy", **changes)
    changes["reference.checkpoint"] = str(settings.DEMO / "reference")
    changes["scores"] = "vid_sme,response_loss,response_loss_ref"
    return asking(path, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What each kind of run gives where nothing fails."""
    made = {}

    def of(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            _, scored = score(_config(kind, folder), folder / "run")
            assert not scored.failures and not scored.lacking
            made[kind] = [stored(run) for run in scored.runs]
        return made[kind]

    return of


class Faults:
    """Makes one stage fail where `when(keys, time)` says so.

    The keys are of a batch's clips; the time counts how often they were tried.
    """

    def __init__(self, monkeypatch, stage, when):
        self.tried = collections.Counter()
        self.compiled = []
        batch, runner = stacking.Stacker.batch, parallel.Devices.runner
        fetch, group = parallel.Devices.fetch, [None]
        sent = {}

        def stacked(own, its, size):
            group[0] = its
            return batch(own, its, size)

        def failing(keys):
            self.tried[keys] += 1
            if when(keys, self.tried[keys]):
                raise jax.errors.JaxRuntimeError(f"{CAUSE}\nat 0x7f")

        def run(devices, step):
            inner = runner(devices, step)
            program = "answers" if "greedy" in step.__qualname__ else "step"

            def send(*args):
                clips = [clip.key for clip in group[0].clips]
                mine = program == stage.program and clips[0].place == stage.place
                keys = tuple(each.sample.clip.key for each in clips)
                if mine and not stage.late:
                    failing(keys)
                out = inner(*args)
                if mine and stage.late:
                    sent[id(out)] = out, keys
                return out

            return send

        def fetched(devices, out):
            if id(out) in sent:
                failing(sent.pop(id(out))[1])
            return fetch(devices, out)

        monkeypatch.setattr(stacking.Stacker, "batch", stacked)
        monkeypatch.setattr(parallel.Devices, "runner", run)
        monkeypatch.setattr(parallel.Devices, "fetch", fetched)
        if stage.program == "flow":
            self._flow(monkeypatch, stage, failing)

    def _flow(self, monkeypatch, stage, failing):
        prepare, send, take = preparing.prepare, backends._Queue.send, backends._fetched
        names, of = {}, {}

        def prepared(sample, lacks, runs, reader, *rest):
            read = reader.read(sample.clip.key, {2})(2)[0].pixels
            names[_grey(read)] = sample.clip.key
            return prepare(sample, lacks, runs, reader, *rest)

        def sending(queue, grey):
            key = (names[grey.tobytes()],)
            if not stage.late:
                failing(key)
            parts = send(queue, grey)
            of[id(parts)] = parts, key
            return parts

        def fetching(parts):
            if stage.late:
                failing(of[id(parts)][1])
            return take(parts)

        monkeypatch.setattr(preparing, "prepare", prepared)
        monkeypatch.setattr(backends._Queue, "send", sending)
        monkeypatch.setattr(backends, "_fetched", fetching)


def _grey(pixels):
    import cv2

    return np.stack([cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) for x in pixels]).tobytes()


@pytest.fixture(params=STAGES.values(), ids=STAGES)
def stage(request):
    return request.param


@pytest.fixture
def compiled():
    """The seconds of everything that is compiled."""
    seconds = []

    def listen(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seconds
    jax.monitoring.unregister_event_duration_listener(listen)


def _assert_whole(scored, expected, place=0, without=None):
    """All signals are as without a fault, but for those of a clip in one place."""
    for k, (run, wanted) in enumerate(zip(scored.runs, expected, strict=True)):
        found = stored(run)
        left = wanted.keys() - ({without} if k == place else set())
        assert found.keys() == left
        for key in left:
            assert_same(found[key], wanted[key])


@pytest.mark.long
def test_what_fails_once_is_done_again(stage, whole, tmp_path, monkeypatch, compiled):
    """Every batch, whole, halved or of one clip; and what runs has been compiled."""
    expected = whole(stage.kind)
    compiled.clear()
    faults = Faults(monkeypatch, stage, lambda keys, time: time == 1)
    _, scored = score(_config(stage.kind, tmp_path), tmp_path / "run")
    assert not scored.failures and not scored.lacking
    alone = [times for keys, times in faults.tried.items() if len(keys) == 1]
    assert alone == [2] * COUNT
    _assert_whole(scored, expected)
    assert not compiled, "a program was compiled twice"


@pytest.mark.long
def test_a_clip_that_always_fails_is_listed(stage, whole, tmp_path, monkeypatch):
    expected = whole(stage.kind)
    bad = list(expected[0])[1]
    Faults(monkeypatch, stage, lambda keys, time: bad in keys)
    for _ in range(2):
        setup, scored = score(_config(stage.kind, tmp_path), tmp_path / "run")
        failed, none = scored.failures, scored.lacking
        if stage.place:
            failed, none = none, failed
        (ids,) = [[i.id for i in c.items] for c in setup.clips if c.key == bad]
        assert [failure.id for failure in failed] == ids
        if not stage.place and stage.kind == "reference":
            assert none
        for failure in failed:
            assert failure.stage == stage.stage
            assert CAUSE in failure.cause and "\n" not in failure.cause
        _assert_whole(scored, expected, stage.place, bad)
    monkeypatch.undo()
    _, scored = score(_config(stage.kind, tmp_path), tmp_path / "run")
    assert not scored.failures and not scored.lacking
    _assert_whole(scored, expected)


@pytest.mark.long
@pytest.mark.parametrize("later", [False, True])
def test_what_fails_with_every_clip_is_one_problem(
    later, stage, whole, tmp_path, monkeypatch
):
    """Found out after three clips; what was stored before is kept."""
    expected = whole(stage.kind)
    first = list(expected[0])[:2]
    Faults(monkeypatch, stage, lambda k, t: not (later and set(k) <= set(first)))
    with pytest.raises((AuditError, stopping.RunStopped)) as caught:
        score(_config(stage.kind, tmp_path), tmp_path / "run")
    said = str(caught.value)
    assert CAUSE in said and len(said.splitlines()) == 1
    assert "devices" in said or "cpu 0" in said or "config.batch_size" in said
    monkeypatch.undo()
    _, scored = score(_config(stage.kind, tmp_path), tmp_path / "run")
    assert not scored.failures and not scored.lacking
    _assert_whole(scored, expected)


@pytest.mark.long
def test_what_fails_at_random_is_scored_by_and_by(stage, whole, tmp_path, monkeypatch):
    expected, rng = whole(stage.kind), random.Random(3)
    Faults(monkeypatch, stage, lambda keys, time: rng.random() < 0.4)
    for _ in range(20):
        try:
            _, scored = score(_config(stage.kind, tmp_path), tmp_path / "run")
        except (AuditError, stopping.RunStopped):
            continue
        if not scored.failures and not scored.lacking:
            break
    _assert_whole(scored, expected)
