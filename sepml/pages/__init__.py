"""HTML pages: templates with their values, style sheets and scripts as they are, and content inside of a page."""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup


def render(template: str, **values: Any) -> Markup:
    """A template with its values, which are escaped unless they are rendered templates; without a newline at the end."""
    return Markup(_environment().get_template(template).render(**values))


def read_template(name: str) -> str:
    """A style sheet or a script as it is."""
    return (files("sepml.pages") / "templates" / name).read_text(encoding="utf-8")


def script_hash(script: str) -> str:
    """The hash of the page's script for its content security policy, so that no other script runs."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}"


def data_uri(kind: str, content: bytes) -> str:
    """Bytes as a data URI, such as `data:image/png;base64,...`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


@cache
def _environment() -> Environment:
    loader = PackageLoader("sepml.pages", "templates")
    return Environment(loader=loader, autoescape=select_autoescape(), undefined=StrictUndefined, trim_blocks=True)
