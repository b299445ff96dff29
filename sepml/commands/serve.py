"""The command `sepml serve`."""

import argparse
import logging

from sepml.commands.options import OK, Commands, add_network, at_least, command, device
from sepml.commands.separation import add_averaging, loaded_for_talkers, speakers

log = logging.getLogger(__name__)
_ANY_LENGTH = "`sepml separate` takes recordings of any length"
_WAYS_OUT = {
    "seconds": f"{_ANY_LENGTH}, and `sepml serve --max-seconds` sets the limit of this page",
    "samples": f"{_ANY_LENGTH}, and `sepml serve --max-seconds` sets the limit of this page (that of 96,000 samples a second)",
    "size": f"{_ANY_LENGTH}, and `sepml serve --max-mb` sets the limit of this page",
}


def add_serve(commands: Commands) -> None:
    """The options of `sepml serve`."""
    sub = command(commands, "serve", "a page on this machine to upload or record, separate and listen")
    sub.add_argument("--model", help="as for sepml separate (default: the model that comes with sepml)")
    add_averaging(sub)
    add_network(sub)
    speakers(sub)
    device(sub)
    sub.add_argument("--host", default="127.0.0.1", help="address to listen on; others let other machines in")
    sub.add_argument("--port", type=at_least(0), default=7860, help="0 takes a free one")
    sub.add_argument("--max-seconds", type=at_least(1), default=600, help="longest recording, s")
    sub.add_argument("--max-mb", type=at_least(1), default=50, help="largest upload, MB")
    sub.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    _require_server()
    from sepml.speech.demo.serve import PageServer
    from sepml.speech.demo.uploads import Limits

    separators = loaded_for_talkers(options)
    limits = Limits(options.max_seconds, options.max_mb * 1_000_000, ways_out=_WAYS_OUT)
    with PageServer(separators, options.host, options.port, limits) as server:
        try:
            print(server.url, flush=True)
            log.info("Ctrl-C ends")
            server.serve_forever()
        except KeyboardInterrupt:
            log.info("ended")
    return OK


def _require_server() -> None:
    from sepml.system.extras import needs_extra

    with needs_extra("page", "the page"):
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
