"""The folder of an evaluation: `evaluation.csv`, a table, and `evaluation.json`, the experiment that it is of."""

from pathlib import Path
from typing import Any

import torch

from sepml.errors import SepmlError
from sepml.system.files import write_csv, write_json
from sepml.system.readers import read_object
from sepml.system.stamp import Request
from sepml.system.tables import markdown
from sepml.training.hardware import environment

Table = list[dict[str, Any]]
"""Rows with the same columns: column name -> value."""
_TABLE, _FACTS = "evaluation.csv", "evaluation.json"


def claim_evaluation(exp: Path, out: Path, force: bool) -> None:
    """Refuse a folder that holds the evaluation of another experiment, unless `force`.

    Args:
        exp: folder of the run.

    Raises:
        SepmlError: it does.
    """
    Request({"experiment": str(exp.resolve())}).claim(out, "an evaluation", _evaluated(out / _FACTS), force)


def write_evaluation(exp: Path, out: Path, table: Table, device: str) -> None:
    """Write the table of an evaluation and what it was computed from, and on."""
    write_csv(out / _TABLE, list(table[0]), [list(row.values()) for row in table])
    write_json(out / _FACTS, {"experiment": str(exp.resolve()), **environment(torch.device(device))})


def _evaluated(file: Path) -> dict[str, str] | None:
    """The experiment that an `evaluation.json` is of; None where there is no such file."""
    try:
        return {"experiment": str(read_object(file)["experiment"])}
    except FileNotFoundError:
        return None
    except (SepmlError, KeyError):
        return {"experiment": f"unknown ({file.name} does not name it)"}


def format_rows(table: Table) -> str:
    """A table as text; fractions with two decimals."""
    rows = [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row.values()] for row in table]
    return markdown([list(table[0]), *rows])
