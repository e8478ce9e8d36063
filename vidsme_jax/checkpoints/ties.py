"""Whether a decoder's output layer is its embedding, as `transformers` 5 decides it.

The config's `tie_word_embeddings` says what the model was; the files say what is
stored. Of a tied model one of the two tensors is enough, and if both are there and
differ, both count. https://github.com/huggingface/transformers (`tie_weights`)
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

    A tied model of which only the output layer is stored gets it as its embedding. Only
    where both are stored are they read, to be compared.

    Args:
      checkpoint: Without tensors (a model to be drawn) nothing is decided.
      canonical: See `loading.Names`.
      embedding: Canonical name of the embedding.
      head: Canonical name of the output layer.
      tied: What the config says.
      problems: Receives what is wrong.
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
        remark = f"{last} is the embedding too (tie_word_embeddings)"
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
