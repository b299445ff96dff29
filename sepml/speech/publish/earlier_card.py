"""The model card that a model came with: what it says of training, sources and scores holds for copies as well."""

import re
from dataclasses import dataclass

from sepml.errors import SepmlError
from sepml.speech.models.origin import Origin
from sepml.system.yaml_files import parse_yaml

_OURS = ("Use", "Networks")
_FENCE = re.compile(r"(```.*?^```)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class EarlierCard:
    """What is carried over.

    Attributes:
        license: of the weights; empty where the card names none.
        sections: Markdown, each with its heading; those that every card has anew are left out.
    """

    license: str
    sections: list[str]


def card_of(origin: Origin | None) -> EarlierCard | None:
    """The card of sepml's that lies with the models, or in the folder above one of several; None where there is none."""
    if origin is None:
        return None
    for folder in dict.fromkeys([origin.path, origin.path.resolve().parent]):
        try:
            card = parse((folder / "README.md").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            continue
        if card is not None:
            return card
    return None


def parse(text: str) -> EarlierCard | None:
    """The facts of a model card; None when it is not one of sepml's.

    >>> parse("---\\nlibrary_name: sepml\\nlicense: other\\n---\\n# x\\n\\n## Use\\n\\na\\n\\n## Sources\\n\\nb\\n")
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
    # A line in a code block is no heading.
    for piece in _FENCE.split(text[found.end() :]):
        head, *new = [piece] if piece.startswith("```") else re.split(r"^(?=## )", piece, flags=re.MULTILINE)
        if sections:
            sections[-1] += head
        sections += new
    kept = [section.strip() for section in sections if section.splitlines()[0].removeprefix("## ").strip() not in _OURS]
    return EarlierCard(str(facts.get("license") or ""), kept)
