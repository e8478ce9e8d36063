"""The report of an audit as a Python object, for programs and notebooks."""

import dataclasses
import functools
import importlib
import pathlib
from typing import Any

from vidsme_jax.base import AuditError, Failure, ScoreTable
from vidsme_jax.report import files, notebook, singles, summary
from vidsme_jax.report.notebook import Picture
from vidsme_jax.report.singles import Suspect
from vidsme_jax.wording import nearest, printable

_MAX_NAME = 100  # Characters of a name in a message.


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class AuditReport:
    """The results of a run; everything is also in the work directory.

    A notebook shows it as HTML, and each of `figures` as a picture.

    Attributes:
      workdir: The work directory.
      table: The scores.
      metrics: The content of `metrics.json`.
      failures: One per row of a manifest whose clip could not be scored.
      digest: The SHA-256 of the work directory, in hex.
      figures: The figures of the report, in its order.
    """

    workdir: pathlib.Path
    table: ScoreTable
    metrics: dict[str, Any]
    failures: tuple[Failure, ...]
    digest: str
    figures: tuple[Picture, ...] = ()

    def summary(self) -> str:
        """Returns the result in a few lines, for the end of a run."""
        return summary.of_audit(
            self.metrics, len(self.failures), self.workdir, self.digest
        )

    def frame(self) -> Any:
        """Returns the scores as a `pandas.DataFrame`, one row per item.

        The columns are those of `scores.parquet`.

        Raises:
          AuditError: pandas is not installed.
        """
        try:
            importlib.import_module("pandas")  # pyarrow's own error names no remedy.
        except ImportError as error:
            raise AuditError(
                [
                    f"pandas is not installed ({error}): pip install pandas, or read "
                    f"{printable(str(self.workdir / 'scores.parquet'))} with another "
                    "program; table.scores has the same numbers as NumPy arrays"
                ]
            ) from error
        return self._columns.to_pandas()

    def clip(self, name: str) -> dict[str, Any]:
        """Returns a row of the scores as a dict, with the columns of `scores.parquet`.

        Args:
          name: The row's id.

        Raises:
          AuditError: No row has this id; names the nearest one.
        """
        found = (self.table.id == name).nonzero()[0]
        if not len(found):
            known = self.table.id.tolist()
            shown = printable(repr(name), _MAX_NAME)
            raise AuditError(
                [f"no row of the scores has the id {shown}{nearest(str(name), known)}"]
            )
        return self._columns.slice(int(found[0]), 1).to_pylist()[0]

    def suspect(self, name: str) -> Suspect:
        """Returns the result of one suspect.

        Args:
          name: The name of its video, or the id of one of its rows.

        Raises:
          AuditError: There is no such suspect; names its role, or the nearest name.
        """
        return singles.suspect(self.metrics, self.table, name)

    @functools.cached_property
    def _columns(self) -> Any:
        return files.scores_of(self.table)[0]

    def __repr__(self) -> str:
        """Returns verdict and folder in one line; `summary` has more."""
        verdict = self.metrics["verdict"] or "of suspects"
        return f"AuditReport({verdict}, workdir={printable(str(self.workdir))!r})"

    def _repr_html_(self) -> str:
        """Returns the HTML that a notebook shows."""
        return notebook.of_audit(self.metrics, len(self.failures), self.workdir)
