"""The files of an evaluation of an experiment: a table, and which experiment it is of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sepml.errors import SepmlError
from sepml.system.files import write_csv, write_json
from sepml.system.readers import read_object
from sepml.system.stamp import Request
from sepml.training.hardware import environment

_STAMP, _TABLE = "evaluation.json", "evaluation.csv"


class Evaluation:
    """A folder for the evaluation of an experiment; that of another one is overwritten by `force` only.

    Args:
        exp: folder of the experiment. device: on which it is evaluated.

    Raises:
        SepmlError: the folder holds the evaluation of another experiment.
    """

    def __init__(self, exp: Path, out: Path, device: str, force: bool = False) -> None:
        self.out, self.facts = out, {"experiment": str(exp.resolve()), **environment(torch.device(device))}
        Request({"experiment": self.facts["experiment"]}).claim(out, "an evaluation", self._made_of(), force)

    def _made_of(self) -> dict[str, str] | None:
        """The experiment that the folder holds an evaluation of; None where there is none."""
        try:
            return {"experiment": str(read_object(self.out / _STAMP)["experiment"])}
        except FileNotFoundError:
            return None
        except (SepmlError, KeyError):
            return {"experiment": f"unknown ({_STAMP} does not name it)"}

    def write(self, table: Sequence[dict[str, Any]]) -> None:
        """Write the table, rows with the same columns: column name -> value."""
        write_csv(self.out / _TABLE, list(table[0]), [list(row.values()) for row in table])
        write_json(self.out / _STAMP, self.facts)
