"""The audited model's own answers: generated in batches, stored, then scored.

It reads the clips that the loader has decoded, before the pipelines do.
"""

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence

import jax
from absl import logging

from vidsme_jax.base import Asked, AuditError, ClipError, Sample
from vidsme_jax.models import generation
from vidsme_jax.models.interface import LoadedModel
from vidsme_jax.parallel import Devices, JaxRuntimeError, in_gib
from vidsme_jax.run import memory
from vidsme_jax.run.isolation import Isolation
from vidsme_jax.run.preparing import Prepared
from vidsme_jax.run.runs import Run
from vidsme_jax.run.stacking import Group, Input, Padded, Stacker, Tokenised
from vidsme_jax.store.answers import Answer, Answers

_Found = tuple[Sample, list[tuple[int, Prepared | ClipError]]]
_Answered = tuple[Prepared, Prepared | ClipError]  # Without and with its answers.


class Answering:
    """Generates the answers of one run.

    Attributes:
      run: Whose model answers; its store of answers is written.
    """

    def __init__(self, run: Run, loaded: LoadedModel, devices: Devices, held: int):
        """Compiles nothing yet.

        Args:
          run: With a store of answers.
          loaded: The run's model, on the devices.
          devices: The devices that run it.
          held: Bytes of the parameters of all models on a device.
        """
        assert run.answers is not None
        self.run, self._answers = run, run.answers
        self._loaded, self._devices = loaded, devices
        self._limit = run.settings.response_tokens
        step = generation.greedy(
            loaded.graphdef, limit=self._limit, ends=run.model.ends
        )
        self._step = devices.runner(step)
        self._stacker = Stacker(
            run.model, num_frames=run.num_frames, slices=(), against=None
        )
        self._held = held
        self._sizes: dict[Padded, int] = {}
        self._waiting: dict[Padded, list[Input]] = collections.defaultdict(list)
        model, answers = run.model, run.answers
        self._isolation = Isolation(
            lambda error, shape: memory.first_batch(
                *(error, model, devices, run.settings.batch_size, run.num_frames),
                shape,
            ),
            batch_size=run.settings.batch_size,
            stored=lambda: bool(answers),
        )

    @property
    def failure(self) -> Exception | None:
        """Why nothing more can be generated; None while all is well."""
        return self._isolation.failure

    def add(self, prepared: Prepared) -> list[_Answered]:
        """Adds a sample that lacks answers; returns those of its batch if it is full.

        A question that cannot be tokenised is its sample's failure.
        """
        tokenise = self.run.model.tokenise
        try:
            texts = tuple(Tokenised(x, tokenise(x)) for x in prepared.awaiting)
        except AuditError as error:
            cause = "; ".join(error.problems)
            return [(prepared, ClipError("preprocess", cause))]
        clip = prepared.input(texts)
        shape = self._stacker.shape(clip)
        waiting = self._waiting[shape]
        waiting.append(clip)
        if len(waiting) < self._size(shape):
            return []
        return self._generate(Group(shape, self._waiting.pop(shape)))

    def rest(self) -> list[_Answered]:
        """Returns the answers of batches that are not full."""
        groups = [Group(shape, clips) for shape, clips in self._waiting.items()]
        self._waiting.clear()
        return [each for group in groups for each in self._generate(group)]

    def close(self, *, complete: bool) -> None:
        """Ends the run; see `Isolation.close`."""
        self._isolation.close(complete=complete)

    def _size(self, shape: Padded) -> int:
        """Returns the clips of a batch: as many as have room for their keys."""
        if shape not in self._sizes:
            devices, model = self._devices, self._loaded
            most = devices.batch_size(self.run.settings.batch_size) // devices.num_data
            of_a_clip = generation.cache_bytes(
                *(model.graphdef, model.state),
                *(self._stacker.trunk(shape), shape.texts),
                *(self._limit, devices.mesh.shape["model"]),
            )
            fitting = generation.fit(devices.memory(), self._held, of_a_clip, most)
            self._sizes[shape] = fitting * devices.num_data
            logging.info(
                "answers of at most %d tokens, %d clips at a time; their keys and "
                "values take %s a device",
                *(self._limit, self._sizes[shape], in_gib(of_a_clip * fitting)),
            )
        return self._sizes[shape]

    def _generate(self, group: Group) -> list[_Answered]:
        """Returns the samples of a batch with their answers, which are stored first."""
        if self.failure is not None:
            return []
        batch, _ = self._stacker.batch(group, self._size(group.shape))
        compiled = False
        try:
            out = self._step(self._loaded.state, batch)
            compiled = True
            host = self._devices.fetch(out)
        except JaxRuntimeError as error:
            return self._isolation.failed(
                group,
                error,
                compiled=compiled,
                again=self._generate,
                result=lambda clip, error: (clip.key, error),
            )
        self._isolation.succeeded(group)
        rows = [
            self._said(clip.key, found)
            for k, clip in enumerate(group.clips)
            for found in [generation.answers(host, k, len(clip.texts))]
        ]
        self._answers.write(answer for row in rows for answer in row)
        return [(clip.key, known(clip.key, self._answers)) for clip in group.clips]

    def _said(self, prepared: Prepared, found: list[generation.Answer]) -> list[Answer]:
        return [
            Answer(
                key=prepared.sample.clip.key,
                text=text.key,
                content_hash=prepared.content_hash,
                ids=answer.ids,
                ended=answer.ended,
                answer=self.run.model.decode(answer.ids),
            )
            for text, answer in zip(prepared.awaiting, found, strict=True)
        ]


def answered(
    coming: Iterable[_Found],
    runs: Sequence[Run],
    generating: Mapping[int, Answering],
) -> Iterator[_Found]:
    """Yields samples whose texts have their answers, which may change the order.

    Of a reference model the texts get the answers of the audited one, as far as there
    are any. After a failure that ends the run nothing more is yielded.

    Args:
      coming: Samples with what each run needs of them.
      runs: All, by place.
      generating: What generates the answers of some runs, by place.
    """
    # Of each clip that lacks answers: what is known, and the places that lack some.
    held: dict[str, tuple[Sample, dict[int, Prepared | ClipError], set[int]]] = {}

    def settled(place: int, results: Sequence[_Answered]) -> Iterator[_Found]:
        for before, after in results:
            key = before.sample.clip.key
            sample, found, lacking = held[key]
            found[place] = after
            lacking.discard(place)
            if not lacking:
                del held[key]
                yield sample, [(k, _known(x, runs[k])) for k, x in found.items()]

    for sample, found in coming:
        whole = {place: _known(each, runs[place]) for place, each in found}
        lacking = {
            place: each
            for place, each in whole.items()
            if place in generating and isinstance(each, Prepared) and each.awaiting
        }
        if not lacking:
            yield sample, list(whole.items())
            continue
        held[sample.clip.key] = sample, whole, set(lacking)
        for place, each in lacking.items():
            yield from settled(place, generating[place].add(each))
        if any(each.failure is not None for each in generating.values()):
            return
    for place, each in generating.items():
        yield from settled(place, each.rest())


def _known(each: Prepared | ClipError, run: Run) -> Prepared | ClipError:
    if isinstance(each, ClipError) or run.answers is None:
        return each
    return known(each, run.answers)


def known(prepared: Prepared, answers: Answers) -> Prepared:
    """Returns a sample with those of its answers that are stored."""
    found: dict[str, Asked] = {}
    for text in prepared.awaiting:
        place = prepared.sample.clip.key, text.key, prepared.content_hash
        if (answer := answers.find(*place)) is not None:
            found[text.key] = answer.completes(text)
    return prepared.completed(found)


def bytes_on_a_device(*models: LoadedModel) -> int:
    """Returns the bytes of the parameters of some models that lie on one device."""
    leaves = [leaf for model in models for leaf in jax.tree.leaves(model.state)]
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
