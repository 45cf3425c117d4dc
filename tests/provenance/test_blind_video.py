"""The mark in a clip: through H.264, and not where there is none."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from mezzotint.modalities import video
from mezzotint.modalities.video import VideoError, spread
from mezzotint.provenance import blind_video
from mezzotint.provenance.codeword import WatermarkError

KEY = b"a key of the tests, thirty-two b"
PAYLOAD = 0x0123_4567_89AB_CDEF


def frames(count: int) -> list[Image.Image]:
    """A photograph that a camera passes over."""
    photo = load_sample_image("china.jpg")
    return [Image.fromarray(photo[:320, 4 * n : 4 * n + 320]) for n in range(count)]


def clip(path: Path, shown: list[Image.Image], quality: str) -> Path:
    """A clip of H.264 at a constant rate factor."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=12, options={"crf": quality})
        stream.width, stream.height, stream.pix_fmt = *shown[0].size, "yuv420p"
        for each in shown:
            file.mux(stream.encode(av.VideoFrame.from_image(each)))
        file.mux(stream.encode())
    return path


def test_found_after_a_codec(tmp_path: Path) -> None:
    marked = list(blind_video.embed(frames(12), PAYLOAD, KEY))
    read = video.read(clip(tmp_path / "a.mp4", marked, "26"), blind_video.FRAMES)
    assert 4 <= len(read) < 8 and read[0].size == (320, 320)
    found = blind_video.detect(read, KEY)
    assert found.payload == PAYLOAD and found.p_value <= 1e-6
    assert blind_video.detect(read[:2], b"another key" * 3).p_value > 1e-3
    assert blind_video.detect(frames(2), KEY).p_value > 1e-3  # no mark


def test_the_mean_of_frames_is_a_look_of_its_own() -> None:
    """What is too weak in each under its own noise shows in the mean."""
    (marked,) = blind_video.embed(frames(1), PAYLOAD, KEY)
    dice = np.random.default_rng(0)
    noise = [dice.normal(0, 40, (320, 320, 3)) for _ in range(6)]
    noisy = [
        Image.fromarray(np.clip(np.asarray(marked) + each, 0, 255).astype(np.uint8))
        for each in noise
    ]
    one, all_ = blind_video.detect(noisy[:1], KEY), blind_video.detect(noisy, KEY)
    assert all_.p_value < one.p_value and all_.p_value <= 1e-6


@pytest.mark.parametrize(("length", "kept"), [(1, 1), (7, 7), (8, 4), (14, 7), (15, 4), (100, 7)])
def test_frames_are_spread(length: int, kept: int) -> None:
    shown = [Image.new("L", (1, 1), n) for n in range(length)]
    found = [each.getpixel((0, 0)) for each in spread(iter(shown), 4)]
    assert len(found) == kept and found[0] == 0
    assert len({b - a for a, b in itertools.pairwise(found)}) <= 1  # type: ignore[operator]


def test_what_is_no_clip(tmp_path: Path) -> None:
    good = clip(tmp_path / "a.mp4", frames(3), "28").read_bytes()
    for name, data_ in (("empty", b""), ("text", b"what" * 100), ("torn", good[:300])):
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(data_)
        with pytest.raises(VideoError) as caught:
            video.read(path, 4)
        assert "\n" not in str(caught.value)
    with pytest.raises(VideoError, match="no such file"):
        video.read(tmp_path / "none.mp4", 4)
    with pytest.raises(WatermarkError):
        blind_video.detect([], KEY)


def test_a_playlist_opens_nothing(tmp_path: Path) -> None:
    """FFmpeg follows some files to others; here a clip is what is in it."""
    secret = clip(tmp_path / "secret.mp4", frames(2), "28")
    for name, text in (
        ("list.mp4", f"ffconcat version 1.0\nfile '{secret}'\n"),
        (
            "hls.mp4",
            f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        ),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(VideoError):
            video.read(tmp_path / name, 4)
