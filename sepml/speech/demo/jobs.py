"""Uploads that wait, the one that is separated, and the results that are kept."""

import logging
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sepml.errors import SepmlError, one_line
from sepml.speech.demo.limits import Limits, Refused
from sepml.speech.demo.separate_upload import Result, separate_upload
from sepml.speech.separation.separator import Separator

log = logging.getLogger(__name__)
WAITING, WORKING, DONE, FAILED = "waiting", "working", "done", "failed"
_ABANDONED_SECONDS = 300.0
_TELLING_SECONDS, _TELLING_FRACTION = 1.0, 0.02


class _GivenUp(Exception):
    """Nobody waits for a job any more."""


@dataclass(frozen=True)
class Capacity:
    """What is kept at a time; the oldest results go first.

    Attributes:
        waiting: uploads that are not separated yet. results: recordings. size: of their files, bytes.
    """

    waiting: int = 32
    results: int = 300
    size: int = 2_000_000_000


@dataclass
class Job:
    """One upload.

    Attributes:
        token: nobody who does not know it gets at the job. folder: of its files.
        state: waiting, working, done or failed. error: why it failed, one line.
        fraction: of it that is separated; None where that is not known. since: when the separation began, monotonic seconds.
        asked: when somebody last asked for the state. readers: downloads in progress. dropped: nobody wants it any more.
    """

    token: str
    folder: Path
    upload: Path | None = None
    state: str = WAITING
    error: str = ""
    result: Result | None = None
    fraction: float | None = None
    since: float = 0.0
    asked: float = field(default_factory=time.monotonic)
    readers: int = 0
    dropped: bool = False

    @property
    def uploads(self) -> Path:
        """The folder for the upload, whose name may be that of a result."""
        return self.folder / "upload"

    @property
    def left(self) -> float | None:
        """Seconds until it is separated; None as long as that cannot be told."""
        past = time.monotonic() - self.since
        if self.state != WORKING or self.fraction is None or self.fraction < _TELLING_FRACTION or past < _TELLING_SECONDS:
            return None
        return past * (1 - self.fraction) / self.fraction


class Jobs:
    """Separates one upload at a time, in the order in which they came.

    Args:
        separator: of any rate; the outputs have the upload's rate and length.
        folder: for the files; those of a job go when it is dropped.
    """

    def __init__(self, separator: Separator, folder: Path, limits: Limits, capacity: Capacity | None = None) -> None:
        self.separator, self.folder, self.limits = separator, folder, limits
        self.capacity = capacity or Capacity()
        self._jobs: dict[str, Job] = {}
        self._changed = threading.Condition()
        self._closed = False
        # A daemon: a separation in work must not keep the process from ending.
        self._worker = threading.Thread(target=self._work, name="separation", daemon=True)
        self._worker.start()

    def new(self) -> Job:
        """A job with a folder for its upload.

        Raises:
            Refused: as many wait already as may wait; there is no room for the folder.
        """
        with self._changed:
            self._require_place()
        token = secrets.token_urlsafe(16)
        job = Job(token, self.folder / f"job-{token}")
        try:
            job.uploads.mkdir(parents=True)
        except OSError as error:
            raise Refused(507, f"the upload cannot be kept: {error.strerror}") from error
        return job

    def submit(self, job: Job, upload: Path) -> None:
        """Let a job wait for its turn.

        Raises:
            Refused: as many wait already as may wait.
        """
        with self._changed:
            self._require_place()
            job.upload, job.asked = upload, time.monotonic()
            self._jobs[job.token] = job
            self._changed.notify_all()

    def drop(self, job: Job) -> None:
        """Forget a job and delete its files when nobody reads them; its separation stops within a second of sound."""
        with self._changed:
            job.dropped = True
            self._jobs.pop(job.token, None)
        self._delete(job)

    def find(self, token: str) -> Job | None:
        """A job by its token, which is asked for by this."""
        with self._changed:
            job = self._jobs.get(token)
            if job is not None:
                job.asked = time.monotonic()
            return job

    def ahead(self, job: Job) -> int:
        """How many come before a waiting job."""
        with self._changed:
            before = list(self._jobs.values())
            return sum(other.state in (WAITING, WORKING) for other in before[: before.index(job)]) if job in before else 0

    @contextmanager
    def reading(self, jobs: list[Job]) -> Iterator[None]:
        """Keep the files of jobs as long as the block runs."""
        with self._changed:
            for job in jobs:
                job.readers += 1
        try:
            yield
        finally:
            with self._changed:
                for job in jobs:
                    job.readers -= 1
            for job in jobs:
                self._delete(job)

    def close(self, patience: float = 10.0) -> None:
        """Stop, after the separation in work has given up or `patience` (s) has passed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._worker.join(patience)

    def _require_place(self) -> None:
        waiting = sum(job.state == WAITING for job in self._jobs.values())
        if waiting >= self.capacity.waiting:
            raise Refused(503, f"{waiting} recordings are waiting already; try again in a moment")

    def _delete(self, job: Job) -> None:
        with self._changed:
            unused = job.dropped and not job.readers and job.state != WORKING
        if unused:
            shutil.rmtree(job.folder, ignore_errors=True)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._separate(job)
            except _GivenUp:
                self._fail(job, "given up, as nobody waits for it any more")
                self.drop(job)
            except SepmlError as error:
                self._fail(job, one_line(error))
            except Exception:
                # The next job must not suffer from a bug that one shows.
                log.exception("a separation failed")
                self._fail(job, "sepml failed on it, which is a bug; what it printed says more")
            shutil.rmtree(job.uploads, ignore_errors=True)
            self._delete(job)
            self._shrink()

    def _fail(self, job: Job, reason: str) -> None:
        with self._changed:
            job.state, job.error = FAILED, reason
        shutil.rmtree(job.folder, ignore_errors=True)
        log.info("%s", reason)

    def _next(self) -> Job | None:
        """The job that has waited longest; None when there is to be no other."""
        with self._changed:
            while True:
                if self._closed:
                    return None
                job = next((job for job in self._jobs.values() if job.state == WAITING), None)
                if job is not None:
                    job.state, job.since = WORKING, time.monotonic()
                    return job
                self._changed.wait()

    def _separate(self, job: Job) -> None:
        def tell(fraction: float | None) -> None:
            if self._closed or job.dropped or time.monotonic() - job.asked > _ABANDONED_SECONDS:
                raise _GivenUp
            if fraction is not None and job.fraction is None:
                job.since = time.monotonic()
            job.fraction = fraction

        upload = job.upload
        if upload is None:
            raise SepmlError("the upload is missing")
        start = time.monotonic()
        tell(None)
        found = separate_upload(upload, job.folder, self.separator, self.limits, f"jobs/{job.token}/", tell)
        with self._changed:
            job.result, job.state = found, DONE
        for line in found.lines:
            log.log(logging.WARNING if line.warning else logging.INFO, "%s", line.text)
        log.info("%s: %.1f s of sound, separated in %.1f s", found.name, found.seconds, time.monotonic() - start)

    def _shrink(self) -> None:
        """Drop the oldest that are over what is kept, but not the last one."""
        with self._changed:
            ended = [job for job in self._jobs.values() if job.state in (DONE, FAILED)]
        sizes = [job.result.size if job.result is not None else 0 for job in ended]
        while len(ended) > 1 and (len(ended) > self.capacity.results or sum(sizes) > self.capacity.size):
            self.drop(ended.pop(0))
            sizes.pop(0)
