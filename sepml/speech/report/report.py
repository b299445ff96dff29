"""One page about scores and training: tables, plots, players, in a single HTML file that needs nothing else."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from sepml.errors import SepmlError
from sepml.speech.report.players import RUNS, choose, shown
from sepml.speech.report.rendering import read_template, script_hash
from sepml.speech.report.scores import Scores, Test, Values, find, title
from sepml.speech.report.sections import columns_of, decimals_of, plots, summary, training
from sepml.system.files import write_text
from sepml.system.terminal import track
from sepml.version import __version__

MOST_BYTES = 14_500_000
"""The page stays below this: players are left out when it is reached, and the page says so."""
_MOST_VALUES = 400_000
_SECTIONS = {"summary": "Summary", "training": "Training", "listen": "Listen", "plots": "Plots", "table": "Utterances"}


@dataclass(frozen=True)
class Settings:
    """What a report shows.

    Attributes:
        players: utterances to listen to: this many of the best, of the worst and of the others, for each test; 0 is none.
        seed: of the choice of the others.
        heading: of the page; empty is a heading that names the folders.
    """

    players: int = 2
    seed: int = 0
    heading: str = ""


def write_report(paths: Sequence[Path], out: Path, settings: Settings | None = None) -> int:
    """Write one self-contained HTML page about score folders and experiments, whole or not at all.

    Args:
        paths: folders of scores (`sepml score`), and experiments (`sepml train`), whose scores/<test>/<peer> are found too.
        out: the HTML file.

    Returns:
        the size of the page, bytes; at most 15 MB. Audio that is not there any more is said on the page.

    Raises:
        SepmlError: a path holds neither, a file in it cannot be read, or the page cannot be written.
    """
    settings = settings or Settings()
    if not paths:
        raise SepmlError("a report needs a folder of scores or of an experiment; none was given")
    if Path(out).suffix.lower() not in (".html", ".htm"):
        raise SepmlError(f"{out}: a report is a web page, expected a name that ends in .html")
    tests, histories = find(paths)
    heading = settings.heading or ", ".join(dict.fromkeys(Path(path).resolve().name for path in paths))
    parts = [summary(tests), training(histories), plots(tests), _table(tests)]
    data, cut = _data(tests)
    script = read_template("players.js") + read_template("report.js")
    around = sum(len(part.encode()) for part in (*parts, data, script)) + 40_000
    parts.insert(2, _listen(tests, settings, MOST_BYTES - around))
    page = _page(heading, [part for part in parts if part], data, script, cut)
    write_text(Path(out), page)
    return len(page.encode())


def _page(heading: str, parts: Sequence[str], data: str, script: str, cut: str) -> str:
    date = datetime.now(UTC).astimezone().strftime("%Y-%m-%d %H:%M")
    policy = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
    policy += f"script-src '{script_hash(script)}'"
    there = (name for name in _SECTIONS if any(part.startswith(f'<section id="{name}"') for part in parts))
    links = "".join(f'<a href="#{name}">{_SECTIONS[name]}</a>' for name in there)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(heading)}: separation report</title>\n"
        f"<style>{read_template('base.css')}{read_template('report.css')}</style></head>\n"
        f'<body><header><h1>{escape(heading)}</h1><p class="soft">Separation report by sepml {escape(__version__)}, {date}.</p>'
        f'<nav aria-label="sections">{links}</nav></header>\n<main>\n{chr(10).join(parts)}\n{cut}</main>\n'
        f'<script type="application/json" id="data">{data}</script>\n<script>{script}</script>\n</body></html>\n'
    )


def _listen(tests: Sequence[Test], settings: Settings, room: int) -> str:
    """Players for each test in turn, as long as there is room (bytes)."""
    if not tests or not settings.players:
        return ""
    columns = [_leading(test.runs[0]) for test in tests]
    picks = [choose(test.runs[0], column, settings.players, settings.seed) for test, column in zip(tests, columns, strict=True)]
    waiting = [shown(test, of, c, f"u{t}") for t, (test, of, c) in enumerate(zip(tests, picks, columns, strict=True))]
    made: list[list[tuple[str, str]]] = [[] for _ in tests]
    total = sum(map(len, picks))
    turns = [t for k in range(max(map(len, picks))) for t in range(len(tests)) if k < len(picks[t])]
    for count, t in enumerate(track(turns, "players")):
        text = next(waiting[t])
        room -= len(text.encode())
        if room < 0:
            left_out = f"<p>{total - count} more are left out, to keep the page below 15 MB.</p>"
            break
        made[t].append((picks[t][len(made[t])].why, text))
    else:
        left_out = ""
    blocks = []
    for test, column, of in zip(tests, columns, made, strict=True):
        ordered = "".join(text for wanted in ("best", "worst", "random") for why, text in of if why == wanted)
        most = f" Estimates of the first {RUNS} of {len(test.runs)} score folders." if len(test.runs) > RUNS else ""
        said = f"Chosen by {title(column)} of {test.runs[0].label}.{most}"
        blocks.append(f'<h3>{escape(test.title)}</h3><p class="soft">{escape(said)}</p>{ordered}')
    how = (
        f"Of each test the {settings.players} best, the {settings.players} worst and {settings.players} random mixtures (seed "
        f"{settings.seed}). Spectrograms reach from 0 to half the sampling rate over 70 dB, on the scale of the mixture; "
        "waveforms too. Click into a picture to play from there."
    )
    return f'<section id="listen"><h2>Listen</h2><p class="soft">{how}</p>{left_out}{"".join(blocks)}</section>'


def _table(tests: Sequence[Test]) -> str:
    """The frame of the table of utterances, which the page's script fills."""
    if not tests:
        return ""
    hint = "Words are looked for in the name; <code>si_snri&lt;3</code> and the like in the scores."
    return (
        '<section id="table"><h2>Utterances</h2><div class="controls"><label>Show<select id="view"></select></label>'
        '<label>Filter<input type="search" id="filter" placeholder="name or si_snri&lt;3" aria-describedby="hint"></label>'
        '<label class="check"><input type="checkbox" id="sources"> each source</label></div>'
        f'<p class="soft" id="hint">{hint} Click a heading to sort. <b id="count" role="status" aria-live="polite"></b></p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="scores of each utterance"><table id="rows"><thead></thead>'
        '<tbody></tbody></table></div><div class="pages"><button type="button" id="previous">Previous</button>'
        '<button type="button" id="next">Next</button></div>'
        "<noscript><p>The table needs JavaScript; the same figures are in scores.csv.</p></noscript></section>"
    )


def _data(tests: Sequence[Test]) -> tuple[str, str]:
    """The numbers for the page's script as JSON, and a paragraph that says what was left out to keep the page small."""
    runs = [run for test in tests for run in test.runs]
    size = sum(len(run.ids) * (len(run.columns) + len(run.by_source)) for run in runs)
    with_sources = size <= _MOST_VALUES
    least = sum(len(run.ids) * (len(run.columns) + 1) for run in runs)
    longest = max((len(run.ids) for run in runs), default=0)
    rows = max(1, longest * _MOST_VALUES // least) if least > _MOST_VALUES else None
    cut = []
    if not with_sources and any(run.by_source for run in runs):
        cut.append("The scores of each source are left out of the table.")
    if rows is not None:
        cut.append(f"The table holds the first {rows} mixtures of each score folder.")
    content = {
        "tests": [{"title": test.title, "runs": [_run(run, with_sources, rows) for run in test.runs]} for test in tests],
        "columns": [{"key": c, "title": title(c), "decimals": decimals_of(c)} for c in columns_of(runs)],
        "sources": [
            {"key": c, "title": title(c), "decimals": decimals_of(c.rpartition("_")[0])}
            for c in dict.fromkeys(column for run in runs for column in run.by_source)
        ],
    }
    # A name with "</script>" in it would end the block.
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return text, f"<p>{escape(' '.join([*cut, 'scores.csv has everything.']))}</p>" if cut else ""


def _run(run: Scores, with_sources: bool, rows: int | None) -> dict[str, Any]:
    def short(values: Values) -> Values:
        return [None if value is None else round(value, 4) for value in values[:rows]]

    return {
        "label": run.label,
        "ids": run.ids[:rows],
        "columns": {name: short(values) for name, values in run.columns.items()},
        "sources": {name: short(values) for name, values in run.by_source.items()} if with_sources else {},
        "reasons": {i: reason for i, reason in enumerate(run.reasons[:rows]) if reason},
    }


def _leading(run: Scores) -> str:
    """The metric that utterances are chosen by."""
    return "si_snri" if "si_snri" in run.columns else next(iter(run.columns))
