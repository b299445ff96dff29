"""Work on a Dask cluster: on processes of other machines, which see the same files under the same paths."""

import pickle
import re
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sepml.errors import SepmlError
from sepml.system.extras import needs_extra
from sepml.system.parallel import Failure, in_executor, spread_by
from sepml.system.readers import read_object
from sepml.version import __version__

if TYPE_CHECKING:
    from distributed import Client

Item = TypeVar("Item")
Result = TypeVar("Result")
# Until a scheduler has to answer.
_SECONDS = 20
_ADDRESS = re.compile(r"(?:(?:tcp|tls|wss?|ucx)://)?(?:\[[0-9a-fA-F:.]+\]|[\w.-]+):\d{1,5}")


@contextmanager
def on_cluster(address: str) -> Iterator[None]:
    """Let `map_unordered` give its work to the workers of a cluster, in the block.

    The first work connects. A worker that dies is replaced by another one for what it had begun, as often as the scheduler
    allows.

    Args:
        address: of a Dask scheduler, such as tcp://host:8786, or its scheduler file.

    Raises:
        SepmlError: Dask is not installed. Where there is work: there is no such scheduler, it has no workers, they have another
            version of sepml or several threads in a process; the scheduler is lost, or work kills its workers.
    """
    with needs_extra("cluster", "work on a cluster"):
        import distributed  # noqa: F401 - only tried
    place = _place_of(address)
    clients: list[Client] = []
    with ExitStack() as stack:

        def spread(function: Callable[[Item], Result], items: Sequence[Item], chunk: int) -> Iterator[Result | Failure[Item]]:
            if not clients:
                clients.append(stack.enter_context(_connected(address, place)))
            found = _spread(clients[0], address, function, items, chunk)
            # Before the connection: what is left of interrupted work is cancelled.
            stack.callback(found.close)
            return found

        with spread_by(spread):
            yield


def _place_of(address: str) -> dict[str, str]:
    """How Dask's client finds a scheduler.

    Raises:
        SepmlError: `address` is neither an address nor a scheduler file.
    """
    file = Path(address)
    if file.is_file() or file.suffix == ".json":
        try:
            found = read_object(file, "scheduler file of Dask").get("address")
        except FileNotFoundError as error:
            raise SepmlError(f"cluster {address}: no such scheduler file; the scheduler writes it when it starts") from error
        if not isinstance(found, str) or not _ADDRESS.fullmatch(found):
            raise SepmlError(f"cluster {address}: holds no address of a scheduler, expected its scheduler file")
        return {"scheduler_file": address}
    if not _ADDRESS.fullmatch(address):
        raise SepmlError(f"cluster {address}: neither a scheduler's address, such as tcp://host:8786, nor its scheduler file")
    return {"address": address}


@contextmanager
def _connected(address: str, place: dict[str, str]) -> Iterator["Client"]:
    from distributed import Client

    try:
        client = Client(**place, timeout=_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SepmlError(f"cluster {address}: no scheduler answers there: {error}") from error
    with client:
        yield client


def _spread(
    client: "Client", address: str, function: Callable[[Item], Result], items: Sequence[Item], chunk: int
) -> Generator[Result | Failure[Item], None, None]:
    from distributed import KilledWorker

    workers = _workers(client, address)
    with warnings.catch_warnings():
        # It may hold networks: it is sent once, and made again where the worker that has it ends.
        warnings.filterwarnings("ignore", message="Sending large graph")
        there = client.submit(pickle.loads, pickle.dumps(function), pure=False)
    # `pure`: work that is asked for again would not be done again.
    executor = client.get_executor(pure=False)
    try:
        yield from in_executor(executor, there, items, workers, chunk)
    except KilledWorker as error:
        raise SepmlError(f"cluster {address}: workers end again and again at the same work: {error.args[0]}") from error
    except CancelledError as error:
        raise SepmlError(f"cluster {address}: the connection to its scheduler is lost; the same command goes on") from error
    finally:
        executor.shutdown(wait=False)


def _workers(client: "Client", address: str) -> int:
    """The number of workers, all of which can do the work."""
    threads = client.nthreads()
    if not threads:
        raise SepmlError(f"cluster {address}: has no workers")
    several = [worker for worker, count in threads.items() if count > 1]
    if several:
        raise SepmlError(f"cluster {address}: worker {several[0]} has {threads[several[0]]} threads, expected 1")
    for worker, found in client.run(_version_there, on_error="return").items():
        if found != __version__:
            said = f"has sepml {found}" if isinstance(found, str) else f"cannot import sepml: {found}"
            raise SepmlError(f"cluster {address}: worker {worker} {said}, expected version {__version__}")
    return len(threads)


def _version_there() -> str:
    from sepml.version import __version__ as there

    return there
