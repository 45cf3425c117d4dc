"""Pictures: exact round trips, premultiplied resizing, and one-line errors."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mezzotint.files import WriteError
from mezzotint.modalities import image as pictures
from mezzotint.modalities import metadata
from mezzotint.modalities.image import ImageError


def array(pixels: object) -> Image.Image:
    return Image.fromarray(np.asarray(pixels, dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


# --- tensors ----------------------------------------------------------------------------------


def test_values_follow_the_definition() -> None:
    tensor = pictures.to_tensor(array([[[255, 0, 51, 128]]]), "rgba")
    alpha = 128 / 255
    expected = torch.tensor([alpha, 0, alpha * 51 / 255, alpha]) * 2 - 1
    assert tensor.dtype == torch.float32
    torch.testing.assert_close(tensor[:, 0, 0], expected)


def test_grey_and_rgb_round_trip_every_value_exactly() -> None:
    grey = array(np.arange(256).reshape(16, 16))
    assert np.array_equal(pictures.to_image(pictures.to_tensor(grey, "grey")), grey)
    colour = array(np.random.default_rng(0).integers(0, 256, (32, 48, 3)))
    assert np.array_equal(pictures.to_image(pictures.to_tensor(colour, "rgb")), colour)


def test_rgba_round_trips_every_colour_at_every_alpha_exactly() -> None:
    alpha, colour = np.mgrid[1:256, 0:256]
    image = array(np.stack([colour, 255 - colour, colour // 2, alpha], axis=-1))
    back = pictures.to_image(pictures.to_tensor(image, "rgba"))
    assert back.mode == "RGBA"
    assert np.array_equal(back, image)


def test_transparent_pixels_have_one_value() -> None:
    tensor = pictures.to_tensor(array([[[200, 100, 50, 0]]]), "rgba")
    assert torch.equal(tensor, torch.full((4, 1, 1), -1.0))
    assert pictures.to_image(tensor).getpixel((0, 0)) == (0, 0, 0, 0)


def test_colour_above_alpha_and_values_out_of_range_are_clamped() -> None:
    alpha = 2 * 100 / 255 - 1
    pixel = torch.tensor([1.0, alpha, -7.0, alpha]).view(4, 1, 1)
    assert pictures.to_image(pixel).getpixel((0, 0)) == (255, 255, 0, 100)
    assert pictures.to_image(torch.full((1, 1, 1), 9.0)).getpixel((0, 0)) == 255


def test_what_is_seen_is_nearest_to_what_was_asked_for() -> None:
    generator = torch.Generator().manual_seed(1)
    alpha = torch.rand(1, 64, 64, generator=generator)
    colour = torch.rand(3, 64, 64, generator=generator) * alpha
    asked = torch.cat([colour, alpha]) * 2 - 1
    seen = pictures.to_tensor(pictures.to_image(asked), "rgba")
    # half a level of rounding in alpha, and as much in colour
    assert float((seen - asked).abs().max()) <= 2 * (0.5 + 0.5) / 255 + 1e-6
    assert bool((seen[:3] <= seen[3:] + 1e-6).all())


def test_halves_round_up() -> None:
    levels = torch.arange(255) + 0.5
    image = pictures.to_image((levels / 127.5 - 1).view(1, 1, -1).double().float())
    # 0.5 is not exact in [−1, 1]: neighbours only, and never alternating as halves-to-even would
    steps = np.diff(np.asarray(image)[0].astype(int))
    assert pictures.to_image(torch.zeros(1, 1, 1)).getpixel((0, 0)) == 128  # exactly 127.5
    assert set(steps.tolist()) <= {0, 1, 2}


@pytest.mark.parametrize("shape", [(2, 4, 4), (4, 4), (1, 3, 4, 4)])
def test_to_image_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a picture is"):
        pictures.to_image(torch.zeros(shape))


def test_to_image_refuses_nan() -> None:
    with pytest.raises(ValueError, match="not finite"):
        pictures.to_image(torch.full((3, 2, 2), float("nan")))


def test_unknown_channels() -> None:
    with pytest.raises(ValueError, match="grey, rgb, rgba"):
        pictures.to_tensor(Image.new("L", (4, 4)), "gray")  # type: ignore[arg-type]


# --- kinds of files ---------------------------------------------------------------------------


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep = Image.fromarray(np.array([[0, 257 * 100, 65535]], dtype=np.uint16))
    tensor = pictures.to_tensor(pictures.decode(encoded(deep)), "grey")
    expected = torch.tensor([0, 100, 255]) / 127.5 - 1
    torch.testing.assert_close(tensor[0, 0], expected)


def test_transparency_lies_on_white_without_an_alpha_channel() -> None:
    image = array([[[255, 0, 0, 0], [0, 0, 0, 255]]])
    tensor = pictures.to_tensor(image, "rgb")
    assert torch.equal(tensor[:, 0, 0], torch.ones(3))
    assert torch.equal(tensor[:, 0, 1], -torch.ones(3))
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([255, 0, 0])
    data = encoded(palette, "GIF", transparency=0)
    assert torch.equal(pictures.to_tensor(pictures.decode(data), "grey"), torch.ones(1, 2, 2))


def test_cameras_turn_pictures() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    image = pictures.decode(encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif))
    assert image.size == (20, 40)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    tensor = pictures.to_tensor(pictures.decode(data), "rgb")
    assert torch.equal(tensor[:, 0, 0], torch.tensor([1.0, -1.0, -1.0]))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"no picture at all", "no picture of a known format"),
        (encoded(array(np.arange(3072).reshape(32, 32, 3) % 256))[:100], "damaged"),
        (encoded(Image.new("RGB", (64, 64)), "JPEG")[:400], "damaged"),
        (encoded(Image.new("RGB", (64, 64)), "WEBP")[:30], "no picture|damaged"),
        (png_header(9_000, 9_000), "megapixels"),
        (png_header(10_000, 10_000), "megapixels"),
        (png_header(50_000, 50_000), "megapixels"),
    ],
)
def test_bad_files_give_one_line(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=reason) as caught:
        pictures.read(path, "rgb")
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file() -> None:
    with pytest.raises(ImageError, match=r"nowhere\.png: no such file"):
        pictures.read("nowhere.png", "rgb")


def test_masks(tmp_path: Path) -> None:
    array([[0, 255, 51]]).save(tmp_path / "grey.png")
    expected = torch.tensor([[[0, 1, 0.2]]])
    torch.testing.assert_close(pictures.read_mask(tmp_path / "grey.png"), expected)
    array([[[255, 255, 255, 0], [0, 0, 0, 255]]]).save(tmp_path / "alpha.png")
    assert torch.equal(pictures.read_mask(tmp_path / "alpha.png"), torch.tensor([[[0.0, 1.0]]]))
    # Opaque everywhere: programs that always store an alpha mean its grey.
    array([[[0, 0, 0, 255], [255, 255, 255, 255], [51, 51, 51, 255]]]).save(tmp_path / "all.png")
    torch.testing.assert_close(pictures.read_mask(tmp_path / "all.png"), expected)
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ImageError, match=r"float.tif: floating-point pictures"):
        pictures.read_mask(tmp_path / "float.tif")


# --- resizing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(5, 5), (64, 64), (16, 48)])
def test_a_flat_picture_stays_flat(size: tuple[int, int]) -> None:
    flat = Image.new("RGB", (40, 30), (10, 200, 77))
    fitted = pictures.fit(flat, "rgb", size)
    assert fitted.shape == (3, *size)
    expected = (torch.tensor([10.0, 200, 77]) / 127.5 - 1).view(3, 1, 1).expand_as(fitted)
    torch.testing.assert_close(fitted, expected)


def test_the_middle_is_taken() -> None:
    pixels = np.zeros((8, 24), dtype=np.uint8)
    pixels[:, 8:16] = 255
    assert torch.equal(pictures.fit(array(pixels), "grey", (8, 8)), torch.ones(1, 8, 8))


def test_at_its_own_size_only_alpha_touches_the_bytes() -> None:
    image = array(np.random.default_rng(2).integers(0, 256, (16, 16, 3)))
    same = pictures.fit(image, "rgb", (16, 16))
    assert torch.equal(same, pictures.to_tensor(image, "rgb"))


def test_fine_stripes_become_grey_without_aliasing() -> None:
    pixels = np.tile(np.array([[0, 255]], dtype=np.uint8), (64, 32))
    fitted = pictures.fit(array(pixels), "grey", (8, 8))
    assert float(fitted[:, 2:-2, 2:-2].abs().max()) < 0.02


def test_the_colour_of_transparent_pixels_never_bleeds() -> None:
    pixels = np.zeros((32, 32, 4), dtype=np.uint8)
    pixels[..., 0] = 255  # red, but transparent …
    pixels[:, 16:] = (0, 0, 255, 255)  # … beside opaque blue
    fitted = pictures.fit(array(pixels), "rgba", (10, 10))
    assert float(fitted[0].max()) == -1.0
    assert bool((fitted[2] <= fitted[3]).all())


# --- writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.webp", "A.PNG"])
def test_lossless_files_keep_pixels_and_text(name: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(1, 256, (8, 8, 4))
    image, path = array(pixels), tmp_path / name
    pictures.write(image, path, {"parameters": json.dumps({"prompt": "a fox"}), "note": "füchse"})
    with Image.open(path) as back:
        assert np.array_equal(back, image)
        if path.suffix.lower() == ".png":
            assert json.loads(back.text["parameters"])["prompt"] == "a fox"  # type: ignore[attr-defined]
            assert back.text["note"] == "füchse"  # type: ignore[attr-defined]
        else:
            assert '"prompt": "a fox"' in back.getexif()[0x010E]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_tiff_is_exact_and_carries_text(mode: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(4).integers(1, 256, (8, 8, len(mode))).astype(np.uint8)
    image = array(pixels if mode != "L" else pixels[..., 0])
    pictures.write(image, tmp_path / "a.tif", {"parameters": "{}"})
    with Image.open(tmp_path / "a.tif") as back:
        assert back.format == "TIFF" and np.array_equal(back, image)
    assert pictures.read_text(tmp_path / "a.tif")["parameters"] == "{}"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_document_is_read_as_text(kind: str, tmp_path: Path) -> None:
    """Of the metadata, before what an older version wrote."""
    data = pictures.encode(Image.new("RGB", (9, 9)), kind, {"note": "1", "parameters": "old"})
    (tmp_path / "x").write_bytes(metadata.embed(data, kind, '{"a": "<é>"}'))
    said = {**pictures.read_text(tmp_path / "x")}
    assert said["parameters"] == '{"a": "<é>"}' and said["note"] == "1"
    (tmp_path / "x").write_bytes(data)
    assert pictures.read_text(tmp_path / "x")["parameters"] == "old"


def test_texts_of_other_programs_in_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0110], exif[0x010F] = 'prompt:{"1": {}}', 'workflow:{"nodes": []}'
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "füchse\nSteps: 2".encode("utf-16-be")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.webp", exif=exif)
    assert pictures.read_text(tmp_path / "a.webp") == {
        "prompt": '{"1": {}}',
        "workflow": '{"nodes": []}',
        "parameters": "füchse\nSteps: 2",
    }


def test_jpeg_lies_on_white(tmp_path: Path) -> None:
    pictures.write(Image.new("RGBA", (16, 16), (0, 0, 0, 0)), tmp_path / "a.jpg", {"k": "v"})
    with Image.open(tmp_path / "a.jpg") as back:
        assert back.mode == "RGB"
        assert back.getextrema() == ((255, 255),) * 3
        assert back.getexif()[0x010E] == "k: v"


@pytest.mark.parametrize("name", ["a.gif", "a", "a.xyz"])
def test_unknown_extensions_name_the_known(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"choose one of \.png, \.webp"):
        pictures.write(Image.new("L", (4, 4)), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="nowhere"):
        pictures.write(Image.new("L", (4, 4)), tmp_path / "nowhere" / "a.png")


# --- contact sheets ---------------------------------------------------------------------------


def test_a_sheet_shows_transparency_and_every_picture() -> None:
    clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    solid = [Image.new("RGB", (64, 64), colour) for colour in ("red", "lime", "blue", "black")]
    sheet = pictures.contact_sheet([clear, *solid], columns=3, captions=["a"] * 5)
    assert sheet.mode == "RGB"
    assert sheet.width == 4 + 3 * (64 + 4)
    cell = np.asarray(sheet)[4:68, 4:68]
    assert {tuple(pixel) for pixel in cell.reshape(-1, 3)} == {(255,) * 3, (229,) * 3}
    colours = {colour for _, colour in sheet.getcolors(65536) or ()}
    assert {(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)} <= colours


def test_captions_take_room_and_long_ones_are_cut() -> None:
    image = Image.new("RGB", (32, 32), "white")
    plain = pictures.contact_sheet([image])
    captioned = pictures.contact_sheet([image], captions=["a very long caption " * 9])
    assert captioned.height > plain.height
    assert captioned.width == plain.width
    assert np.asarray(captioned)[-4:].min() == 255  # nothing below the caption
    assert np.asarray(captioned)[36:].min() < 100


def test_sheets_refuse_what_makes_no_sheet() -> None:
    image = Image.new("L", (4, 4))
    with pytest.raises(ValueError, match="at least one picture"):
        pictures.contact_sheet([])
    with pytest.raises(ValueError, match="2 captions for 1"):
        pictures.contact_sheet([image], captions=["a", "b"])
    with pytest.raises(ValueError, match="at least one column"):
        pictures.contact_sheet([image], columns=0)


def test_a_contact_sheet_enlarges_tiny_pictures_by_a_whole_number() -> None:
    dots = Image.new("L", (8, 8))
    dots.putpixel((3, 2), 255)
    sheet = np.asarray(pictures.contact_sheet([dots]).convert("L"))
    inside = sheet[sheet.shape[0] // 2 - 24 :, sheet.shape[1] // 2 - 24 :][:48, :48]
    assert (inside[12:18, 18:24] == 255).all() and int((inside == 255).sum()) == 36
