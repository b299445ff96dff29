"""The resolution of samples: what a recording holds, and what is written of it."""

from typing import TYPE_CHECKING

from sepml.errors import SepmlError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream

BITS = ("16", "24", "32f")
"""What can be written: integers of 16 and 24 bits, floats of 32."""
SUBTYPES = {"16": "PCM_16", "24": "PCM_24", "32f": "FLOAT"}
"""What libsndfile calls them."""
BYTES = {"16": 2, "24": 3, "32f": 4}
"""A sample."""
# Integers of 32 bits are written as floats, which keep 24 bits at any level. Everything else, 8 bits and what lossy codecs
# give, is written with 16 bits.
_OF_SUBTYPE = {"PCM_24": "24", "ALAC_20": "24", "ALAC_24": "24"}
_OF_SUBTYPE |= dict.fromkeys(("PCM_32", "ALAC_32", "FLOAT", "DOUBLE"), "32f")
_OF_SAMPLES = {"s32": "24", "s64": "32f", "flt": "32f", "dbl": "32f"}


def of_subtype(subtype: str) -> str:
    """The resolution to write for a file that libsndfile reads, by what it calls the file's sample format.

    >>> of_subtype("PCM_24"), of_subtype("DOUBLE"), of_subtype("PCM_U8"), of_subtype("VORBIS")
    ('24', '32f', '16', '16')
    """
    return _OF_SUBTYPE.get(subtype, "16")


def of_stream(stream: "AudioStream") -> str:
    """The resolution to write for a stream that FFmpeg decodes: that of its samples where the codec is lossless."""
    codec = stream.codec_context.codec
    # WavPack has a lossy mode, which few use.
    if not codec.lossless or (codec.lossy and codec.name != "wavpack"):
        return "16"
    if codec.name.startswith("pcm_s32"):
        return "32f"
    return _OF_SAMPLES.get(stream.codec_context.format.name.removesuffix("p"), "16")


def written_bits(bits: str | None, found: str, ext: str) -> str:
    """The resolution of the outputs of a recording.

    Args:
        bits: what was asked for, of `BITS`; None is the recording's own.
        found: the recording's.
        ext: `wav` or `flac`. FLAC files hold integers: floats get the 24 bits that come closest.

    >>> written_bits(None, "32f", "wav"), written_bits(None, "32f", "flac"), written_bits("16", "32f", "wav")
    ('32f', '24', '16')
    """
    own = "24" if found == "32f" and ext == "flac" else found
    return own if bits is None else bits


def check_bits(bits: str | None, ext: str | None) -> None:
    """Refuse a resolution that is none, or that the format does not hold; None is the recording's own, or any format.

    Raises:
        SepmlError: it cannot be written.
    """
    if bits is not None and bits not in BITS:
        raise SepmlError(f"unknown resolution '{bits}'; known: {', '.join(BITS)}")
    if ext == "flac" and bits == "32f":
        raise SepmlError("FLAC files hold integers; 32-bit floats need WAV files")
