"""Sounds: files → samples.

A sound is ``(C, N)`` float32, full scale at ±1, and its rate in samples a second.  WAV, FLAC, Ogg
and MP3 are read by libsndfile (``soundfile``).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

READABLE = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")
MAX_BYTES = 1 << 30
MAX_SAMPLES = 64 * 2**20
"""Of all channels together: 12 minutes of stereo at 44.1 kHz.  A file of some bytes can claim any
length: more than this is refused."""
MAX_CHANNELS = 16

_BLOCK = 1 << 16  # samples of a channel
_FORMATS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "MPEG", "AIFF")


class AudioError(ValueError):
    """A sound cannot be read; the message is one line, without the file's name."""


class Sound(NamedTuple):
    """samples: ``(C, N)`` float32; rate: samples a second."""

    samples: NDArray[np.float32]
    rate: int


class _Bytes(io.BytesIO):
    """libsndfile looks before the beginning of damaged files; an error there would be printed."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        base = (0, self.tell(), len(self.getbuffer()))[whence]
        return super().seek(max(base + offset, 0))


def decode(data: bytes) -> Sound:
    """The samples of an encoded sound; what lies beyond ±1 stays.

    Raises:
        AudioError: empty, of no known format, damaged, of more than MAX_SAMPLES or MAX_CHANNELS,
            or soundfile is not there.
    """
    if not data:
        raise AudioError("the file is empty")
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: without libsndfile
        raise AudioError("sounds are read by soundfile: pip install 'mezzotint[audio]'") from None
    try:
        with soundfile.SoundFile(_Bytes(data)) as file:
            if file.format not in _FORMATS:
                raise AudioError(f"is of the format {file.format}, which is not read here")
            return Sound(_samples(file), int(file.samplerate))
    except AudioError:
        raise
    except Exception as error:  # of damaged files: LibsndfileError, MemoryError, ValueError …
        raise AudioError(f"is no sound that can be read: {_one_line(error)}") from None


def _samples(file: object) -> NDArray[np.float32]:
    """Block by block, as what the header says of the length may be wrong.

    Raises:
        AudioError: none, not finite, or too many.
    """
    import soundfile

    assert isinstance(file, soundfile.SoundFile)
    if not 1 <= file.channels <= MAX_CHANNELS:
        raise AudioError(f"has {file.channels} channels: more than {MAX_CHANNELS}")
    most = MAX_SAMPLES // file.channels
    blocks: list[NDArray[np.float32]] = []
    count = 0
    while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
        blocks.append(np.asarray(block, np.float32))
        count += len(block)
        if count > most:
            raise AudioError(f"is of more than {MAX_SAMPLES // 2**20} million samples")
    if not blocks:
        raise AudioError("has no samples")
    whole = np.concatenate(blocks).T
    if not np.isfinite(whole).all():
        raise AudioError("has samples that are no numbers")
    return np.ascontiguousarray(whole)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def read(path: Path) -> Sound:
    """The samples of a sound file.

    Raises:
        AudioError: it cannot be opened or decoded, or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise AudioError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    if len(data) > MAX_BYTES:
        raise AudioError(f"{path}: is of more than {MAX_BYTES // 2**20} MiB")
    try:
        return decode(data)
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from None
