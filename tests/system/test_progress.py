"""Progress on a terminal and elsewhere, and messages between; what is seen on the terminal is drawn by pyte."""

import logging
import sys
import threading
import time
from functools import partial

import pytest
from terminal import terminal

from sepml.system import progress
from sepml.system.parallel import map_unordered
from sepml.system.progress import MessageHandler, end_live_lines, live_line, track


@pytest.fixture
def log(monkeypatch):
    """The logger of the library, as a command sets it."""
    log = logging.getLogger("sepml")
    monkeypatch.setattr(log, "level", logging.INFO)
    logging.Logger.manager._clear_cache()
    yield log
    logging.Logger.manager._clear_cache()


def at_once(monkeypatch) -> None:
    """Draw at every step."""
    monkeypatch.setattr("sepml.system.live_lines._REDRAWN_SECONDS", 0.0)


def test_a_line_that_counts_and_messages_above_it(monkeypatch, log):
    at_once(monkeypatch)
    with terminal(monkeypatch, 72) as seen:
        monkeypatch.setattr(log, "handlers", [MessageHandler(sys.stderr)])
        for item in track(range(5), "mixing [bold]tr[/bold]"):
            if item == 2:
                log.info("a message, %s", "x" * 80)
                print("of another program", file=sys.stderr)
        log.info("done")
    message = "a message, " + "x" * 80
    assert seen.screen() == [message[:72], message[72:], "of another program", "done"]
    lines = [moment[-1] for moment in seen.moments() if moment and "mixing" in moment[-1]]
    assert all(line.startswith("mixing [bold]tr[/bold] ") for line in lines)
    assert "0 of 5" in lines[0] and any("3 of 5" in line and line.endswith("left") for line in lines)
    assert any(
        moment[:3] == [message[:72], message[72:], "of another program"] and "of 5" in moment[3] for moment in seen.moments()
    )


def test_work_inside_work_has_a_line_of_its_own(monkeypatch, log):
    at_once(monkeypatch)
    with terminal(monkeypatch, 72) as seen:
        for _ in track(["a", "b"], "outer"):
            for _ in track(iter("xyz"), "inner"):
                pass
    both = [moment for moment in seen.moments() if len(moment) == 2]
    assert both and all(one.startswith("outer") and two.startswith("inner") for one, two in both)
    # Without a length there is a number alone.
    assert any(" 2 " in two and " of " not in two for _, two in both)
    assert seen.screen() == []


def test_standard_output_is_left_alone(monkeypatch, log, capsys):
    with terminal(monkeypatch):
        for _ in track([1], "working"):
            print("a result")
    assert capsys.readouterr().out == "a result\n"


def test_lines_end_with_the_command_whoever_still_holds_them(monkeypatch, log):
    with terminal(monkeypatch) as seen:
        held = iter(track([1, 2], "working"))
        next(held)
        end_live_lines()
        print("sepml: interrupted", file=sys.stderr)
        # As when the traceback that holds it is dropped.
        held.close()
    assert seen.screen() == ["sepml: interrupted"]


def test_no_thread_keeps_processes_from_being_forked(monkeypatch, log):
    with terminal(monkeypatch):
        before = threading.active_count()
        assert [threading.active_count() for _ in track([1, 2], "working")] == [before, before]


def test_the_time_goes_on_while_the_work_stands_still(monkeypatch, log):
    monkeypatch.setattr("sepml.system.live_lines._TICK_SECONDS", 0.01)
    at_once(monkeypatch)
    with terminal(monkeypatch, 72) as seen, live_line("separating", in_seconds=True):
        end = time.monotonic() + 60
        while seen.text.count("separating") < 5 and time.monotonic() < end:
            time.sleep(0.01)
    assert seen.text.count("separating") >= 5
    assert seen.screen() == []


def test_several_processes_have_one_line(monkeypatch, log):
    at_once(monkeypatch)
    with terminal(monkeypatch, 72) as seen:
        results = sorted(map_unordered(partial(pow, 2), range(6), jobs=2, what="squares"))
    assert results == [1, 2, 4, 8, 16, 32]
    assert any("squares" in moment[-1] and "6 of 6" in moment[-1] for moment in seen.moments() if moment)
    assert seen.screen() == []


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("CI", "true")])
def test_elsewhere_there_are_lines_of_the_log(name, value, monkeypatch, log):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", -1.0)
    with terminal(monkeypatch) as seen:
        monkeypatch.setenv(name, value)
        monkeypatch.setattr(log, "handlers", [MessageHandler(sys.stderr)])
        assert list(track("ab", "working")) == ["a", "b"]
    assert seen.text == "working: 1 of 2\r\nworking: 2 of 2\r\n"


def test_nothing_where_messages_are_not_wanted(monkeypatch, log):
    with terminal(monkeypatch) as seen:
        monkeypatch.setattr(log, "level", logging.WARNING)
        logging.Logger.manager._clear_cache()
        assert list(track("ab", "working")) == ["a", "b"]
    assert seen.written == b""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_other_encodings(encoding, monkeypatch, log):
    at_once(monkeypatch)
    with terminal(monkeypatch, 50, encoding) as seen:
        assert list(track("ab", "working on \N{CJK UNIFIED IDEOGRAPH-4E2D}" + "x" * 50)) == ["a", "b"]
    assert "working on" in seen.text and "\\u2501" not in seen.text and "\\u2026" not in seen.text
    assert seen.screen() == []


def test_no_colours(monkeypatch, log):
    for unwanted, coloured in ((None, True), ("1", False)):
        with terminal(monkeypatch) as seen:
            if unwanted:
                monkeypatch.setenv("NO_COLOR", unwanted)
            list(track("ab", "working"))
        assert ("\x1b[3" in seen.text or "\x1b[9" in seen.text) == coloured
