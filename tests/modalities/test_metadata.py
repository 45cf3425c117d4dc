"""A document in every kind of file: other libraries see it, and the same pixels and samples."""

from __future__ import annotations

import io
import json
import zlib

import av
import numpy as np
import pytest
import soundfile
import trimesh
from defusedxml import ElementTree
from PIL import Image

from media_files import MADE, content
from mezzotint.modalities import metadata
from mezzotint.modalities.metadata import MetadataError, Said, embed, extract, texts, xmp

TEXT = json.dumps({"format": 1, "prompt": 'a <fox> & "b" \\ ]]> füchse 💥', "n": "\u0007"})
WIDE = json.dumps({"prompt": "füchse <b> & 💥\n"}, ensure_ascii=False)
OURS = f"{{{xmp.OURS}}}{xmp.NAME}"


def same(kind: str, one: bytes, other: bytes) -> bool:
    a, b = content(kind, one), content(kind, other)
    return len(a) == len(b) > 0 and all(map(np.array_equal, a, b))


@pytest.fixture(scope="module", params=MADE)
def made(request: pytest.FixtureRequest) -> tuple[str, bytes]:
    kind, make = MADE[request.param]
    return kind, make()


def test_what_goes_in_comes_out_and_the_media_are_the_same(made: tuple[str, bytes]) -> None:
    kind, data = made
    assert metadata.kind_of(data) == kind and extract(data) is None
    for text in (TEXT, WIDE, "x", "y" * 200_000):
        written = embed(data, kind, text)
        assert extract(written) == text
        assert same(kind, data, written)


def test_a_second_one_replaces_the_first(made: tuple[str, bytes]) -> None:
    kind, data = made
    once = embed(data, kind, TEXT)
    again = embed(embed(data, kind, "the first <one>"), kind, TEXT)
    assert extract(again) == TEXT and b"the first" not in again
    assert len(again) <= len(once) + 200 and same(kind, data, again)
    assert extract(embed(embed(again, kind, "z" * 90_000), kind, TEXT)) == TEXT


def test_a_file_that_is_cut_off_says_so_or_reads_nothing_else(made: tuple[str, bytes]) -> None:
    kind, data = made
    written = embed(data, kind, TEXT)
    for end in {*range(60), *range(60, len(written), max(1, len(written) // 150))}:
        try:
            assert extract(written[:end]) in (None, TEXT)
        except MetadataError as error:
            assert "\n" not in str(error)


# --- what others see --------------------------------------------------------------------------


def packet_of(kind: str, data: bytes) -> str:
    """The XMP that Pillow finds."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        found = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp")
        if kind == "TIFF":
            found = image.tag_v2[700]  # type: ignore[attr-defined]
    return found.decode() if isinstance(found, bytes) else str(found)


@pytest.mark.parametrize("name", [name for name in MADE if MADE[name][0] in Image.SAVE])
def test_pillow_finds_the_packet(name: str) -> None:
    kind, make = MADE[name]
    said = Said("mezzotint 9", metadata.COMPOSITE)
    found = ElementTree.fromstring(packet_of(kind, embed(make(), kind, TEXT, said)))
    assert [element.text for element in found.iter(OURS)] == [TEXT]
    values = {element.tag.partition("}")[2]: element.text for element in found.iter()}
    assert values["CreatorTool"] == "mezzotint 9"
    assert values["DigitalSourceType"] == metadata.COMPOSITE


def test_pillow_finds_the_text_of_a_png_and_all_others() -> None:
    data = MADE["png"][1]()
    for text in (TEXT, WIDE):
        with Image.open(io.BytesIO(embed(data, "PNG", text))) as image:
            assert image.text["parameters"] == text  # type: ignore[attr-defined]
            assert image.text["Title"] == "a title" and image.text["note"] == "füchse"  # type: ignore[attr-defined]
        assert texts(embed(data, "PNG", text)) == {
            "Title": "a title",
            "note": "füchse",
            "parameters": text,
        }


@pytest.mark.parametrize("name", ["jpeg, progressive, exif", "webp, exif"])
def test_exif_is_kept(name: str) -> None:
    kind, make = MADE[name]
    with Image.open(io.BytesIO(embed(make(), kind, TEXT))) as image:
        assert image.getexif()[0x010E] == "a description"


def test_an_alpha_is_announced() -> None:
    with Image.open(io.BytesIO(embed(MADE["webp, alpha"][1](), "WEBP", TEXT))) as image:
        assert image.mode == "RGBA" and image.size == (12, 10)


@pytest.mark.parametrize("name", ["webm", "matroska"])
def test_ffmpeg_finds_the_tag(name: str) -> None:
    kind, make = MADE[name]
    for text in (TEXT, "longer" * 1000):
        with av.open(io.BytesIO(embed(embed(make(), kind, TEXT), kind, text))) as container:
            assert container.metadata["MEZZOTINT_RECIPE"] == text
            assert container.metadata["title"] == "a title"
            container.seek(500_000)
            assert next(container.decode(video=0)).pts is not None


def test_ffmpeg_and_libsndfile_read_the_comments_of_a_flac() -> None:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 8000, 1, "PCM_16", format="FLAC") as sound:
        sound.title = "a title"
        sound.write(np.zeros(100))
    written = embed(file.getvalue(), "FLAC", TEXT)
    with av.open(io.BytesIO(written)) as container:
        assert container.metadata["MEZZOTINT_RECIPE"] == TEXT
    with soundfile.SoundFile(io.BytesIO(written)) as sound:
        assert sound.title == "a title"
    assert texts(written)["title"] == "a title"


def test_a_tag_before_a_flac_stays() -> None:
    data = b"ID3\x04\0\0\0\0\x01\x02" + bytes(130) + MADE["flac"][1]()
    written = embed(embed(data, "FLAC", "first"), "FLAC", TEXT)
    assert extract(written) == TEXT and written.startswith(data[:140])
    assert metadata.kind_of(data[:140] + b"\xff\xfb") is None  # an MP3
    with av.open(io.BytesIO(written)) as container:
        assert container.metadata["MEZZOTINT_RECIPE"] == TEXT


def test_trimesh_finds_it_in_a_scene() -> None:
    written = embed(MADE["glb"][1](), "GLB", TEXT)
    size = int.from_bytes(written[12:16], "little")
    assert json.loads(written[20 : 20 + size])["asset"]["extras"]["mezzotint"]["document"] == TEXT
    assert trimesh.load(io.BytesIO(written), file_type="glb").geometry  # type: ignore[union-attr]


# --- packets of others ------------------------------------------------------------------------

OTHER = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description r:about="uuid:1" '
    'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="Camera"/></r:RDF></x:xmpmeta>'
    + " " * 40
    + '<?xpacket end="w"?>'
)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("text", [TEXT, "long" * 30_000])
def test_what_others_say_is_kept(kind: str, text: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind, xmp=OTHER.encode())
    written = embed(embed(file.getvalue(), kind, "first"), kind, text)
    packet = packet_of(kind, written)
    assert 'xmp:CreatorTool="Camera"' in packet and packet.count("CreatorTool") == 1
    assert extract(written) == text
    about = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}about"
    found = [e.attrib[about] for e in ElementTree.fromstring(packet.lstrip()).iter() if e.attrib]
    assert set(found) == {"uuid:1"}


def test_a_packet_that_another_program_wrote_anew() -> None:
    """As an attribute in place of an element, with another prefix, or in UTF-16."""
    rdf = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
    inner = {
        "attribute": f"<rdf:Description xmlns:m='{xmp.OURS}' m:document='a&#10;b&gt;' m:x='1'/>",
        "element": f"<rdf:Description xmlns:m='{xmp.OURS}'><m:document>a\nb></m:document>"
        "<m:x>1</m:x></rdf:Description>",
    }
    for body in inner.values():
        packet = f"<rdf:RDF xmlns:rdf='{rdf}'>{body}</rdf:RDF>"
        for raw in (packet.encode(), packet.encode("utf-16"), packet.encode() + b"\0\0"):
            assert xmp.document(raw) == "a\nb>"
            again = xmp.packet("new", Said(), raw)
            assert xmp.document(again) == "new" and b">a" not in again and b"x" in again


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "document type or entities"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "document type or entities"),
        ("<a>&b;</a>", "no XML"),
        ("<a>" * 100 + "</a>" * 100, "too deeply"),
        ("<a>" + "<b/>" * 60_000 + "</a>", "too many"),
        ("<a" + "".join(f' a{n}=""' for n in range(60_000)) + "/>", "a tag of more than"),
        ("<a>", "no XML"),
        ("\ud800", "no XML"),
        (f"<a xmlns:m='{xmp.OURS}'><m:document>1</m:document><m:document/></a>", "2 documents"),
        (f"<a xmlns:m='{xmp.OURS}'><m:document>1<b/></m:document></a>", "elements in the doc"),
    ],
)
def test_hostile_packets(packet: str, message: str) -> None:
    raw = packet.encode("utf-8", "surrogatepass")
    for action in (xmp.document, lambda raw: xmp.packet("x", Said(), raw)):
        with pytest.raises(MetadataError, match=message):
            action(raw)


# --- what is refused --------------------------------------------------------------------------


def test_a_png_that_says_two_things() -> None:
    written = embed(MADE["png"][1](), "PNG", '{"seed": 1}')
    at = written.index(b"tEXtparameters")
    chunk = written[at : at + 4 + len('parameters0{"seed": 1}')].replace(b"1", b"2")
    changed = written[:at] + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    with pytest.raises(MetadataError, match="one thing under 'parameters' and another in its XMP"):
        extract(changed + written[len(changed) :])
    with pytest.raises(MetadataError, match="checksum is wrong"):
        extract(written[:at] + chunk + written[at + len(chunk) :])


def test_wrong_kinds_and_texts() -> None:
    data = MADE["png"][1]()
    with pytest.raises(MetadataError, match="is no JPEG"):
        embed(data, "JPEG", TEXT)
    with pytest.raises(MetadataError, match="'GIF' carries no recipe: choose one of PNG, JPEG"):
        embed(data, "GIF", TEXT)
    with pytest.raises(MetadataError, match="is no file that carries a recipe"):
        extract(b"GIF89a")
    for text in ("a\0b", "\ud800"):
        with pytest.raises(MetadataError, match="zeros or halves"):
            embed(data, "PNG", text)
    with pytest.raises(MetadataError, match=r"no room for the character '\\x07'"):
        embed(data, "PNG", "\x07")
