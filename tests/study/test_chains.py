"""Runs of a study that begin with other runs: their order, and chains that are refused."""

import pytest
import yaml
from tiny_training import write_config, write_data

from sepml.cli import main
from sepml.commands.tasks import study_task_of
from sepml.errors import SepmlError
from sepml.study.chains import ranks
from sepml.study.plan import read_study


def plan(folder, **changes):
    write_config(folder / "base.yaml", write_data(folder / "data"))
    variants = {"last": {"peers.0.init": "{run:middle}/peer1"}, "middle": {"peers.0.init": "{run:first}"}, "first": {}}
    content = {"base": "base.yaml", "variants": variants, "seeds": 2, "tests": {"cv": "cv.csv"}, **changes}
    (folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "study.yaml"


def test_a_run_is_made_after_those_that_it_begins_with(tmp_path):
    study = read_study(plan(tmp_path), study_task_of)
    assert {run.name: run.rank for run in study.runs if run.seed == 1} == {"last/seed1": 2, "middle/seed1": 1, "first/seed1": 0}


def test_ranks_are_the_longest_way():
    assert ranks({"a": {"b", "d"}, "b": {"c"}, "c": set(), "d": set()}) == {"a": 2, "b": 1, "c": 0, "d": 0}


CIRCLE = {"a": {"peers.0.init": "{run:b}"}, "b": {"peers.0.init": "{run:a}"}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"variants": {"a": {"peers.0.init": "{run:b}"}, "b": {"peers.0.init": "{run:a}"}}},
            "variants.a: begins with a run that",
        ),
        ({"variants": {"a": {"peers.0.init": "{run:A}"}}}, "variants.a: '{run:A}': there is no such variant"),
        ({"seeds_of": {"first": [0]}}, "variants.middle: begins with 'first', which has no seed 1"),
    ],
)
def test_bad_chains(tmp_path, changes, message):
    with pytest.raises(SepmlError) as caught:
        read_study(plan(tmp_path, **changes), study_task_of)
    assert str(caught.value).startswith(f"{tmp_path / 'study.yaml'}: {message}")


def test_parts_of_chains_are_refused(tmp_path, capsys):
    assert main(["study", str(plan(tmp_path)), "-o", str(tmp_path / "out"), "--part", "1/2", "-q"]) == 1
    assert "study.yaml: runs begin with other runs, which may be in other parts" in capsys.readouterr().err
