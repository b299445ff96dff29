"""The report page: the numbers, pictures and sounds in it, what it does without some of them, and hostile names."""

import base64
import csv
import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from html_page import Page
from score_folders import RATE, write_audio, write_folder, write_history, write_quality

from sepml import cli
from sepml.errors import SepmlError
from sepml.speech.report import contents, report
from sepml.speech.report.contents import find_contents, read_score_folder
from sepml.speech.report.players import choose
from sepml.speech.report.report import ReportSettings, write_report

IDS = ["anna_bert", "carl_dora", "emil_fred", "gina_hans"]
SI_SNRI = [3.5, -1.25, 9.75, 6.0]
COLUMNS = {"si_snr": [3.0, -1.5, 9.0, 6.5], "si_snri": SI_SNRI, "stoi": [0.8, None, 0.95, 0.9]}


def bytes_of(address: str) -> bytes:
    return base64.b64decode(address.partition("base64,")[2])


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Path:
    """exp/ with a history and scores of two peers on one test, and all audio. Read only."""
    root = tmp_path_factory.mktemp("report")
    inputs = write_audio(root, IDS)
    write_history(root / "exp")
    reasons = {"carl_dora": "stoi_1: too short"}
    write_folder(root / "exp/scores/tt_seen/peer1", IDS, COLUMNS, inputs, reasons=reasons)
    other = {"si_snr": [1.0, 2.0, 3.0, 4.0], "si_snri": [1.0, 2.5, 3.0, 4.0]}
    write_folder(root / "exp/scores/tt_seen/peer2", IDS, other, inputs)
    return root / "exp"


@pytest.fixture(scope="module")
def page(experiment, tmp_path_factory) -> Page:
    out = tmp_path_factory.mktemp("page") / "report.html"
    assert write_report([experiment], out, ReportSettings(players=1)) == out.stat().st_size
    return Page(out)


def test_the_page_needs_nothing_else(page):
    addresses = [value for _, a in page.tags for name, value in a.items() if name in ("src", "href", "action", "data")]
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    assert "@import" not in page.text and "url(" not in page.text
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'") and "http" not in policy


def test_the_numbers_are_those_of_the_scores(page):
    (test,) = page.data["tests"]
    assert test["title"] == "tt_seen" and [run["label"] for run in test["runs"]] == ["peer1", "peer2"]
    first = test["runs"][0]
    assert first["ids"] == IDS and first["columns"] == COLUMNS
    assert first["sources"]["si_snri_2"] == SI_SNRI and first["sources"]["stoi_1"] == COLUMNS["stoi"]
    assert first["reasons"] == {"1": "stoi_1: too short"}
    assert [c["title"] for c in page.data["columns"]] == ["SI-SNR dB", "SI-SNRi dB", "STOI"]


def test_the_summary_has_means_of_what_exists(page):
    words = "".join(page.words)
    # (0.8 + 0.95 + 0.9) / 3 and (3.5 - 1.25 + 9.75 + 6) / 4; peer2 has no STOI.
    assert "0.883" in words and "4.50" in words and "median 4.75" in words
    assert "95 % 1.50 to 2.50" in words and "\N{EN DASH}" in words
    assert "peer1: STOI does not exist for 1 of 4 mixtures." in words


def test_what_is_heard_is_what_was_scored(page, experiment):
    shown = [a for a in page.all("details") if a.get("class") == "utterance"]
    assert [a["data-id"] for a in shown][:2] == ["emil_fred", "carl_dora"]
    # The best one: mixture, two sources, two estimates of each peer, which stand in reverse order in their files.
    sounds = [soundfile.read(io.BytesIO(bytes_of(a["src"])), dtype="int16") for a in page.all("audio")[:7]]
    root = experiment.parent
    files = ["mix/emil_fred", "s1/emil_fred", "s2/emil_fred", *["est/emil_fred_s2", "est/emil_fred_s1"] * 2]
    for (x, rate), file in zip(sounds, files, strict=True):
        assert rate == RATE
        np.testing.assert_array_equal(x, soundfile.read(root / f"{file}.wav", dtype="int16")[0])
    labels = [a["aria-label"] for a in page.all("audio")[:5]]
    assert labels == ["mixture", "source 1", "source 2", "peer1: estimate of source 1", "peer1: estimate of source 2"]


def test_curves_of_the_training(page):
    names = [a.get("aria-label") for a in page.all("svg")]
    assert {"gate open, fraction by epoch", "threshold by epoch", "learning rate by epoch"} <= {*names}
    assert "training loss, negative SI-SNR, dB by epoch" in names and "validation, SI-SNRi dB by epoch" in names


def test_names_cannot_break_out(tmp_path):
    evil = ['<script>alert(1)</script>"', "</script><img src=x onerror=alert(2)>", "a\" onclick=\"b' onclick='b", "plain"]
    for place in ("<b>one</b>", "two"):
        inputs = {"manifest": "<i>gone</i>.csv", "est": '"><u>'}
        write_folder(tmp_path / "all" / place.replace("/", ""), evil, {"si_snri": SI_SNRI}, inputs, reasons={evil[0]: "<hr>"})
    write_report([tmp_path / "all"], tmp_path / "r.html", ReportSettings(heading="<h1>&"))
    page = Page(tmp_path / "r.html")
    assert len(page.scripts) == 2 and page.data["tests"][0]["runs"][0]["ids"] == evil
    assert not {"b", "i", "u", "hr"} & {tag for tag, a in page.tags if "id" not in a and tag != "b"}
    assert not [a for tag, a in page.tags if tag == "img" and not (a["src"] or "").startswith("data:")]
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    assert [a["data-id"] for a in page.all("details") if "data-id" in a].count(evil[1]) == 1


def test_audio_that_is_gone_is_said(tmp_path):
    inputs = write_audio(tmp_path, IDS)
    write_folder(tmp_path / "scores", IDS, COLUMNS, inputs)
    (tmp_path / "est/emil_fred_s1.wav").unlink()
    (tmp_path / "mix/carl_dora.wav").write_bytes(b"nonsense")
    write_report([tmp_path / "scores"], tmp_path / "r.html", ReportSettings(players=1))
    words = "".join(Page(tmp_path / "r.html").words)
    assert "No audio of scores: " in words and "emil_fred_s1.wav: no longer exists" in words
    assert "No audio of mixture: " in words and "mix/carl_dora.wav" in words
    (tmp_path / "tt_seen.csv").unlink()
    write_report([tmp_path / "scores"], tmp_path / "r.html")
    assert not Page(tmp_path / "r.html").all("audio")


def test_audio_is_found_from_where_the_scoring_ran(tmp_path, monkeypatch):
    write_audio(tmp_path, IDS)
    write_folder(tmp_path / "exp/scores/tt/peer1", IDS, COLUMNS, {"mix": "mix", "ref": "s1 s2", "est": "est"})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    write_report([tmp_path / "exp/scores"], tmp_path / "r.html", ReportSettings(players=1))
    assert len(Page(tmp_path / "r.html").all("audio")) == 3 * 5


def test_three_speakers_and_one_utterance(tmp_path):
    inputs = write_audio(tmp_path, IDS[:1], n_src=3)
    write_folder(tmp_path / "scores", IDS[:1], {"si_snri": [4.0]}, inputs, n_src=3)
    write_report([tmp_path / "scores"], tmp_path / "r.html", ReportSettings(players=5))
    page = Page(tmp_path / "r.html")
    assert len(page.all("audio")) == 1 + 3 + 3
    assert {"si_snri_1", "si_snri_2", "si_snri_3"} == {*page.data["tests"][0]["runs"][0]["sources"]}


def test_nothing_was_scored(tmp_path):
    write_folder(tmp_path / "scores", IDS, {"si_snri": [None] * 4, "sdr": [None] * 4})
    write_report([tmp_path / "scores"], tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    assert page.data["tests"][0]["runs"][0]["columns"]["sdr"] == [None] * 4 and not page.all("audio")


def test_a_column_that_is_no_metric_is_not_listed(tmp_path):
    """`surplus` names estimates; it is empty, or holds their numbers."""
    folder = write_folder(tmp_path / "scores", IDS, COLUMNS)
    with (folder / "scores.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    for cells in ([""] * len(rows), ["3", *[""] * (len(rows) - 1)]):
        with (folder / "scores.csv").open("w", newline="") as file:
            csv.writer(file).writerows([[*header, "surplus"], *([*row, cell] for row, cell in zip(rows, cells, strict=True))])
        write_report([folder], tmp_path / "r.html", ReportSettings(players=0))
        assert "surplus" not in (tmp_path / "r.html").read_text()


def test_an_experiment_without_scores(tmp_path):
    write_history(tmp_path / "exp", epochs=1)
    write_report([tmp_path / "exp"], tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    assert page.data["tests"] == [] and not page.all("table") and len(page.all("svg")) > 2


def test_the_title_says_what_was_done(page, tmp_path):
    assert "exp: separation report" in page.text and "Separation report by sepml" in page.text
    write_history(tmp_path / "voices")
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits/history.csv").write_text("epoch,peer,train_cross_entropy,valid_accuracy\n1,1,2.5,0.5\n")
    for name, kind in (("voices", "separation"), ("digits", "training")):
        write_report([tmp_path / name], tmp_path / "r.html")
        text = (tmp_path / "r.html").read_text()
        assert f"<title>{name}: {kind} report</title>" in text and f"{kind.capitalize()} report by sepml" in text


def test_only_the_named_interval_is_shown_as_one(tmp_path):
    folder = write_folder(tmp_path / "scores", IDS, {"si_snri": SI_SNRI})
    summary = json.loads((folder / "summary.json").read_text())
    summary["columns"]["si_snri"]["interval_95"] = None
    (folder / "summary.json").write_text(json.dumps(summary))
    write_report([folder], tmp_path / "r.html", ReportSettings(players=0))
    words = "".join(Page(tmp_path / "r.html").words)
    assert "std 1.25" in words and "95 %" not in words


def test_many_rows_stay_small_and_fast(tmp_path):
    rng = np.random.default_rng(0)
    ids = [f"speaker{i:05}_and_another_with_a_long_name" for i in range(5000)]
    for peer in ("peer1", "peer2", "peer3"):
        columns = {name: list(rng.normal(5, 3, 5000)) for name in ("si_snr", "si_snri", "sdr", "sdri", "stoi", "pesq")}
        write_folder(tmp_path / "scores" / peer, ids, columns)
    start = time.process_time()
    size = write_report([tmp_path / "scores"], tmp_path / "r.html")
    assert time.process_time() - start < 4 and size < 6_000_000
    assert len(Page(tmp_path / "r.html").data["tests"][0]["runs"][2]["ids"]) == 5000


def test_a_table_too_large_is_cut_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "_MOST_VALUES", 6)
    write_folder(tmp_path / "scores", IDS, COLUMNS)
    write_report([tmp_path / "scores"], tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    run = page.data["tests"][0]["runs"][0]
    assert run["ids"] == IDS[:1] and run["sources"] == {}
    assert "The table holds the first 1 mixtures of each score folder." in "".join(page.words)


def test_players_stop_below_the_limit(tmp_path, monkeypatch):
    write_folder(tmp_path / "scores", IDS, COLUMNS, write_audio(tmp_path, IDS, seconds=2.0))
    whole = write_report([tmp_path / "scores"], tmp_path / "r.html", ReportSettings(players=2))
    monkeypatch.setattr(report, "MOST_BYTES", whole - 10_000)
    assert write_report([tmp_path / "scores"], tmp_path / "s.html", ReportSettings(players=2)) < whole - 10_000
    page = Page(tmp_path / "s.html")
    assert 0 < len(page.all("audio")) < 4 * 5 and "are left out" in "".join(page.words)


def test_long_and_loud_audio(tmp_path):
    inputs = write_audio(tmp_path, IDS[:1], seconds=25.0)
    soundfile.write(tmp_path / "est/anna_bert_s1.wav", np.full(25 * RATE, 2.0), RATE, subtype="FLOAT")
    write_folder(tmp_path / "scores", IDS[:1], {"si_snri": [1.0]}, inputs)
    write_report([tmp_path / "scores"], tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    x, _ = soundfile.read(io.BytesIO(bytes_of(page.all("audio")[4]["src"])))
    assert len(x) == 20 * RATE and x.max() == pytest.approx(1, abs=1e-4)
    words = "".join(page.words)
    assert "first 20 s of 25 s" in words and "turned down by 6.0 dB" in words


def test_which_utterances(tmp_path):
    values = [float(v) for v in range(20)]
    run = read_score_folder(
        write_folder(tmp_path / "s", [f"u{i:02}" for i in range(20)], {"si_snri": [*values[:-1], None]}), "s"
    )
    picks = choose(run, "si_snri", 3, seed=1)
    assert [p.index for p in picks if p.why == "best"] == [18, 17, 16]
    assert [p.index for p in picks if p.why == "worst"] == [0, 1, 2]
    assert len({p.index for p in picks}) == 9 and picks == choose(run, "si_snri", 3, seed=1)
    assert picks != choose(run, "si_snri", 3, seed=2)


def test_tests_are_told_apart(tmp_path):
    for tag in ("a", "b"):
        for test in ("seen", "unseen"):
            folder = tmp_path / tag / "scores" / test / "peer1"
            write_folder(folder, [f"{test}{i}" for i in range(3)], {"si_snri": [1, 2, 3]}, {"manifest": f"x/{test}.csv"})
    tests, histories = find_contents([tmp_path / "a", tmp_path / "b/scores", tmp_path / "a/scores/seen/peer1"])
    assert {test.title: [run.label for run in test.runs] for test in tests} == {"seen": ["a", "b"], "unseen": ["a", "b"]}
    assert histories == []


@pytest.mark.parametrize(
    "name, content, complaint",
    [
        ("scores.csv", "a,b\n1,2\n", "column 'mixture_ID' is missing"),
        ("scores.csv", "mixture_ID,si_snr\na,1,2\n", "scores.csv:2: 3 fields, expected 2"),
        ("scores.csv", "mixture_ID,si_snr\n", "has no rows"),
        ("scores.csv", "mixture_ID,reason\na,b\n", "holds no column of numbers"),
        ("summary.json", "{", "not a summary"),
        ("summary.json", "[]", "not a summary"),
        ("summary.json", None, "holds no summary.json"),
    ],
)
def test_faulty_scores(tmp_path, name, content, complaint):
    folder = write_folder(tmp_path / "scores", IDS, COLUMNS)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(SepmlError, match=complaint):
        write_report([folder], tmp_path / "r.html")
    assert [path.name for path in tmp_path.iterdir()] == ["scores"]


def test_scores_without_references(tmp_path):
    folder = write_quality(tmp_path / "exp/scores/mine")
    write_report([folder], tmp_path / "one.html")
    page = Page(tmp_path / "one.html")
    words = " ".join("".join(page.words).split())
    assert "mine: separation report" in words and "<i>a_s1.wav" in words and ("i", {}) not in page.tags
    cells = [word.strip() for word in page.words if word.strip()]
    at = cells.index("outputs")
    # Means over the outputs that have a value, and over the mixtures.
    assert cells[at + 1 : at + 8] == ["mine", "2.50", "3.25", "3.75", "\u22123.00", "6.50", "2"]
    at = cells.index("<i>a_s2.wav")
    assert cells[at + 1 : at + 8] == ["\u2013"] * 4 + ["6.50", "error 1.9", "is silent"]
    # Beside others, and below an experiment.
    write_history(tmp_path / "exp")
    write_report([tmp_path / "exp"], tmp_path / "two.html")
    sections = [a["id"] for a in Page(tmp_path / "two.html").all("section")]
    assert sections == ["quality", "training"]


@pytest.mark.parametrize(("old", "new"), [("2.5", "loud"), ("ovrl", "other")])
def test_a_damaged_table_without_references(old, new, tmp_path):
    table = write_quality(tmp_path / "scores") / "quality.csv"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(SepmlError, match=r"quality.csv:2: is no row of `sepml score` without references"):
        write_report([tmp_path / "scores"], tmp_path / "r.html")


def test_the_command(tmp_path, capsys):
    write_folder(tmp_path / "scores", IDS, COLUMNS)
    out = tmp_path / "new/r.html"
    assert cli.main(["report", str(tmp_path / "scores"), "-o", str(out), "--players", "0", "--title", "My voices"]) == 0
    assert capsys.readouterr().out == f"{out}\n" and "My voices: separation report" in out.read_text()
    for words, complaint in (
        ([str(tmp_path / "none")], "no such folder, expected a folder of scores"),
        ([str(tmp_path)], "r.txt: a report is a web page"),
        ([str(tmp_path / "new")], "holds neither scores.csv or quality.csv (`sepml score`) nor history.csv"),
        ([str(out)], "is a file, expected a folder"),
    ):
        name = "r.txt" if "r.txt" in complaint else "r2.html"
        assert cli.main(["report", *words, "-o", str(tmp_path / name)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("sepml: error: ") and complaint in error and error.count("\n") == 1
        assert not (tmp_path / name).exists()
