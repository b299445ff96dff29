"""Recordings of any format, rate, length and number of channels, read block by block; the resolution of their samples."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sepml.errors import SepmlError
from sepml.speech.audio.files import UnfinishedHeader, UnknownFormat, open_audio, read_blocks
from sepml.speech.audio.headers import check_ogg, is_mp3, mp3_has_length, require_content, unreadable
from sepml.speech.audio.signals import Recording

if TYPE_CHECKING:
    import av
    from av.audio.stream import AudioStream

log = logging.getLogger(__name__)
LOWEST_RATE, HIGHEST_RATE = 1000, 768_000
_BLOCK = 1 << 18
# The formats that FFmpeg may detect. Playlists and the like are left out: they make it open other files.
_CONTAINERS = (
    "aac ac3 aiff amr ape asf au avi caf dts eac3 flac flv iff matroska,webm mov,mp4,m4a,3gp,3g2,mj2 mp3 mpc mpeg mpegts "
    "mxf nistsphere ogg rm tta voc w64 wav wv"
).replace(" ", ",")
_SAYS_ITS_LENGTH = {"mov,mp4,m4a,3gp,3g2,mj2", "flac"}
_PADDING = 4096
_UNKNOWN_LENGTH = 1 << 62

BITS = ("16", "24", "32f")
"""The resolutions that can be written: integers of 16 and 24 bits, floats of 32."""
SUBTYPES = {"16": "PCM_16", "24": "PCM_24", "32f": "FLOAT"}
"""Their names in libsndfile."""
BYTES = {"16": 2, "24": 3, "32f": 4}
"""Bytes of a sample."""
# Integers of 32 bits are written as floats, which keep 24 bits at any level. Samples of 8 bits and of lossy codecs are
# written with 16 bits.
_OF_SUBTYPE = {"PCM_24": "24", "ALAC_20": "24", "ALAC_24": "24"}
_OF_SUBTYPE |= dict.fromkeys(("PCM_32", "ALAC_32", "FLOAT", "DOUBLE"), "32f")
_OF_SAMPLES = {"s32": "24", "s64": "32f", "flt": "32f", "dbl": "32f"}


def require_recorded_rate(name: str, rate: int) -> None:
    """Refuse a rate, in Hz, that no recording has.

    Raises:
        SepmlError: it is not between `LOWEST_RATE` and `HIGHEST_RATE`.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise SepmlError(f"{name}: its rate is {rate} Hz, expected {LOWEST_RATE} to {HIGHEST_RATE} Hz")


@contextmanager
def open_recording(path: Path, label: str | None = None) -> Iterator[Recording]:
    """A recording of any format that libsndfile or FFmpeg's libraries read; of a video, its sound.

    Args:
        label: its name in the log; None is its path.

    Raises:
        SepmlError: the file is missing, not a file, empty, not audio, or its rate is outside `LOWEST_RATE` to
            `HIGHEST_RATE`; or, while its blocks are read, it breaks off or is damaged.
    """
    require_content(path)
    with ExitStack() as stack:
        label = label or str(path)
        recording = _decoded_mp3(path, label, stack) or _opened(path, label, stack)
        require_recorded_rate(str(path), recording.rate)
        if recording.frames == 0:
            raise SepmlError(f"{path}: holds no samples")
        yield recording


def _decoded_mp3(path: Path, label: str, stack: ExitStack) -> Recording | None:
    """An MP3 file, decoded by FFmpeg: libsndfile's decoder skips damaged frames and prints messages."""
    refusal = UnknownFormat(f"{path}: is not an audio file that can be read: no MP3 frames are found in it")
    try:
        return stack.enter_context(_decoded(path, label, refusal)) if is_mp3(path) else None
    except PermissionError as error:
        raise unreadable(path, error) from error


def _opened(path: Path, label: str, stack: ExitStack) -> Recording:
    try:
        file = stack.enter_context(open_audio(path))
    except UnknownFormat as refusal:
        return stack.enter_context(_decoded(path, label, refusal))
    except UnfinishedHeader as refusal:
        log.warning(
            "%s: its header was never finished, its recorder may have been stopped; the samples in it are separated", label
        )
        return stack.enter_context(_decoded(path, label, refusal, ignore_length="1"))
    # libsndfile only guesses the length of MP3 inside WAV.
    if file.subtype.startswith("MPEG_"):
        return stack.enter_context(_decoded(path, label))
    # FLAC files that were written to a pipe do not state their length, and libsndfile cannot read them to their end.
    if (file.format == "OGG" and check_ogg(path)) or file.frames >= _UNKNOWN_LENGTH:
        return stack.enter_context(_decoded(path, label))
    size = max(1, _BLOCK // file.channels)
    return Recording(file.samplerate, file.channels, file.frames, size, read_blocks(path, file, size), of_subtype(file.subtype))


@contextmanager
def _decoded(path: Path, label: str, refusal: SepmlError | None = None, **options: str) -> Iterator[Recording]:
    """A recording by FFmpeg's libraries.

    Args:
        refusal: the error of libsndfile, which is raised where FFmpeg fails as well.
        options: of FFmpeg's reader.
    """
    import av

    # A file object: FFmpeg would take some names for URLs. Its errors are OSErrors or ValueErrors, or both.
    with path.open("rb") as file:
        try:
            container = av.open(file, "r", options={"format_whitelist": _CONTAINERS, **options})
        except (av.error.FFmpegError, ValueError) as error:
            raise _unreadable(path, error, refusal) from error
        with container:
            stream = container.streams.best("audio")
            if not isinstance(stream, av.AudioStream):
                raise SepmlError(f"{path}: holds no sound ({container.format.long_name})")
            if len(container.streams.audio) > 1:
                log.info("%s: holds %d sound tracks, number %d is taken", label, len(container.streams.audio), stream.index)
            blocks = _decode(path, container, stream)
            first = next(blocks, None)
            if first is None:
                raise SepmlError(f"{path}: holds no samples")
            rate = stream.codec_context.sample_rate
            promised = _promised(path, container, stream, rate)
            bits = of_stream(stream)
            yield Recording(rate, first.shape[1], promised, len(first), _up_to(path, promised, first, blocks), bits)


def _unreadable(path: Path, error: Exception, refusal: SepmlError | None) -> SepmlError:
    said = f"{path}: is not an audio file that can be read"
    with path.open("rb") as file:
        if file.read(8)[4:] == b"ftyp":
            return SepmlError(f"{said}: it breaks off before the table of its samples, or is damaged; copy or make it again")
    return refusal or SepmlError(f"{said}: {getattr(error, 'strerror', None) or error}")


def _decode(path: Path, container: "av.container.InputContainer", stream: "AudioStream") -> Iterator[np.ndarray]:
    import av

    resampler: av.AudioResampler | None = None
    first = (0, 0)
    try:
        for frame in container.decode(stream):
            found = (frame.sample_rate, frame.layout.nb_channels)
            if resampler is None:
                resampler, first = av.AudioResampler("fltp", frame.layout, frame.sample_rate), found
            if found != first:
                raise SepmlError(
                    f"{path}: changes from {first[0]} Hz and {first[1]} channels to {found[0]} Hz and {found[1]} channels"
                )
            yield from (part.to_ndarray().T for part in resampler.resample(frame) if part.samples)
    except (av.error.FFmpegError, ValueError) as error:
        raise SepmlError(f"{path}: breaks off or is damaged: {getattr(error, 'strerror', None) or error}") from error


def _promised(path: Path, container: "av.container.InputContainer", stream: "AudioStream", rate: int) -> int | None:
    """The number of samples that a file states; None where FFmpeg would only guess it."""
    says = container.format.name in _SAYS_ITS_LENGTH or (container.format.name == "mp3" and mp3_has_length(path))
    if stream.duration is None or stream.time_base is None or not says:
        return None
    return round(stream.duration * stream.time_base * rate)


def _up_to(path: Path, promised: int | None, first: np.ndarray, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The blocks without the padding of the last packet; an error where many samples are missing."""
    found = 0
    block: np.ndarray | None = first
    while block is not None:
        if promised is not None and promised < found + len(block) <= promised + _PADDING:
            block = block[: max(0, promised - found)]
        found += len(block)
        if len(block):
            yield block
        block = next(blocks, None)
    if promised is not None and found < promised - _PADDING:
        raise SepmlError(f"{path}: breaks off after {found} of {promised} samples")


def of_subtype(subtype: str) -> str:
    """The resolution to write for a file that libsndfile reads, by its name of the sample format.

    >>> of_subtype("PCM_24"), of_subtype("DOUBLE"), of_subtype("PCM_U8"), of_subtype("VORBIS")
    ('24', '32f', '16', '16')
    """
    return _OF_SUBTYPE.get(subtype, "16")


def of_stream(stream: "AudioStream") -> str:
    """The resolution to write for a stream that FFmpeg decodes: that of its samples where the codec is lossless."""
    codec = stream.codec_context.codec
    # WavPack also has a lossy mode, which is rare.
    if not codec.lossless or (codec.lossy and codec.name != "wavpack"):
        return "16"
    if codec.name.startswith("pcm_s32"):
        return "32f"
    return _OF_SAMPLES.get(stream.codec_context.format.name.removesuffix("p"), "16")


def written_bits(bits: str | None, found: str, ext: str) -> str:
    """The resolution of the outputs of a recording.

    Args:
        bits: the requested one, of `BITS`; None is the recording's own.
        found: the recording's.
        ext: `wav` or `flac`. FLAC files hold integers: floats get the 24 bits that come closest.

    >>> written_bits(None, "32f", "wav"), written_bits(None, "32f", "flac"), written_bits("16", "32f", "wav")
    ('32f', '24', '16')
    """
    own = "24" if found == "32f" and ext == "flac" else found
    return own if bits is None else bits


def check_bits(bits: str | None, ext: str | None) -> None:
    """Refuse an unknown resolution, or one that the format cannot hold; None is the recording's own, or any format.

    Raises:
        SepmlError: it cannot be written.
    """
    if bits is not None and bits not in BITS:
        raise SepmlError(f"unknown resolution '{bits}'; known: {', '.join(BITS)}")
    if ext == "flac" and bits == "32f":
        raise SepmlError("FLAC files hold integers; 32-bit floats need WAV files")
