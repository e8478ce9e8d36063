"""Decides whether a decoder's output layer is its embedding, as `transformers` 5 does.

A model is tied if the config's `tie_word_embeddings` is true, unless the files hold
both tensors and they differ: then both are used. A tied model needs only one of them.
https://github.com/huggingface/transformers (`tie_weights`)
"""

import dataclasses
from collections.abc import Callable

from vidsme_jax.checkpoints.files import Checkpoint


def settle(
    checkpoint: Checkpoint,
    canonical: Callable[[str], str],
    embedding: str,
    head: str,
    *,
    tied: bool,
    problems: list[str],
) -> tuple[Checkpoint, bool]:
    """Returns the checkpoint and whether its output layer is its embedding.

    A tied model with a stored output layer only gets it as its embedding. The tensors
    are read, to be compared, only if both are stored.

    Args:
      checkpoint: Opened; without tensors (random weights) `tied` is returned.
      canonical: See `loading.Names`.
      embedding: Canonical name of the embedding.
      head: Canonical name of the output layer.
      tied: `tie_word_embeddings` of the config.
      problems: Receives the problem of an untied model without an output layer.
    """
    by_name = {canonical(name): name for name in checkpoint.tensors}
    first, last = by_name.get(embedding), by_name.get(head)
    tensors = checkpoint.tensors
    if not tied:
        if first is not None and last is None:
            problems.append(
                f"no {head}, and tie_word_embeddings is false or absent in "
                "config.json: transformers would draw the output layer at random; if "
                f"the model shares {first}, set tie_word_embeddings to true there"
            )
        return checkpoint, tied
    if last is None:
        return checkpoint, tied
    if first is None:
        tensors = {name: info for name, info in tensors.items() if name != last}
        tensors[embedding] = checkpoint.tensors[last]
        remark = f"{last} is also the embedding (tie_word_embeddings)"
    elif tensors[first].equals(tensors[last]):
        return checkpoint, tied
    else:
        remark = (
            f"tie_word_embeddings is true, but {last} differs from {first}: both are "
            "used, as transformers 5 does"
        )
        tied = False
    remarks = (*checkpoint.remarks, remark)
    return dataclasses.replace(checkpoint, tensors=tensors, remarks=remarks), tied
