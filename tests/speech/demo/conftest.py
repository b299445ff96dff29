"""A server with small limits and a visitor, for the tests of requests that go wrong."""

import logging

import pytest
from page_server import SMALL, Halves, Visitor, serving

from sepml.speech.demo.uploads import Pace


@pytest.fixture(scope="module")
def server():
    with serving(Halves(), SMALL, pace=Pace(grace=1000.0)) as server:
        yield server


@pytest.fixture
def visitor(server, caplog):
    """A visitor; nothing they do is an error of the server."""
    caplog.set_level(logging.DEBUG)
    yield Visitor(server.port)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert "Traceback" not in caplog.text and "Exception in ASGI" not in caplog.text
