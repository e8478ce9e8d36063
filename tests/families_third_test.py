"""What every family can do: a third of the families."""

import pytest

from families import TINY, Capabilities

pytestmark = [pytest.mark.usefixtures("without_figures"), pytest.mark.long]


class TestThird(Capabilities):
    """See `families`."""

    names = TINY[2::3]
