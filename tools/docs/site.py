"""Hooks of mkdocs for the documentation site.

Notebooks are run and become pages. Links that leave docs/ lead to pages made of the repository's files; a link to a file that
is not there fails the build, as do links and anchors within docs/ and whatever the built site would load from elsewhere.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
REPOSITORY = "repository"
"""The folder of the site with pages made of files outside docs/."""
CELL_SECONDS = 600
FENCE = re.compile(r"^(`{3,})[^\n]*\n.*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))(?!\{)")
"""A link, but for those with attributes: they lead to a notebook itself, not to its page."""
OUTPUT = re.compile(r"(?:^ {4}.*\n(?:[ \t]*\n)*)+", re.MULTILINE)
EXTERNAL = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
LANGUAGES = {".py": "python", ".mjs": "javascript", ".json": "json", ".yaml": "yaml", ".sh": "bash", ".csv": "text"}
PICTURES = {".png", ".svg"}
log = logging.getLogger("mkdocs.hooks.site")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of notebooks, and those of the repository's files that pages link to, directly or through each other."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb") and file.inclusion.is_included()]:
        for made in notebook_files(notebook, config):
            files.append(made)
    queue = [(DOCS / file.src_uri, file.content_string) for file in files.documentation_pages()]
    while queue:
        source, text = queue.pop()
        for target in links_of(source, text):
            uri = uri_of(target)
            if DOCS in target.parents or files.get_file_from_path(uri) is not None:
                continue
            files.append(repository_file(target, uri, config))
            if target.suffix == ".md":
                queue.append((target, target.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of a page to the pages of the site, wherever its source is in the repository."""
    source = source_of(page.file.src_uri)
    here = PurePosixPath(page.file.src_uri).parent

    def moved(found: re.Match[str]) -> str:
        target = target_of(source, found[2])
        if target is None:
            return found[0]
        relative = os.path.relpath(uri_of(target), here)
        return f"{found[1]}{relative}{found[3] or ''}{found[4]}"

    return outside_code(LINK, moved, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Name the dialog of the search, which the theme leaves without one for screen readers."""
    return output.replace('role="dialog">', 'role="dialog" aria-label="Search">', 1)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that would load anything from elsewhere."""
    for page in sorted(Path(config.site_dir).rglob("*.html")):
        if found := EXTERNAL.search(page.read_text(encoding="utf-8")):
            raise PluginError(f"{page}: loads from elsewhere: {found[0][:200]}")


def outside_code(pattern: re.Pattern[str], replacement: Callable[[re.Match[str]], str], text: str) -> str:
    """Markdown with a pattern replaced everywhere but in fenced code."""
    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [pattern.sub(replacement, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, pattern.sub(replacement, text[end:])])


def links_of(source: Path, text: str) -> Iterator[Path]:
    """The files of the repository that a page links to; a folder is its README.md."""
    for found in LINK.finditer(FENCE.sub("", text)):
        if target := target_of(source, found[2]):
            yield target


def target_of(source: Path, link: str) -> Path | None:
    """The file that a link in a file of the repository leads to; None for an address, or where there is none.

    A notebook stands for the page that is made of it. Links within docs/ are checked by mkdocs.
    """
    if re.match(r"[a-z]+:|/", link):
        return None
    target = Path(os.path.normpath(source.parent / link))
    if target.is_dir():
        target /= "README.md"
    if not target.is_file() and DOCS not in target.parents:
        log.warning("%s: link to %s, which is not a file of the repository", source.relative_to(ROOT), link)
        return None
    return target


def uri_of(target: Path) -> str:
    """Where the site has a file of the repository."""
    if DOCS in target.parents:
        page = target.with_suffix(".md") if target.suffix == ".ipynb" else target
        return page.relative_to(DOCS).as_posix()
    suffix = "" if target.suffix in {".md", *PICTURES} else ".md"
    return f"{REPOSITORY}/{target.relative_to(ROOT).as_posix()}{suffix}"


def source_of(uri: str) -> Path:
    """The inverse of `uri_of`, for a page."""
    parts = PurePosixPath(uri).parts
    if parts[0] != REPOSITORY:
        return DOCS / uri
    file = ROOT.joinpath(*parts[1:])
    return file if file.exists() else file.with_suffix("")


def repository_file(target: Path, uri: str, config: MkDocsConfig) -> File:
    """A file of the site made of one outside docs/: Markdown and pictures as they are, other text as a page that shows it."""
    kind: dict[str, Any] = {"inclusion": InclusionLevel.NOT_IN_NAV}
    if target.suffix in {".md", *PICTURES}:
        return File.generated(config, uri, abs_src_path=str(target), **kind)
    text = target.read_text(encoding="utf-8")
    shown = f"# {target.relative_to(ROOT)}\n\n`````{LANGUAGES.get(target.suffix, 'text')}\n{text}\n`````\n"
    return File.generated(config, uri, content=shown, **kind)


def notebook_files(notebook: File, config: MkDocsConfig) -> Iterator[File]:
    """Run a notebook; the page that it becomes, and the page's pictures.

    Raises:
        PluginError: a cell fails.
    """
    log.info("running %s", notebook.src_uri)
    content = nbformat.read(notebook.abs_src_path, as_version=4)
    # The code that it imports is that of the repository, whatever is installed. Of a progress bar that nobody looks at:
    os.environ |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore:IProgress not found", "OMP_WAIT_POLICY": "passive"}
    # The kernel would warn of its connection within this machine.
    client = NotebookClient(content, timeout=CELL_SECONDS, extra_arguments=["--log-level=ERROR"])
    try:
        with TemporaryDirectory() as folder:
            client.execute(cwd=folder)
    except (CellExecutionError, CellTimeoutError) as error:
        raise PluginError(f"{notebook.src_uri}: {error}") from error
    path = PurePosixPath(notebook.src_uri)
    options = {"unique_key": path.stem, "output_files_dir": f"{path.stem}_files"}
    text, resources = MarkdownExporter().from_notebook_node(content, options)
    for name, data in resources["outputs"].items():
        yield File.generated(config, str(path.parent / name), content=data)
    heading, _, rest = text.lstrip().partition("\n")
    origin = f"[The notebook]({path.name}){{ download }} was run when this page was made."
    page = f"{heading}\n\n{origin}\n\n{outside_code(OUTPUT, fenced, rest)}".replace("![png](", "![what the code above draws](")
    yield File.generated(config, str(path.with_suffix(".md")), content=page)


def fenced(output: re.Match[str]) -> str:
    """What a cell printed, which is indented, as a block that is told from code."""
    lines = [line.removeprefix("    ").rstrip() for line in output[0].strip("\n").split("\n")]
    text = re.sub(r"\n{2,}", "\n", "\n".join(lines)).strip("\n")
    return f"```{{ .text .output }}\n{text}\n```\n\n"
