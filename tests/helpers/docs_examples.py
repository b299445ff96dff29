"""The Python examples on the pages in docs/."""

import re
from pathlib import Path

PAGES = sorted((Path(__file__).resolve().parents[2] / "docs").glob("*.md"))
TITLED = re.compile(r'^```(\w+) title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
"""A block that is the content of a file, or of kind `diff` a change of one; the title is the file's path."""
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


def follow(name: str, root: Path) -> None:
    """Make the files that a page shows and apply its changes, in a folder that holds a copy of the project."""
    for kind, path, body in TITLED.findall((PAGES[0].parent / name).read_text(encoding="utf-8")):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(changed(file.read_text(encoding="utf-8"), body) if kind == "diff" else body, encoding="utf-8")


def changed(text: str, diff: str) -> str:
    """A text after a change, whose parts are divided by `@@`; each part must fit one place and no other."""
    for part in diff.split("@@\n"):
        lines = part.splitlines()
        before, after = ("".join(f"{line[1:]}\n" for line in lines if line[0] in marks) for marks in (" -", " +"))
        assert text.count(before) == 1, f"this is not there once:\n{before}"
        text = text.replace(before, after)
    return text
