"""Model cards: training data, settings, environment and scores of a model, from its run or from its earlier card."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from sepml.config import read_yaml
from sepml.errors import SepmlError
from sepml.speech.models.load import DEFAULT, Origin
from sepml.speech.models.model import SeparationModel
from sepml.speech.results.summary import Summary, read_summary
from sepml.speech.results.tables import format_table, title
from sepml.system.csv_files import read_rows
from sepml.system.readers import parse_yaml, read_object
from sepml.version import __version__

_TAGS = ("audio", "speech-separation", "audio-source-separation", "sepml")
_METRICS = {metric: title(metric).removesuffix(" dB") for metric in ("si_snri", "sdri", "stoi", "estoi", "pesq")}
_WRITTEN_ANEW = ("Use", "Networks")
_FENCE = re.compile(r"(```.*?^```)", re.MULTILINE | re.DOTALL)
_USE = """```python
from sepml import Separator

separator = Separator.from_pretrained({name})
est_sources = separator.separate(waveform, sample_rate)  # (T,) of any rate, length and level -> ({n_src}, T)
```"""


@dataclass(frozen=True)
class EarlierCard:
    """The facts of the card that came with a model, which also hold for its copies.

    Attributes:
        license: of the weights; empty if the card names none.
        sections: Markdown with headings, without those that are written anew for each card.
    """

    license: str
    sections: list[str]


def make_card(
    models: Sequence[SeparationModel],
    origin: Origin | None = None,
    license: str = "",
    name: str = "",
    notes: str = "",
    saved_to: str = "",
) -> str:
    """A model card (README.md) with the Hub's metadata.

    If the models come from a run, the card has its settings (config.yaml), machine, versions and commit (environment.json),
    epochs (history.csv), scores (summary.json below scores/) and the licences of the corpus. Otherwise these sections are
    copied from the card that came with the models, if there is one.

    Args:
        license: of the weights, as the Hub spells it; by default that of the earlier card, or else mit.
        name: of the model; by default that of the folder to which it is saved or from which it was loaded.
        notes: Markdown, put before all sections.
        saved_to: the folder or the repository of the models, for the example.

    Raises:
        SepmlError: a file of the run cannot be read.
    """
    run = next((folder for folder in _folders(origin) if (folder / "config.yaml").is_file()), None)
    came_with = None if run else _card_of(origin)
    license = license or (came_with.license if came_with else "") or "mit"
    name = name or Path(saved_to).name or (origin.path.resolve().name if origin else "") or "separator"
    scores = _scores(run) if run else {}
    own = "ensemble" if len(models) > 1 else origin.parts[0].name if origin else ""
    parts = [
        _metadata(name, license, models[0], {test: rows[own] for test, rows in scores.items() if own in rows}),
        f"# {name}\n\n{_summary(models)}",
        notes.strip(),
        "## Use\n\n" + _USE.format(name=_loadable(origin, saved_to, name, len(models)), n_src=models[0].config.n_src),
        _networks(models),
        *(f"## Scores, {test}\n\n{format_table(rows)}" for test, rows in scores.items()),
    ]
    if run:
        parts += [_training(run), _sources(run), _environment(run / "environment.json")]
    if came_with:
        parts += came_with.sections
    return "\n\n".join(part for part in parts if part) + "\n"


def _loadable(origin: Origin | None, saved_to: str, name: str, n_models: int) -> str:
    """The argument of `from_pretrained` for these models; those that come with sepml need none."""
    if origin and origin.path == DEFAULT and not saved_to:
        return "" if n_models > 1 else "single=True"
    return json.dumps(saved_to or name, ensure_ascii=False)


def _summary(models: Sequence[SeparationModel]) -> str:
    config = models[0].config
    together = f"{len(models)} networks whose estimates are averaged" if len(models) > 1 else "one network"
    return (
        f"Separates a recording of {config.n_src} people who talk at once into a signal each, at {config.sample_rate} Hz: "
        f"{together}. Written by sepml {__version__}, a toolkit for speech separation by selective mutual learning."
    )


def _metadata(name: str, license: str, model: SeparationModel, scores: dict[str, Summary]) -> str:
    content: dict[str, Any] = {"license": license, "library_name": "sepml", "pipeline_tag": "audio-to-audio"}
    content["tags"] = [*_TAGS, model.config.kind]
    found = [metric for metric in _METRICS if any(metric in summary.columns for summary in scores.values())]
    content["metrics"] = [_METRICS[metric] for metric in found] or ["SI-SNRi"]
    results = [
        {
            "task": {"type": "audio-to-audio", "name": "speech separation"},
            "dataset": {"name": test, "type": test},
            "metrics": [
                {"name": _METRICS[metric], "type": metric, "value": round(mean, 3)}
                for metric in found
                if metric in summary.columns and (mean := summary.columns[metric].mean) is not None
            ],
        }
        for test, summary in scores.items()
    ]
    if results:
        content["model-index"] = [{"name": name, "results": results}]
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---"


def _networks(models: Sequence[SeparationModel]) -> str:
    lines = ["## Networks", ""]
    for number, model in enumerate(models, 1):
        weights = sum(weight.numel() for weight in model.parameters())
        settings = ", ".join(f"{key} {value}" for key, value in asdict(model.config).items())
        lines.append(f"{number}. {weights:,} parameters: {settings}")
    return "\n".join(lines)


def _folders(origin: Origin | None) -> list[Path]:
    """The folder of the models and the one above, such as an experiment's."""
    return list(dict.fromkeys([origin.path, origin.path.resolve().parent])) if origin else []


def _scores(run: Path) -> dict[str, dict[str, Summary]]:
    """test -> label (peer1, ensemble) -> summary."""
    found: dict[str, dict[str, Summary]] = {}
    for file in sorted((run / "scores").glob("*/*/summary.json")):
        found.setdefault(file.parents[1].name, {})[file.parent.name] = read_summary(file.parent)
    return found


def _training(run: Path) -> str:
    settings = read_yaml(run / "config.yaml")
    # Absolute paths of this machine are private, and useless elsewhere.
    data = settings.get("data")
    if isinstance(data, dict) and "root" in data:
        settings["data"] = {**data, "root": Path(str(data["root"])).name}
    for peer in settings.get("peers") or ():
        if isinstance(peer, dict) and Path(str(peer.get("init"))).is_absolute():
            peer["init"] = Path(peer["init"]).name
    text = yaml.safe_dump(settings, sort_keys=False)
    return f"## Training\n\n{_epochs(run / 'history.csv')}The run's settings:\n\n```yaml\n{text}```"


def _epochs(file: Path) -> str:
    if not file.is_file():
        return ""
    rows = [row for _, row in read_rows(file, "history of sepml train", ("epoch", "valid_si_snri"))]
    try:
        last = max(int(row["epoch"]) for row in rows)
        best = max(float(row["valid_si_snri"]) for row in rows if row["valid_si_snri"])
    except ValueError as error:
        raise SepmlError(f"{file}: not a history of sepml train; the model card needs it") from error
    return f"{last} epochs; the best peer had {best:.2f} dB of SI-SNRi on the validation mixtures.\n\n"


def _sources(run: Path) -> str:
    """The speakers and licences of the corpus, if it is on this machine."""
    data = read_yaml(run / "config.yaml").get("data")
    root = data.get("root") if isinstance(data, dict) else None
    if root is None:
        return ""
    for folder in (Path(root), *Path(root).parents):
        notice = folder / "LICENSES" / "README.txt"
        if notice.is_file():
            return f"## Sources\n\n```\n{notice.read_text(encoding='utf-8').strip()}\n```"
    return ""


def _environment(file: Path) -> str:
    if not file.is_file():
        return ""
    try:
        content = read_object(file)
        versions = ", ".join(f"{package} {version}" for package, version in content["versions"].items())
        rows = {key: content[key] for key in ("commit", "device", "cpu", "machine", "python")}
    except (KeyError, AttributeError) as error:
        raise SepmlError(f"{file}: not the environment of a run; the model card needs it") from error
    return "## Environment\n\n" + "\n".join(f"- {key}: {value}" for key, value in {**rows, "versions": versions}.items())


def _card_of(origin: "Origin | None") -> EarlierCard | None:
    """The card, written by sepml, in the folder of the models or the one above; None if there is none."""
    for folder in _folders(origin):
        try:
            card = parse_card((folder / "README.md").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            continue
        if card is not None:
            return card
    return None


def parse_card(text: str) -> EarlierCard | None:
    """The facts of a model card; None if sepml did not write it.

    >>> parse_card("---\\nlibrary_name: sepml\\nlicense: other\\n---\\n# x\\n\\n## Use\\n\\na\\n\\n## Sources\\n\\nb\\n")
    EarlierCard(license='other', sections=['## Sources\\n\\nb'])
    """
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    try:
        facts = parse_yaml(found[1], "README.md") if found else None
    except SepmlError:
        return None
    if found is None or not isinstance(facts, dict) or facts.get("library_name") != "sepml":
        return None
    sections: list[str] = []
    # A line in a code block is not a heading.
    for piece in _FENCE.split(text[found.end() :]):
        head, *new = [piece] if piece.startswith("```") else re.split(r"^(?=## )", piece, flags=re.MULTILINE)
        if sections:
            sections[-1] += head
        sections += new
    kept = [section.strip() for section in sections if section.splitlines()[0].removeprefix("## ").strip() not in _WRITTEN_ANEW]
    return EarlierCard(str(facts.get("license") or ""), kept)
