"""The pages of the studies that are committed say what their results say, and so does the README's table."""

import re
import shutil
from pathlib import Path

import pytest

from sepml.cli import main

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted(folder.parent for folder in (ROOT / "recipes").glob("*/studies/*/results"))


def table(text: str) -> list[list[str]]:
    """The cells of a table's rows, without its head."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return rows[2:]


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_the_page_is_that_of_the_results(folder, tmp_path):
    shutil.copytree(folder / "results", tmp_path / "results")
    plan = folder.parents[1] / f"{folder.name}.yaml"
    assert main(["study", str(plan), "-o", str(tmp_path), "--report", "--data.root", str(tmp_path / "absent"), "-q"]) == 0
    assert (tmp_path / "RESULTS.md").read_text() == (folder / "RESULTS.md").read_text()


def test_the_table_of_the_readme_is_that_of_the_study():
    study = (ROOT / "recipes/prompts-2mix/studies/study/RESULTS.md").read_text()
    seen, unseen = (dict((row[0], row) for row in table(part)) for part in re.split(r"^## ", study, flags=re.M)[1:])
    readme = (ROOT / "README.md").read_text()
    shown = table(readme[readme.index("| SI-SNRi, dB, 8 seeds |") :].partition("\n\n")[0])
    # variant, peers' own scores, their gain over solo with its interval, and their average's score.
    wanted = [[name, *(cell for test in (seen, unseen) for cell in _cells(test[name]))] for name in seen]
    assert shown == wanted


def _cells(row: list[str]) -> list[str]:
    average, peers, own, interval = row[2], row[3], row[11], row[12]
    return [peers, f"{own} ({interval})" if own else "", average]
