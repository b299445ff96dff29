"""The pages of the studies that are committed say what their results say, and so does the README's table."""

import re
import shutil
from pathlib import Path

import pytest

from sepml.cli import main

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted(folder.parent for folder in (ROOT / "recipes").glob("*/studies/*/results"))


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_the_page_is_that_of_the_results(folder, tmp_path):
    shutil.copytree(folder / "results", tmp_path / "results")
    plan = folder.parents[1] / f"{folder.name}.yaml"
    assert main(["study", str(plan), "-o", str(tmp_path), "--report", "--data.root", str(tmp_path / "absent"), "-q"]) == 0
    assert (tmp_path / "RESULTS.md").read_text() == (folder / "RESULTS.md").read_text()


def test_the_readme_says_what_the_study_says():
    study = (ROOT / "recipes/prompts-2mix/studies/study/RESULTS.md").read_text()
    found = re.search(
        r"relative minus solo, peers, tt_seen: (\S+) dB, 95 % interval (\S+) to (\S+) dB, p = (\S+) \(8 seeds", study
    )
    assert found
    difference, low, high, p_value = found.groups()
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"decided on beforehand: {difference} dB, 95 % {low} to {high}, p = {p_value})" in readme
