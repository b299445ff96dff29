"""One page about scores and training: tables, plots, players, in a single HTML file that needs nothing else."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sepml.errors import SepmlError
from sepml.speech.report.contents import History, ScoreFolder, Test, find_contents
from sepml.speech.report.players import RUNS, choose, players_of
from sepml.speech.report.rendering import read_template, render, script_hash
from sepml.speech.report.sections import metrics_of, plots, summary, training
from sepml.speech.results.scores import COLUMNS, Values
from sepml.speech.results.tables import decimals_of, title
from sepml.system.files import write_text
from sepml.system.terminal import track
from sepml.version import __version__

MOST_BYTES = 14_500_000
"""The page stays below this: players are left out when it is reached, and the page says so."""
_MOST_VALUES = 400_000
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline';"
_SECTIONS = {"summary": "Summary", "training": "Training", "listen": "Listen", "plots": "Plots", "table": "Utterances"}


@dataclass(frozen=True)
class ReportSettings:
    """What a report shows.

    Attributes:
        players: utterances to listen to: this many of the best, of the worst and of the others, for each test; 0 is none.
        seed: of the choice of the others.
        heading: of the page; empty is a heading that names the folders.
    """

    players: int = 2
    seed: int = 0
    heading: str = ""


def write_report(paths: Sequence[Path], out: Path, settings: ReportSettings | None = None) -> int:
    """Write one self-contained HTML page about score folders and experiments, written atomically.

    Args:
        paths: folders of scores (`sepml score`), and experiments (`sepml train`), whose scores/<test>/<peer> are found too.
        out: the HTML file.

    Returns:
        the size of the page, bytes; at most 15 MB. The page names audio files that no longer exist.

    Raises:
        SepmlError: a path holds neither, a file in it cannot be read, or the page cannot be written.
    """
    settings = settings or ReportSettings()
    if not paths:
        raise SepmlError("a report needs a folder of scores or of an experiment; none was given")
    if Path(out).suffix.lower() not in (".html", ".htm"):
        raise SepmlError(f"{out}: a report is a web page, expected a name that ends in .html")
    tests, histories = find_contents(paths)
    heading = settings.heading or ", ".join(dict.fromkeys(Path(path).resolve().name for path in paths))
    data, cut = _data(tests)
    script = read_template("players.js") + read_template("report.js")
    parts = {"summary": summary(tests), "training": training(histories), "plots": plots(tests)}
    parts["table"] = render("table.html") if tests else Markup()
    around = sum(len(part.encode()) for part in (*parts.values(), data, script)) + 40_000
    parts["listen"] = _listen(tests, settings, MOST_BYTES - around)
    page = render(
        "report.html",
        **{"heading": heading, "kind": _kind(tests, histories), "version": __version__},
        date=datetime.now(UTC).astimezone().strftime("%Y-%m-%d %H:%M"),
        policy=f"{_POLICY} script-src '{script_hash(script)}'",
        style=read_template("base.css") + read_template("report.css"),
        parts={name: parts[name] for name in _SECTIONS if parts[name]},
        **{"sections": _SECTIONS, "cut": cut, "data": data, "script": script},
    )
    write_text(Path(out), page)
    return len(page.encode())


def _kind(tests: Sequence[Test], histories: Sequence[History]) -> str:
    """What the page reports: separation, or training of anything else."""
    metrics = {column for columns in COLUMNS.values() for column in columns}
    validated = {name.removeprefix("valid_") for history in histories for name in history.columns}
    return "separation" if tests or validated & metrics else "training"


def _listen(tests: Sequence[Test], settings: ReportSettings, room: int) -> Markup:
    """Players for each test in turn, as long as there is room (bytes)."""
    if not tests or not settings.players:
        return Markup()
    columns = [_leading(test.runs[0]) for test in tests]
    picks = [choose(test.runs[0], column, settings.players, settings.seed) for test, column in zip(tests, columns, strict=True)]
    waiting = [players_of(test, of, c, f"u{t}") for t, (test, of, c) in enumerate(zip(tests, picks, columns, strict=True))]
    made: list[dict[str, list[Markup]]] = [{"best": [], "worst": [], "random": []} for _ in tests]
    turns = [(t, of[k].why) for k in range(max(map(len, picks))) for t, of in enumerate(picks) if k < len(of)]
    left_out = 0
    for count, (t, why) in enumerate(track(turns, "players")):
        utterance = next(waiting[t])
        room -= len(utterance.encode())
        if room < 0:
            left_out = len(turns) - count
            break
        made[t][why].append(utterance)
    blocks = []
    for test, column, of_test in zip(tests, columns, made, strict=True):
        most = f" Estimates of the first {RUNS} of {len(test.runs)} score folders." if len(test.runs) > RUNS else ""
        how = f"Chosen by {title(column)} of {test.runs[0].label}.{most}"
        blocks.append({"title": test.title, "how": how, "utterances": [text for of in of_test.values() for text in of]})
    return render("listen.html", each=settings.players, seed=settings.seed, left_out=left_out, blocks=blocks)


def _data(tests: Sequence[Test]) -> tuple[str, str]:
    """The numbers for the page's script as JSON, and a sentence on what was left out to limit the page's size."""
    runs = [run for test in tests for run in test.runs]
    scores = [run.scores for run in runs]
    size = sum(len(of.ids) * (len(of.columns) + len(of.by_source)) for of in scores)
    with_sources = size <= _MOST_VALUES
    least = sum(len(of.ids) * (len(of.columns) + 1) for of in scores)
    longest = max((len(of.ids) for of in scores), default=0)
    rows = max(1, longest * _MOST_VALUES // least) if least > _MOST_VALUES else None
    cut = []
    if not with_sources and any(of.by_source for of in scores):
        cut.append("The scores of each source are left out of the table.")
    if rows is not None:
        cut.append(f"The table holds the first {rows} mixtures of each score folder.")
    content = {
        "tests": [{"title": test.title, "runs": [_run(run, with_sources, rows) for run in test.runs]} for test in tests],
        "columns": [{"key": c, "title": title(c), "decimals": decimals_of(c)} for c in metrics_of(runs)],
        "sources": [
            {"key": c, "title": title(c), "decimals": decimals_of(c.rpartition("_")[0])}
            for c in dict.fromkeys(column for of in scores for column in of.by_source)
        ],
    }
    # A name with "</script>" in it would end the block.
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return text, " ".join([*cut, "scores.csv has everything."]) if cut else ""


def _run(run: ScoreFolder, with_sources: bool, rows: int | None) -> dict[str, Any]:
    def short(values: Values) -> Values:
        return [None if value is None else round(value, 4) for value in values[:rows]]

    scores = run.scores
    return {
        "label": run.label,
        "ids": scores.ids[:rows],
        "columns": {name: short(values) for name, values in scores.columns.items()},
        "sources": {name: short(values) for name, values in scores.by_source.items()} if with_sources else {},
        "reasons": {i: reason for i, reason in enumerate(scores.reasons[:rows]) if reason},
    }


def _leading(run: ScoreFolder) -> str:
    """The metric that utterances are chosen by."""
    return "si_snri" if "si_snri" in run.scores.columns else next(iter(run.scores.columns))
