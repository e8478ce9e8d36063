"""What every family can do: a third of the families."""

import pytest

from families import TINY, Capabilities

pytestmark = [pytest.mark.usefixtures("without_figures"), pytest.mark.long]


class TestFirst(Capabilities):
    """See `families`."""

    names = TINY[0::3]
