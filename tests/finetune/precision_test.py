"""In float32 every product of a training is one, on accelerators, too.

A GPU rounds the operands of a float32 product to 10 bits unless it says otherwise; on a
CPU the numbers cannot show it, so that the programs are read.
"""

import jax
import jax.extend.core
import jax.numpy as jnp
import pytest

from trainings import changed
from vidsme_jax.finetune import loss, preparing
from vidsme_jax.models import gradients

HIGHEST = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)


def _products(program):
    """Yields the precision of every product, those of programs inside included."""
    for eqn in program.eqns:
        if eqn.primitive.name == "dot_general":
            yield eqn.params["precision"]
        for inner in jax.extend.core.jaxprs_in_params(eqn.params):
            yield from _products(inner)


@pytest.mark.long
@pytest.mark.parametrize("method", ["full", "lora"])
def test_products_are_in_float32(example, config, tmp_path, method):
    batch = jax.tree.map(jnp.asarray, example[3])
    its = changed(config, train__method=method, train__merged=method == "lora")
    prepared = preparing.prepare(its, tmp_path)
    form = prepared.trainee.form
    leaves = prepared.trainee.start(prepared.devices.shardings(form.split), 0)

    def summed(trained, frozen):
        with gradients.wanted():
            return loss.answer_nll(form.module(trained, frozen), batch)[0].sum()

    with jax.default_matmul_precision("default"):
        program = jax.make_jaxpr(jax.grad(summed))(*leaves)
    found = list(_products(program.jaxpr))
    assert len(found) > 50 and set(found) == {HIGHEST}
