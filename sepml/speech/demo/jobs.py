"""A queue of uploads that are separated one at a time, and the results that are kept."""

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
from sepml.speech.demo.separate_upload import Result, separate_upload
from sepml.speech.demo.uploads import Limits, Refused
from sepml.speech.separation.separators import Separators

log = logging.getLogger(__name__)
WAITING, WORKING, DONE, FAILED = "waiting", "working", "done", "failed"
_ABANDONED_SECONDS = 300.0
_ESTIMATE_SECONDS, _ESTIMATE_FRACTION = 1.0, 0.02


class _Abandoned(Exception):
    """A job was abandoned: nobody asks for it any more."""


@dataclass(frozen=True)
class Capacity:
    """The number and size of jobs that are kept; the oldest results are deleted first.

    Attributes:
        waiting: uploads that are not yet separated. results: recordings. size: of their files, bytes.
    """

    waiting: int = 32
    results: int = 300
    size: int = 2_000_000_000


@dataclass
class UploadJob:
    """One upload.

    Attributes:
        token: a secret that gives access to the job. folder: of its files.
        state: waiting, working, done or failed. error: why it failed, one line.
        fraction: the part that is separated; None if unknown. since: when the separation began, monotonic seconds.
        speakers: their number, as the visitor says; None is to be found.
        asked: time of the last request for the state. readers: downloads in progress. dropped: whether it was deleted.
    """

    token: str
    folder: Path
    upload: Path | None = None
    speakers: int | None = None
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
        """The folder of the upload, separate from the results, which may have the same name."""
        return self.folder / "upload"

    @property
    def left(self) -> float | None:
        """Seconds until it is separated; None if unknown."""
        past = time.monotonic() - self.since
        if self.state != WORKING or self.fraction is None or self.fraction < _ESTIMATE_FRACTION or past < _ESTIMATE_SECONDS:
            return None
        return past * (1 - self.fraction) / self.fraction


class Jobs:
    """Separates one upload at a time, in the order of their arrival.

    Args:
        separators: of any rate; the outputs have the upload's rate and length.
        folder: for the files; those of a job are deleted with it.
    """

    def __init__(self, separators: Separators, folder: Path, limits: Limits, capacity: Capacity | None = None) -> None:
        self.separators, self.folder, self.limits = separators, folder, limits
        self.capacity = capacity or Capacity()
        self._jobs: dict[str, UploadJob] = {}
        self._changed = threading.Condition()
        self._closed = False
        # A daemon: a separation in progress must not prevent the process from ending.
        self._worker = threading.Thread(target=self._work, name="separation", daemon=True)
        self._worker.start()

    def new(self, speakers: int | None = None) -> UploadJob:
        """A job with a folder for its upload.

        Args:
            speakers: see `UploadJob`.

        Raises:
            Refused: too many jobs are waiting, or the folder cannot be made.
        """
        with self._changed:
            self._require_free_slot()
        token = secrets.token_urlsafe(16)
        job = UploadJob(token, self.folder / f"job-{token}", speakers=speakers)
        try:
            # It may have been deleted by a program that cleans temporary folders.
            self.folder.mkdir(mode=0o700, exist_ok=True)
            job.uploads.mkdir(parents=True)
        except OSError as error:
            raise Refused(507, f"the upload cannot be kept: {error.strerror}") from error
        return job

    def submit(self, job: UploadJob, upload: Path) -> None:
        """Add a job to the queue.

        Raises:
            Refused: too many jobs are waiting.
        """
        with self._changed:
            self._require_free_slot()
            job.upload, job.asked = upload, time.monotonic()
            self._jobs[job.token] = job
            self._changed.notify_all()

    def drop(self, job: UploadJob) -> None:
        """Delete a job, and its files when no download reads them; its separation stops within a second of sound."""
        with self._changed:
            job.dropped = True
            self._jobs.pop(job.token, None)
        self._delete(job)

    def find(self, token: str) -> UploadJob | None:
        """The job with a token; updates the time of the last request."""
        with self._changed:
            job = self._jobs.get(token)
            if job is not None:
                job.asked = time.monotonic()
            return job

    def ahead(self, job: UploadJob) -> int:
        """The number of jobs before a waiting one."""
        with self._changed:
            before = list(self._jobs.values())
            return sum(other.state in (WAITING, WORKING) for other in before[: before.index(job)]) if job in before else 0

    @contextmanager
    def reading(self, jobs: list[UploadJob]) -> Iterator[None]:
        """Keep the files of jobs during the block."""
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
        """Stop, after the current separation has stopped or `patience` (s) has passed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._worker.join(patience)

    def _require_free_slot(self) -> None:
        waiting = sum(job.state == WAITING for job in self._jobs.values())
        if waiting >= self.capacity.waiting:
            raise Refused(503, f"{waiting} recordings are waiting already; try again in a moment")

    def _delete(self, job: UploadJob) -> None:
        with self._changed:
            unused = job.dropped and not job.readers and job.state != WORKING
        if unused:
            shutil.rmtree(job.folder, ignore_errors=True)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._separate(job)
            except _Abandoned:
                self._fail(job, "stopped, as nobody waits for it any more")
                self.drop(job)
            except SepmlError as error:
                self._fail(job, one_line(error))
            except Exception:
                # A bug in one job must not stop the next ones.
                log.exception("a separation failed")
                self._fail(job, "sepml failed on it, which is a bug; what it printed says more")
            shutil.rmtree(job.uploads, ignore_errors=True)
            self._delete(job)
            self._shrink()

    def _fail(self, job: UploadJob, reason: str) -> None:
        with self._changed:
            job.state, job.error = FAILED, reason
        shutil.rmtree(job.folder, ignore_errors=True)
        log.info("%s", reason)

    def _next(self) -> UploadJob | None:
        """The job that has waited for the longest time; None after `close`."""
        with self._changed:
            while True:
                if self._closed:
                    return None
                job = next((job for job in self._jobs.values() if job.state == WAITING), None)
                if job is not None:
                    job.state, job.since = WORKING, time.monotonic()
                    return job
                self._changed.wait()

    def _separate(self, job: UploadJob) -> None:
        def report_progress(fraction: float | None) -> None:
            if self._closed or job.dropped or time.monotonic() - job.asked > _ABANDONED_SECONDS:
                raise _Abandoned
            if fraction is not None and job.fraction is None:
                job.since = time.monotonic()
            job.fraction = fraction

        upload = job.upload
        if upload is None:
            raise SepmlError("the upload is missing")
        start = time.monotonic()
        report_progress(None)
        separators = self.separators.only(job.speakers) if job.speakers else self.separators
        found = separate_upload(upload, job.folder, separators, self.limits, f"jobs/{job.token}/", report_progress)
        with self._changed:
            job.result, job.state = found, DONE
        for line in found.lines:
            log.log(logging.WARNING if line.warning else logging.INFO, "%s", line.text)
        log.info("%s: %.1f s of sound, separated in %.1f s", found.name, found.seconds, time.monotonic() - start)

    def _shrink(self) -> None:
        """Delete the oldest jobs beyond the capacity, but not the last one."""
        with self._changed:
            ended = [job for job in self._jobs.values() if job.state in (DONE, FAILED)]
        sizes = [job.result.size if job.result is not None else 0 for job in ended]
        while len(ended) > 1 and (len(ended) > self.capacity.results or sum(sizes) > self.capacity.size):
            self.drop(ended.pop(0))
            sizes.pop(0)
