"""The driver: samples to stored signals, for one run or several.

Host threads decode clips ahead, once for all runs whose models are on the devices at
the same time; batches pass through the devices, and the signals of each are written to
the store of its run.
"""

import contextlib
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from absl import logging

from vidsme_jax.base import ClipError, Failure, Sample, ScoredClip
from vidsme_jax.data import loader
from vidsme_jax.data.reading import Reader
from vidsme_jax.models.batches import TextShape
from vidsme_jax.models.interface import LoadedModel
from vidsme_jax.motion import backends
from vidsme_jax.parallel import Devices, JaxRuntimeError
from vidsme_jax.progress import Progress
from vidsme_jax.run import answering, failing, memory, pipeline, preparing, processes
from vidsme_jax.run.contents import Contents, confirmed
from vidsme_jax.run.failing import Failed
from vidsme_jax.run.pipeline import Pipeline, Result
from vidsme_jax.run.preparing import Prepared
from vidsme_jax.run.processes import Team
from vidsme_jax.run.runs import Missing, Run
from vidsme_jax.run.stacking import Input, Padded, Tokenised, room_for_times, text_shape
from vidsme_jax.run.stopping import RunStopped, Stop
from vidsme_jax.run.timeline import CLIPS, FLOW, STORING
from vidsme_jax.run.utilisation import Meter, Utilisation
from vidsme_jax.store.signals import BLANK, SECOND
from vidsme_jax.wording import printable


class Scored(NamedTuple):
    """The result of scoring.

    Attributes:
      runs: With what all processes have stored of the clips as they are now; of a
        process that is not the first, as they were given.
      failures: What could not be scored, by any process, once per row of a manifest
        that names it; with several runs the cause names the run unless it is all.
      lacking: The same of the reference model alone, whose failures are none of the
        audited model's.
      utilisation: Of the devices for the first models of which this process computed
        a clip; None where it computed none.
    """

    runs: list[Run]
    failures: list[Failure]
    lacking: list[Failure]
    utilisation: Utilisation | None

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Returns the names of the parts that were written, by folder."""
        found = {run.store.folder.name: run.store.names for run in self.runs}
        generated = (run.answers for run in self.runs if not run.is_reference)
        return found | {x.folder.name: x.names for x in generated if x is not None}


def score(
    runs: Sequence[Run],
    samples: Sequence[Sample],
    reader: Reader,
    devices: Devices,
    *,
    team: Team,
    stop: Stop,
) -> Scored:
    """Computes, for every run, what samples lack there.

    Runs of one model share its weights and the decoded clips. Several models do so too
    where they fit the devices together; else the weights of one are freed before those
    of the next are read, and clips are decoded for each. Of several processes each
    scores its share, and all wait for one another at the end.

    Args:
      runs: Those of one model follow one another, a reference model's last; batch size,
        workers and optical flow are those of the first.
      samples: The clips of the corpus with the texts that are asked about them.
      reader: Reads the clips' frames.
      devices: The devices to run on.
      team: The processes of this audit or study.
      stop: Looked at between batches, as is whether another process ended early.

    Raises:
      AuditError: Nothing can be computed, such as for lack of memory.
      RunStopped: The devices, or another process, failed; what was scored is stored.
      KeyboardInterrupt: This process or another was asked to stop; what was sent is
        stored.
    """
    failures: list[Failure] = []
    lacking: list[Failure] = []
    contents, used = Contents(reader), None
    for its in _together(runs, devices):
        driver = _Driver(its, reader, contents, devices, team, stop)
        try:
            used = driver.score(samples) or used
        except JaxRuntimeError as error:
            raise RunStopped(memory.one_line(error)) from error
        failures += driver.failed.failures
        lacking += driver.failed.lacking
    failures, lacking = map(failing.merged, team.everyones([failures, lacking]))
    if team.is_first:
        runs = confirmed(runs, samples, contents, failures, lacking)
    return Scored(list(runs), failures, lacking, used)


def _together(runs: Sequence[Run], devices: Devices) -> list[list[Run]]:
    """Returns which runs are scored at once: those of a model, or all if all fit."""
    by_model = [list(x) for _, x in itertools.groupby(runs, lambda run: id(run.model))]
    if len(by_model) == 1:
        return by_model
    if devices.hold(sum(its[0].model.num_bytes for its in by_model)):
        return [list(runs)]
    logging.info(
        "the models do not fit the devices together: one is scored after the other, "
        "and clips are decoded %s",
        "twice" if len(by_model) == 2 else f"{len(by_model)} times",
    )
    return by_model


class _Driver:
    """Scores the samples of runs whose models lie on the devices together.

    Attributes:
      failed: So far.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        reader: Reader,
        contents: Contents,
        devices: Devices,
        team: Team,
        stop: Stop,
    ):
        # What needs most memory goes first, so that a lack of it is found early.
        self._runs = sorted(runs, key=lambda run: -run.num_frames)
        self._reader, self._contents, self._devices = reader, contents, devices
        self._team, self._stop = team, stop
        self._settings = runs[0].settings
        self.failed = Failed(self._runs)
        self._meter = Meter(runs[0].model)
        self._generating: dict[int, answering.Answering] = {}
        self._missing: dict[str, dict[int, Missing]] = {}  # By clip, by run's place.

    @property
    def _spanning(self) -> bool:
        return self._devices.num_processes > 1

    def score(self, samples: Sequence[Sample]) -> Utilisation | None:
        """Scores what is missing; returns how the devices were used."""
        self._missing = {sample.clip.key: self._lacks(sample) for sample in samples}
        todo = [sample for sample in samples if self._missing[sample.clip.key]]
        self._log(samples, todo)
        everything, rounds = todo, 0
        if any(run.answers is not None for run in self._runs):
            # A process needs the answers that it has itself generated.
            own, _ = processes.share(samples, [x.clip.key for x in samples])
            todo = [sample for sample in own if self._missing[sample.clip.key]]
        else:
            todo, most = processes.share(todo, [sample.clip.key for sample in todo])
            if self._spanning:
                size = self._devices.batch_size(self._settings.batch_size)
                rounds = -(-most // size)
        if not todo and not rounds:
            return None
        total = sum(len(self._missing[sample.clip.key]) for sample in todo)
        where = self._devices.mesh.devices.flat
        self._flow = backends.make(self._settings.motion.flow, where)
        timeline = self._meter.timeline
        watching = self._team.watching if self._spanning else contextlib.nullcontext
        with self._meter, watching():
            loaded = self._load()
            self._progress = Progress(
                *(total, "scoring", "compiling, waiting for the first batch"),
                compiling=lambda: timeline.compiling,
            )
            pipelines = [
                self._pipeline(place, loaded[id(run.model)], everything)
                for place, run in enumerate(self._runs)
            ]
            batches = pipeline.stream(
                timeline.awaiting(self._inputs(todo, loaded), CLIPS),
                pipelines,
                rounds=rounds,
                stopped=lambda: (
                    self._stop.asked
                    or self._team.has_ended()
                    or self._flow_failure() is not None
                ),
            )
            for place, results in self._stop.between(batches):
                self._store(place, results)
        if (failure := self._flow_failure()) is not None:
            raise RunStopped(f"the optical flow of clips in a row failed: {failure}")
        for each in self._generating.values():
            each.close(complete=not self._stop.asked)
        self._generating = {}
        self._progress.close()
        used = self._meter.result(self._devices, self._settings.workers)
        if used is not None:
            used.log()
        return used

    def _flow_failure(self) -> ClipError | None:
        flow = self._flow
        return flow.failure if isinstance(flow, backends.OnDevices) else None

    def _lacks(self, sample: Sample) -> dict[int, Missing]:
        found = (self._contents.missing(sample, run) for run in self._runs)
        return {place: each for place, each in enumerate(found) if each}

    def _log(self, samples: Sequence[Sample], todo: Sequence[Sample]) -> None:
        logging.info(
            "%d clips, %d scored before", len(samples), len(samples) - len(todo)
        )
        if asked := sum(len(sample.texts) for sample in samples):
            lacking = (
                {text.key for each in its.values() for text in each.texts}
                for its in self._missing.values()
            )
            logging.info(
                "%d texts about them, %d scored before",
                *(asked, asked - sum(map(len, lacking))),
            )
        for model in {id(run.model): run.model for run in self._runs}.values():
            for remark in model.remarks:
                logging.warning("checkpoint: %s", printable(remark))

    def _load(self) -> dict[int, LoadedModel]:
        """Reads the tensors of every model, by its identity."""
        loaded: dict[int, LoadedModel] = {}
        for model in {id(run.model): run.model for run in self._runs}.values():
            loaded[id(model)] = memory.loaded(model, self._devices)
        return loaded

    def _pipeline(
        self, place: int, loaded: LoadedModel, samples: Sequence[Sample]
    ) -> Pipeline:
        run = self._runs[place]
        video, text = run.computed.video, run.computed.text
        return Pipeline(
            loaded,
            self._devices,
            batch_size=self._settings.batch_size,
            num_frames=run.num_frames,
            second=SECOND in (video or ()),
            text_second=SECOND in (text or ()),
            blank=BLANK in (text or ()),
            slices=run.computed.slices,
            against=run.settings.video.against,
            stored=functools.partial(_any_stored, run),
            timeline=self._meter.timeline,
            only=self._only(place, samples) if self._spanning else None,
        )

    def _only(self, place: int, samples: Sequence[Sample]) -> Padded:
        """Returns the shape that holds every sample that a run lacks."""
        run, video = self._runs[place], False
        shapes: list[TextShape] = []
        for sample in samples:
            its = self._missing[sample.clip.key].get(place, Missing())
            video = video or its.video
            asked = [Tokenised(x, run.model.tokenise(x)) for x in its.texts]
            shape = text_shape(run.model, asked, run.computed.slices)
            shapes += [shape] if shape else []
        largest = TextShape(*map(max, zip(*shapes, strict=True))) if shapes else None
        more = room_for_times(run.model, run.num_frames)
        tiling = run.model.tiling
        room = tiling.largest(run.num_frames) if tiling else None
        return Padded(run.num_frames, video, largest, more, room)

    def _inputs(
        self, todo: Sequence[Sample], loaded: Mapping[int, LoadedModel]
    ) -> Iterator[list[tuple[int, Input]]]:
        """Yields the inputs of every sample, for each run that lacks something."""
        held = answering.bytes_on_a_device(*loaded.values())
        self._generating = {
            place: answering.Answering(run, loaded[id(run.model)], self._devices, held)
            for place, run in enumerate(self._runs)
            if run.answers is not None and not run.is_reference
        }
        decoded = self._decoded(todo)
        for sample, found in answering.answered(decoded, self._runs, self._generating):
            inputs: list[tuple[int, Input]] = []
            for place, each in found:
                if isinstance(each, ClipError):
                    self._fail(sample, each, [place])
                    continue
                try:
                    one, errors = preparing.tokenised(each, self._runs[place])
                except ClipError as error:
                    self._fail(sample, error, [place])
                    continue
                for key, error in errors.items():
                    self._fail(sample, error, [place], {key}, times=0)
                if one.texts or one.video:
                    inputs.append((place, one))
                else:
                    self._progress.add(1, failed=1)
            yield inputs

    def _decoded(
        self, todo: Sequence[Sample]
    ) -> Iterator[tuple[Sample, list[tuple[int, Prepared | ClipError]]]]:
        """Yields every sample that can be decoded, with what each run needs of it."""

        def prepare(sample: Sample) -> list[tuple[int, Prepared | ClipError]]:
            lacks = self._missing[sample.clip.key]
            return preparing.prepare(
                sample, lacks, self._runs, self._reader, self._flow, self._meter.stages
            )

        def stopped() -> bool:
            return self._stop.asked and not self._spanning

        workers = self._settings.workers
        for sample, found in loader.load_ahead(todo, prepare, workers, stopped):
            if stopped():
                return
            if isinstance(found, ClipError):
                self._fail(sample, found, list(self._missing[sample.clip.key]))
            else:
                yield sample, found

    def _store(self, place: int, results: Sequence[Result]) -> None:
        run = self._runs[place]
        good: list[ScoredClip] = []
        with self._meter.timeline.spending(FLOW):
            for result in results:
                try:
                    good.append(preparing.scored(result))
                except ClipError as error:
                    self._fail(result.key.sample, error, [place])
                else:
                    self._meter.computed(
                        result.key.shown,
                        run.model,
                        video=result.signals is not None,
                        texts=result.lengths,
                    )
        if good:
            with self._meter.timeline.spending(STORING):
                run.store.write(good, run.computed.slices)
            self._progress.add(len(good))

    def _fail(
        self,
        sample: Sample,
        error: ClipError,
        places: Sequence[int],
        keys: Set[str] | None = None,
        times: int = 1,
    ) -> None:
        """Lists a sample that failed in some runs; see `Failed.add`.

        `times` is how often the progress counts each run.
        """
        lacks = self._missing[sample.clip.key]
        self.failed.add(sample, error, {k: lacks[k] for k in places}, keys)
        self._progress.add(times * len(places), failed=times * len(places))


def _any_stored(run: Run) -> bool:
    return any(run.store.folder.glob("part-*.parquet"))
