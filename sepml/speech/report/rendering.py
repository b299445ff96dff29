"""Pieces of pages that are made from the templates in `templates/`."""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from sepml.speech.report import spectrograms


def render(template: str, **values: Any) -> Markup:
    """A template with its values, which are escaped but for those that were rendered themselves; ends without a new line."""
    return Markup(_environment().get_template(template).render(**values))


def read_template(name: str) -> str:
    """A style sheet or a script as it is."""
    return (files("sepml.speech.report") / "templates" / name).read_text(encoding="utf-8")


def script_hash(script: str) -> str:
    """The hash of a script in the page for its content security policy, so that no other script runs."""
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
) -> Markup:
    """The HTML of one signal (T,): a waveform, a spectrogram and an audio element that plays `source`.

    Args:
        peak, loudest_db: the scale, see `spectrograms`.
        download: the name under which the file is saved, empty for no link; given, the signal has buttons Solo and Mute.
    """
    image = spectrograms.data_uri("image/png", spectrograms.spectrogram(x, rate, loudest_db))
    wave = spectrograms.waveform(x, peak)
    shown = {"name": name, "note": note, "wave": wave, "image": image, "khz": f"{rate / 2000:g}"}
    return render("signal.html", source=source, download=download, **shown)


@cache
def _environment() -> Environment:
    loader = PackageLoader("sepml.speech.report", "templates")
    return Environment(loader=loader, autoescape=select_autoescape(), undefined=StrictUndefined, trim_blocks=True)
