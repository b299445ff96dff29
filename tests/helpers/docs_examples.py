"""The Python examples on the pages in docs/."""

import re
from pathlib import Path

PAGES = sorted((Path(__file__).resolve().parents[2] / "docs").glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(name: str) -> dict[str, object]:
    """Run a page's examples; the names that they leave."""
    names: dict[str, object] = {}
    page = next(page for page in PAGES if page.name == name)
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        line = text[: block.start(1)].count("\n")
        exec(compile("\n" * line + block[1], str(page), "exec"), names)
    return names
