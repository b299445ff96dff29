"""A Hugging Face Hub that lies, or something else in its place: nothing is written outside the cache, and it is one line."""

import logging
from pathlib import Path

import pytest
from hub_models import contents, refused
from hub_server import Hub, serving, use
from tiny_models import TINY, built

from sepml.speech.models.model import save_model
from sepml.speech.separation.separator import Separator

HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    """With the model lab/x, and a cache far below the folder of the test."""
    with serving() as there:
        use(there, str(tmp_path / "a/b/c/d/cache"), monkeypatch)
        save_model(tmp_path / "model", built(TINY["dprnn"]))
        there.repos["lab/x"] = {"main": contents(tmp_path / "model")}
        yield there


def outside(root: Path) -> set[str]:
    """Files below the folder of the test that are in neither the model nor the cache."""
    files = {f.relative_to(root).as_posix() for f in root.rglob("*") if f.is_file()}
    return {name for name in files if not name.startswith(("model/", "a/b/c/d/cache/"))}


@pytest.mark.parametrize("value", ["../../../escaped", "..", "a/../../../../escaped", "a\\b"])
@pytest.mark.parametrize("header", ["ETag", "X_Linked_Etag", "X_Repo_Commit"])
@pytest.mark.parametrize("quoted", ['"{}"', 'W/"{}"'])
def test_no_header_leads_out_of_the_cache(hub, tmp_path, header, value, quoted):
    hub.headers[header] = quoted.format(value) if header != "X_Repo_Commit" else value
    said = refused("lab/x")
    assert said.startswith(f"lab/x: the Hugging Face Hub ({hub.url}) sends ") and header.replace("_", "-") in said
    assert outside(tmp_path) == set()


def test_an_absolute_path_as_etag(hub, tmp_path):
    hub.headers["ETag"] = f'"{tmp_path / "escaped"}"'
    assert "expected a plain name" in refused("lab/x")
    assert outside(tmp_path) == set()


@pytest.mark.parametrize(
    "content",
    [
        {"id": "lab/x", "sha": "../../../../escaped", "siblings": []},
        {"id": "lab/x", "sha": "..", "siblings": []},
        {"id": "lab/x", "sha": "a" * 40, "siblings": [{"rfilename": "peer/../../../../escaped/config.json"}]},
        {"id": "lab/x", "sha": "a" * 40, "siblings": [{"rfilename": "/escaped/config.json"}]},
    ],
)
@pytest.mark.parametrize("redirected", [False, True])
def test_no_listing_leads_out_of_the_cache(hub, tmp_path, content, redirected):
    hub.instead = {"/revision/main": f"{hub.url}/elsewhere", "/elsewhere": content} if redirected else {"/main": content}
    assert "expected a plain name" in refused("lab/x")
    assert outside(tmp_path) == set()


def test_no_tree_leads_out_of_the_cache(hub, tmp_path):
    sha = hub.commit("lab/x", "main")
    lfs = {"oid": "../../../escaped", "size": 5, "pointerSize": 5}
    for entry in (
        {"path": "peer/../../../../../escaped/config.json", "oid": "0"},
        {"path": "config.json", "oid": "0", "lfs": lfs},
    ):
        hub.instead = {f"/tree/{sha}": [{"type": "file", "size": 5, **entry}]}
        said = refused("lab/x")
        assert "expected a plain name" in said and outside(tmp_path) == set()


@pytest.mark.parametrize(
    "content", [HTML, [], [1], {}, {"id": "lab/x", "siblings": []}, None, 5, b"", b"[" * 100_000, {"sha": 5}],
    ids=["page", "list", "of a number", "empty", "no commit", "null", "number", "nothing", "deep", "numeric commit"],
)  # fmt: skip
@pytest.mark.parametrize("redirected", [False, True])
def test_something_else_in_place_of_a_hub(hub, content, redirected):
    answer = content if content is not None else b"null"
    hub.instead = {"/revision/main": f"{hub.url}/login", "/login": answer} if redirected else {"/main": answer}
    said = refused("lab/x")
    assert said.startswith(f"lab/x: the Hugging Face Hub ({hub.url}) "), said
    assert "is there a proxy or a login page in between?" in said, said


def test_a_page_in_place_of_files(hub, tmp_path):
    hub.instead = {"/config.json": HTML, "/model.safetensors": HTML}
    assert "answers without the commit or the ETag of a file; is there a proxy" in refused("lab/x")


def test_a_redirect_to_no_address(hub):
    hub.instead = {"/main": "http://["}
    assert refused("lab/x").startswith("lab/x: ")


def test_the_commit_that_was_taken_is_logged_and_known(hub, caplog):
    with caplog.at_level(logging.INFO, logger="sepml"):
        separator = Separator.from_pretrained("lab/x")
    commit = hub.commit("lab/x", "main")
    assert separator.origin.commit == commit and f"lab/x: commit {commit}" in caplog.text
    assert f"lab/x@{commit} always names this version" in caplog.text
    # By that name, the same is taken.
    assert Separator.from_pretrained(f"lab/x@{commit}").origin.commit == commit


def test_the_clients_hooks_are_as_before(hub):
    from huggingface_hub import get_session

    before = {name: list(hooks) for name, hooks in get_session().event_hooks.items()}
    Separator.from_pretrained("lab/x")
    hub.headers["ETag"] = '"../x"'
    refused("lab/x", force_download=True)
    assert get_session().event_hooks == before
