"""The corpus recipe of the `icons` model, on tiny drawings and without a network."""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("resvg")
RECIPE = Path(__file__).parents[1] / "recipes" / "icons"
sys.path.insert(0, str(RECIPE))

import corpus  # noqa: E402
from corpus_archive import Credit, Record, write_archive  # noqa: E402
from corpus_clipart import read_clip_info, strip_creator  # noqa: E402
from corpus_fetch import CorpusError, Package, fetch  # noqa: E402
from corpus_merge import decode, duplicates, merge_concepts  # noqa: E402
from corpus_render import (  # noqa: E402
    RenderError,
    content_box,
    encode,
    render_svg,
    resize_svg,
    thumbnail,
    wrap_icon,
)
from corpus_words import (  # noqa: E402
    EmojiWords,
    Splitter,
    captions,
    code,
    concept,
    emoji_concept,
    held_out,
    name_label,
    untoned,
    useful_tags,
)

DISC = {"body": '<circle cx="30" cy="8" r="5" fill="#d02020"/>'}
BOX = {"width": 40, "height": 20}


def test_captions_are_the_same_every_time_and_start_with_the_label() -> None:
    tags = ("animal", "bear", "zoo", "bamboo", "cute")
    style = "emoji, flat style"
    first = captions("set:panda", "panda", tags, style)
    assert first == captions("set:panda", "panda", tags, style)
    assert first != captions("set:panda-2", "panda", tags, style)
    assert len(first) == 8
    assert first[:2] == ["panda, emoji, flat style", "panda"]
    for caption in first:
        bare = caption.removesuffix(", flat style").removesuffix(", emoji")
        label, *rest = bare.split(", ")
        assert label == "panda"
        assert len(rest) <= 4
        assert set(rest) <= set(tags)


def test_captions_without_tags() -> None:
    assert set(captions("k", "moon", (), "icon")) == {"moon", "moon, icon"}


def test_useful_tags_leave_out_the_label_codes_and_smileys() -> None:
    words = ["faces", "face", "big_grin", ":D", "blue square", "h264", "ok", "big grin"]
    assert useful_tags(words, "grinning face") == ("big grin", "blue square")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("paginate-filter-9", "paginate filter"),
        ("org-24", "org"),
        ("search-flat", "search"),
        ("watch-2-flat", "watch"),
        ("die-4", "die 4"),
        ("wind-beaufort-7", "wind beaufort 7"),
        ("cloud-error-404", "cloud error 404"),
        ("flat", "flat"),
        ("phone-two", "phone"),
        ("right-down2", "right down"),
    ],
)
def test_name_label(name: str, label: str) -> None:
    assert name_label(name, ("flat",), number_words=True) == label


def test_concepts_forget_number_tone_and_gender() -> None:
    assert concept("Red Apples") == concept("red apple") == "red apple"
    assert concept("glasses") == "glasses"
    assert concept("boxes and branches") == "box and branch"
    workers = {"woman farmer", "man farmer", "farmer", "person farmer"}
    assert {emoji_concept(label) for label in workers} == {"farmer"}
    assert emoji_concept("woman in tuxedo") == emoji_concept("man in tuxedo")
    assert emoji_concept("man: beard") == emoji_concept("woman: beard") == "beard"
    assert emoji_concept("kiss: woman, man") == "kiss"
    assert emoji_concept("woman and man holding hands") == emoji_concept("men holding hands")
    assert emoji_concept("man") == "person"
    assert untoned("skier-medium-dark-skin-tone") == ("skier", True)
    assert untoned("sun-light") == ("sun-light", False)


def test_hold_out_rule() -> None:
    names = [f"thing {number}" for number in range(2000)]
    for name in names[:50]:
        assert held_out(name) == (int(hashlib.sha1(name.encode()).hexdigest(), 16) % 20 == 0)
    assert 60 < sum(map(held_out, names)) < 140


def test_emoji_words_by_code_and_by_name() -> None:
    row = {"label": "waving hand", "hexcode": "1F44B", "tags": ["bye"], "group": 1, "subgroup": 16}
    skin = {"label": "waving hand: dark skin tone", "hexcode": "1F44B-1F3FF"}
    words = EmojiWords([{**row, "skins": [skin]}], {"👋": ["waving_hand", "hello"]}, {"16": "hand"})
    words.add_names({"1F44B": ["wave"], "1F600": "grinning"})
    entry = words.find("anything", "1f44b-fe0f")
    assert entry is not None
    assert (entry.label, entry.tags, entry.toned) == (
        "waving hand",
        ("bye", "hello", "hand"),
        False,
    )
    assert words.find("wave-2") == entry
    toned = words.find("waving-hand-dark-skin-tone")
    assert toned is not None
    assert (toned.base, toned.toned) == ("waving hand", True)
    assert words.find("grinning") is None
    assert code("0023-FE0F-20E3") == "23-20e3"


def test_splitter_prefers_words_and_keeps_the_unknown_whole() -> None:
    splitter = Splitter({"document", "with", "picture", "pic"})
    assert splitter.split("documentwithpicture") == "document with picture"
    assert splitter.split("qwzx") == "qwzx"


def test_wrapped_icon_is_cropped_centred_and_exact() -> None:
    picture = render_svg(wrap_icon(DISC, BOX, 64), 64)
    left, top, right, bottom = content_box(picture)
    assert picture.size == (64, 64)
    assert picture.mode == "RGBA"
    assert abs(left + right - 64) <= 1
    assert abs(top + bottom - 64) <= 1
    assert 58 <= right - left <= 60  # 92 % of the side
    assert picture.getpixel((32, 32)) == (0xD0, 0x20, 0x20, 255)
    assert picture.getpixel((0, 0)) == (0, 0, 0, 0)
    assert decode(encode(picture)).tobytes() == picture.tobytes()


def test_current_colour_is_a_plain_grey() -> None:
    icon = {"body": '<rect width="9" height="9" fill="currentColor"/>', "width": 9, "height": 9}
    assert render_svg(wrap_icon(icon, {}, 32), 32).getpixel((16, 16)) == (0x3A, 0x3A, 0x3A, 255)


def test_what_fades_in_is_drawn() -> None:
    body = '<rect width="9" height="9" opacity="0"><animate attributeName="opacity"/></rect>'
    icon = {"body": body, "width": 9, "height": 9}
    assert render_svg(wrap_icon(icon, {}, 32), 32).getpixel((16, 16)) == (0, 0, 0, 255)


def test_resized_svg_keeps_its_shape() -> None:
    svg = (
        '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="200" height="100">'
        '<rect width="200" height="100" fill="#00f"/></svg>'
    )
    left, top, right, bottom = content_box(render_svg(resize_svg(svg, 64), 64))
    assert (right - left) == pytest.approx(2 * (bottom - top), abs=2)
    assert (left + right, top + bottom) == pytest.approx((64, 64), abs=1)


@pytest.mark.parametrize("svg", ["<svg", "<svg xmlns='http://www.w3.org/2000/svg'/>", "none"])
def test_bad_drawings_are_refused_not_raised(svg: str) -> None:
    assert isinstance(corpus.render_one(svg, 32), str)
    with pytest.raises(RenderError):
        render_svg(resize_svg(svg, 32), 32)


def _thumb(body: str) -> np.ndarray:
    return thumbnail(render_svg(wrap_icon({"body": body}, {"width": 20, "height": 20}, 64), 64))


def test_duplicates_see_shape_colour_and_small_marks() -> None:
    heart = '<path fill="{}" d="M10 18 2 9a4 4 0 0 1 8-4 4 4 0 0 1 8 4z"/>'
    drawings = [
        heart.format("#e00000"),
        heart.format("#e10000"),  # the same to the eye
        heart.format("#0000e0"),
        heart.format("#e00000") + '<circle cx="10" cy="9" r="1.5" fill="#fff"/>',
        '<rect x="2" y="2" width="16" height="16" fill="#e00000"/>',
    ]
    assert duplicates([_thumb(body) for body in drawings]) == [None, 0, None, None, None]


def test_concepts_merge_into_the_most_frequent_and_never_in_chains() -> None:
    degrees = {"cat": 0, "kitten": 20, "cub": 40, "dog": 90}

    def embed(names: Sequence[str]) -> np.ndarray:
        angles = np.radians([degrees[name] for name in names])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    counts = Counter({"cat": 5, "kitten": 2, "cub": 1, "dog": 5})
    heads = merge_concepts(counts, embed)
    # cub is near kitten, but kitten is no representative, and cat is too far from cub
    assert heads == {"cat": "cat", "kitten": "cat", "cub": "cub", "dog": "dog"}


def test_clip_art_metadata_and_file_names() -> None:
    svg = b"""<svg xmlns="http://www.w3.org/2000/svg"
        xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
        xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:cc="http://web.resource.org/cc/">
        <metadata><cc:Work><dc:title>Bucket</dc:title><dc:creator>Ann Moore</dc:creator>
        <dc:subject><rdf:Bag><rdf:li>tools</rdf:li></rdf:Bag></dc:subject>
        <cc:license rdf:resource="http://web.resource.org/cc/PublicDomain"/></cc:Work></metadata>
        </svg>"""
    info = read_clip_info(svg)
    assert (info.title, info.creator, info.subjects, info.free) == (
        "Bucket",
        "Ann Moore",
        ("tools",),
        True,
    )
    assert not read_clip_info(svg.replace(b"cc/PublicDomain", b"cc/GPL")).free
    assert not read_clip_info(b"<svg").free
    assert strip_creator("bucket_ann_moo_01", "Ann Moore") == ["bucket"]


def _record(number: int, split: str = "train") -> Record:
    return Record(
        file=f"pictures/{number:06d}.webp",
        captions=["a"] * 8,
        label="a",
        concept="a",
        split=split,
        weight=1.0,
        set="s",
        style="icon",
        licence="MIT",
        source=f"p@1:{number}",
        author=None,
    )


def test_archive_is_the_same_twice_sorted_and_stored(tmp_path: Path) -> None:
    records = [_record(3), _record(1), _record(2, "heldout")]
    bodies = [f'<rect width="{n}" height="8" fill="#123"/>' for n in (3, 1, 2)]
    icons = [wrap_icon({"body": body}, {"width": 8, "height": 8}, 32) for body in bodies]
    pictures = [encode(render_svg(icon, 32)) for icon in icons]
    holders = [Credit("s", "MIT", "Somebody", "", "", "p@1")]
    paths = [tmp_path / "one.zip", tmp_path / "two.zip"]
    for path in paths:
        write_archive(path, records, pictures, holders)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.zip", "two.zip"]
    with zipfile.ZipFile(paths[0]) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        lines = [json.loads(line) for line in archive.read("metadata.jsonl").splitlines()]
        assert [line["source"] for line in lines] == ["p@1:1", "p@1:2", "p@1:3"]
        assert archive.read(lines[0]["file"]) == pictures[1]
        assert "| s | 3 | Somebody |" in archive.read("LICENCES.md").decode()


def test_a_package_with_the_wrong_digest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.tgz").write_bytes(b"other")
    package = Package("p", "1", "npm", "p.tgz", "0" * 64)
    with pytest.raises(CorpusError, match=r"p\.tgz: SHA-256 is"):
        fetch(package, tmp_path)


def test_foreseeable_failures_end_with_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "missing" / "out.zip"
    assert corpus.main(["--cache", str(tmp_path), "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"corpus: --out: no folder {out.parent}\n"
