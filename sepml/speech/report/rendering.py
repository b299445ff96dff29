"""Pieces of pages that are made from the templates in `templates/`."""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from sepml.speech.report import spectrograms


def render(template: str, **values: Any) -> str:
    """A template with its values, which are escaped."""
    return _environment().get_template(template).render(**values)


def read_template(name: str) -> str:
    """A style sheet or a script as it is."""
    return (files("sepml.speech.report") / "templates" / name).read_text(encoding="utf-8")


def script_hash(script: str) -> str:
    """What a content security policy calls a script inside the page, so that no other one runs."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}"


def player(
    name: str,
    x: spectrograms.Samples,
    rate: int,
    peak: float,
    loudest_db: float | None,
    source: str,
    note: str = "",
    download: str | None = None,
) -> str:
    """The HTML of one signal (T,): a waveform, a spectrogram and an audio element that plays `source`.

    Args:
        peak, loudest_db: the scale, see `pictures`.
        download: the name of the file for whom saves it, empty where there is no need to; given, the signal can be heard
            alone or muted.
    """
    image = spectrograms.data_uri("image/png", spectrograms.spectrogram(x, rate, loudest_db))
    wave = spectrograms.waveform(x, peak)
    shown = {"name": name, "note": note, "wave": wave, "image": image, "khz": f"{rate / 2000:g}"}
    return render("signal.html", source=source, download=download, **shown)


@cache
def _environment() -> Environment:
    loader = PackageLoader("sepml.speech.report", "templates")
    return Environment(loader=loader, autoescape=select_autoescape(), undefined=StrictUndefined, trim_blocks=True)
