"""Which sizes of separators go together, from their configurations alone."""

from sepml.errors import SepmlError
from sepml.speech.models.config import ConvTasNetConfig, DPTNetConfig, ModelConfig
from sepml.system.limits import MOST_ACTIVATIONS


def check_sizes(config: ModelConfig) -> None:
    """Refuse hops that leave samples or frames out, kernels that shift them, and layers that would fill the memory.

    Raises:
        SepmlError: naming the field.
    """
    stft = getattr(config, "filterbank", "free") == "stft"
    most = {"stride": config.window // 2 if stft else config.window, "chunk_stride": getattr(config, "chunk", 0)}
    for name, limit in most.items():
        if (getattr(config, name, None) or 0) > limit:
            raise SepmlError(f"model '{config.kind}': {name} is {getattr(config, name)}, expected {limit} at most")
    if isinstance(config, ConvTasNetConfig) and config.kernel % 2 == 0:
        raise SepmlError(f"model '{config.kind}': kernel is {config.kernel}, expected an odd number")
    if (values := _largest_layer(config)) > MOST_ACTIVATIONS:
        found = f"a layer would have {values:,} values for a second of audio, at most {MOST_ACTIVATIONS:,} are allowed"
        raise SepmlError(f"model '{config.kind}': {found}; choose smaller sizes or longer strides")


def _largest_layer(config: ModelConfig) -> int:
    """About how many values the largest layer has for a second of audio."""
    frames = config.sample_rate // hop_of(config.stride, config.window) + 1
    encoded = frames * config.n_filters * config.n_src
    if isinstance(config, ConvTasNetConfig):
        # The convolutions of the last block are padded to either side by half of what they reach over.
        padded = frames + (config.kernel - 1) * 2 ** (config.blocks - 1)
        return max(encoded, padded * max(config.hidden, config.skip, config.bottleneck))
    stride = hop_of(config.chunk_stride, config.chunk)
    chunks = (frames + 2 * config.chunk) // stride + 1
    if isinstance(config, DPTNetConfig):
        # Attention compares each frame with those of its chunk, or with those at its place in the other chunks.
        attention = config.heads * max(config.chunk, chunks)
        return max(encoded, chunks * config.chunk * max(config.n_filters, 4 * config.hidden, attention))
    bins = config.window // 2 + 1 if config.filterbank == "stft" else 0
    # The four gates of an LSTM are computed for all frames at once.
    return max(encoded, chunks * config.chunk * max(bins * config.n_src, config.bottleneck, 4 * config.hidden))


def hop_of(stride: int | None, length: int) -> int:
    """The hop of windows or chunks of a length: half of it where none is set."""
    return stride or length // 2
