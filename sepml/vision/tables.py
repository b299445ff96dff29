"""The folder of an evaluation: `evaluation.csv`, its table, and `evaluation.json`, which names the experiment."""

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
_NOTE = "evaluation.json"


def claim_evaluation(exp: Path, out: Path, device: str, force: bool) -> dict[str, Any]:
    """What is noted of the evaluation of an experiment.

    Args:
        force: overwrite the evaluation of another experiment.

    Raises:
        SepmlError: `out` holds the evaluation of another experiment.
    """
    facts = {"experiment": str(exp.resolve()), **environment(torch.device(device))}
    Request({"experiment": facts["experiment"]}).claim(out, "an evaluation", _evaluated(out / _NOTE), force)
    return facts


def write_evaluation(out: Path, table: Table, facts: dict[str, Any]) -> None:
    """Write the table of an evaluation and what is noted of it, see `claim_evaluation`."""
    write_csv(out / "evaluation.csv", list(table[0]), [list(row.values()) for row in table])
    write_json(out / _NOTE, facts)


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
