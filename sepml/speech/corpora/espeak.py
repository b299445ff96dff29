"""The speech synthesiser espeak-ng, called through its shared library."""

import ctypes
import shutil
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from sepml.errors import SepmlError
from sepml.system.temporaries import temporary_folder

_SYNCHRONOUS = 2
_DO_NOT_EXIT = 0x8000  # without it a failed start ends the whole process
_UTF8 = 1
_PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "pitch_range": 4}
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Espeak(ExitStack):
    """One voice of a private copy of espeak-ng; a context manager.

    The library keeps state from sentence to sentence (the phase of the glottis, a noise generator), which neither a new voice
    nor a new start resets. A copy of its file is loaded as a library of its own, so what this object says depends only on what
    it has said before.

    Args:
        voice: a language and a variant, such as `en+f2`.
        parameters: rate (words a minute), volume, pitch, pitch_range (0 to 99), each optional.

    Raises:
        SepmlError: the library is absent or does not start, or the voice is unknown.
    """

    def __init__(self, voice: str, **parameters: int) -> None:
        if find_spec("espeakng_loader") is None:
            raise SepmlError("the speech synthesiser is not installed; `pip install sepml[synthetic]` brings espeakng-loader")
        import espeakng_loader

        super().__init__()
        folder = self.enter_context(temporary_folder("espeak"))
        library = Path(espeakng_loader.get_library_path())
        try:
            shutil.copyfile(library, folder / library.name)
            # espeak-ng cuts off the path of its data at 160 characters; a link in a temporary folder is short.
            (folder / "espeak-ng-data").symlink_to(espeakng_loader.get_data_path())
            self._library = ctypes.CDLL(str(folder / library.name))
        except (OSError, RuntimeError) as error:
            self.close()
            raise SepmlError(f"{library}: espeak-ng cannot be loaded ({error}); install espeakng-loader again") from error
        self.callback(self._library.espeak_Terminate)
        self._chunks: list[np.ndarray] = []
        self._receiver = _CALLBACK(self._receive)
        self.rate: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(folder).encode(), _DO_NOT_EXIT)
        if self.rate <= 0 or self._library.espeak_SetVoiceByName(voice.encode()):
            found = f"does not know the voice '{voice}'" if self.rate > 0 else "does not start"
            self.close()
            raise SepmlError(f"espeak-ng {found}; install espeakng-loader again")
        self._library.espeak_SetSynthCallback(self._receiver)
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        for name, value in parameters.items():
            self._library.espeak_SetParameter(_PARAMETERS[name], value, 0)

    @property
    def version(self) -> str:
        """The version of espeak-ng."""
        self._library.espeak_Info.restype = ctypes.c_char_p
        return self._library.espeak_Info(None).decode().split()[0]

    def say(self, text: str) -> np.ndarray:
        """The spoken text in [-1, 1], float64 (T,), at `self.rate` Hz.

        Raises:
            SepmlError: nothing was said.
        """
        self._chunks.clear()
        data = text.encode() + b"\0"
        status = self._library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        if status or not self._chunks:
            raise SepmlError(f"espeak-ng said nothing for '{text}' (status {status})")
        return np.concatenate(self._chunks) / 32768

    def _receive(self, samples: "ctypes._Pointer[ctypes.c_short]", n: int, events: int | None) -> int:
        if samples and n > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (n,)).copy())
        return 0
