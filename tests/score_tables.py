"""Small tables of one score, "s", for the tests of what is made of scores."""

import numpy as np

from vidsme_jax.base import ScoreTable


def table(
    score,
    role,
    cluster=None,
    *,
    group=None,
    phi=None,
    brightness=None,
    larger_is_member=True,
    unit=None,
    pixels=None,
    **more,
) -> ScoreTable:
    """Makes a table; each row is a video of its own without `cluster`.

    Its clips look all the same without `pixels`, columns by name.
    """
    n = len(role)
    cluster = np.array([f"hash{i}" for i in range(n)] if cluster is None else cluster)
    ones = np.ones(n)
    return ScoreTable(
        id=np.array([f"id{i}" for i in range(n)]),
        video=np.array([f"{c}.mp4" for c in cluster]),
        role=np.array(role),
        group=np.array([""] * n if group is None else group),
        cluster=cluster,
        num_rows=np.full(n, 8),
        flow_variance=ones if phi is None else np.asarray(phi, float),
        brightness_std=ones if brightness is None else np.asarray(brightness, float),
        q=ones,
        r=ones,
        scores={"s": np.asarray(score, float)},
        larger_is_member=larger_is_member,
        unit=None if unit is None else np.asarray(unit),
        traits={"pixels": pixels or {"luminance": np.zeros(n)}},
        **more,
    )
