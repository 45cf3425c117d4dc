"""Clips: files → some of their frames.

MP4, MOV, WebM and MKV are read by FFmpeg's libraries (``av``), from the file at hand alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".webm": "webm", ".mkv": "matroska"}
READABLE = tuple(_FORMATS)
MAX_BYTES = 4 << 30
MAX_PIXELS = 8192 * 8192
MAX_FRAMES = 200_000
"""Frames that are decoded at the most, two hours of a usual clip."""


class VideoError(ValueError):
    """A clip cannot be read; the message is one line, without the file's name."""


def spread(frames: Iterable[Image.Image], count: int) -> list[Image.Image]:
    """At least ``count`` and fewer than twice as many frames, evenly spaced (of a short clip all).

    How many there are is known at the end only: when twice as many are kept, every second goes.
    """
    kept: list[Image.Image] = []
    stride = 1
    for number, frame in enumerate(frames):
        if number % stride == 0:
            kept.append(frame)
            if len(kept) == 2 * count:
                kept, stride = kept[::2], 2 * stride
    return kept


def read(path: Path, count: int) -> list[Image.Image]:
    """Frames of a clip as RGB, evenly spaced: see :func:`spread`.

    Raises:
        VideoError: it is none, damaged, or too large, or ``av`` is not there.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise VideoError(f"is larger than {MAX_BYTES >> 30} GB")
        import av
        from av import logging
    except ImportError:
        raise VideoError("clips are read by av: pip install 'mezzotint[video]'") from None
    except OSError as error:
        raise VideoError((error.strerror or str(error)).lower()) from None
    logging.set_level(logging.PANIC)  # of damaged files it says much
    form = _FORMATS.get(path.suffix.lower(), "mp4")
    try:
        # A stream of bytes in a format that is said: no playlist, which makes it open other files.
        with path.open("rb") as file, av.open(file, "r", format=form) as clip:
            if not clip.streams.video:
                raise VideoError("has no pictures")
            stream = clip.streams.video[0]
            if stream.width * stream.height > MAX_PIXELS:
                raise VideoError(f"{stream.width}x{stream.height} is too large")
            found = spread(_decoded(clip, stream), count)
    except VideoError:
        raise
    except Exception as error:  # FFmpegError, ValueError, MemoryError … of damaged files
        told = " ".join(str(error).split()) or type(error).__name__
        raise VideoError(f"is no clip that can be read: {told[:200]}") from None
    if not found:
        raise VideoError("has no pictures")
    return found


def _decoded(clip: object, stream: object) -> Iterable[Image.Image]:
    for number, frame in enumerate(clip.decode(stream)):  # type: ignore[attr-defined]
        if number >= MAX_FRAMES:
            return
        if frame.width * frame.height > MAX_PIXELS:  # a clip may change its size
            raise VideoError(f"{frame.width}x{frame.height} is too large")
        yield frame.to_image()
