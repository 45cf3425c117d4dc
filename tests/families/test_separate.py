"""Models whose parts lie in files of their own: the picture of the folder, bit by bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from PIL import Image
from torch import Tensor

import measured
import mezzotint
from mezzotint.apps.cli import main
from mezzotint.checkpoints.files import CheckpointError, load, save
from mezzotint.checkpoints.inspect import Report, inspect, recognise
from mezzotint.checkpoints.keys import to_theirs
from mezzotint.checkpoints.layout import Beside
from mezzotint.checkpoints.source import Entry, Listing, describe
from mezzotint.checkpoints.streamed import Streamed
from mezzotint.checkpoints.tables import clip
from mezzotint.checkpoints.tables.t5 import GGUF
from mezzotint.engine.convert import convert
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Request
from mezzotint.families import catalogue, flow, ldm, separate
from mezzotint.families.catalogue import Family
from mezzotint.families.flux1 import FLUX_DEV
from mezzotint.families.sd1 import SD1
from mezzotint.families.sd2 import SD2
from mezzotint.families.sd3 import SD35_LARGE
from mezzotint.families.sdxl import SDXL
from mezzotint.families.separate import Given
from pipelines import FLOWS, flux, small, small_flow, stable_diffusion, stable_diffusion_3

NAMES = ("sd1", "sdxl", "sd35-large", "flux-dev")
REQUEST = Request("a red fox", (3,), size=(64, 64), steps=2)


def family_of(name: str) -> Family:
    return small_flow(name) if name in FLOWS else small(name)


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(name) / "folder"
    if name in FLOWS:
        (flux(name) if name.startswith("flux") else stable_diffusion_3(name)).save_pretrained(path)
    else:
        stable_diffusion(name).save_pretrained(path)
    return path


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Family]:
    """Lets the small networks of a family be recognised, whose sizes no signature has."""

    def make(name: str) -> Family:
        family = family_of(name)

        def recognise(listing: Listing) -> Report:
            theirs = any("down_blocks." in n or "transformer_blocks." in n for n in listing.tensors)
            return Report(Path(), 0, "", (family.folder if theirs else family.file).kind)

        monkeypatch.setattr(catalogue, "FAMILIES", (family,))
        monkeypatch.setattr(catalogue, "recognise", recognise)
        return family

    return make


def states(family: Family, folder: Path) -> dict[str, dict[str, Tensor]]:
    """Each part of a folder under our names."""
    all_stay = catalogue.Limit(10**12, (64, 64))
    model = catalogue.load(str(folder), "cpu", precision="float32", limit=all_stay)
    assert model.name == family.name
    return {part: module.state_dict() for part, module in model.parts.items()}


def written(family: Family, folder: Path, to: Path) -> dict[str, Path]:
    """The parts of a folder as files of their own, as they are mostly distributed: the denoiser
    and the VAE in the original layout, the text encoders as `transformers` has them."""
    to.mkdir()
    tables = {part: family.file.tables[part] for part in ("network", "autoencoder")}
    paths: dict[str, Path] = {}
    for part, state in states(family, folder).items():
        paths[part] = to / f"{part}.safetensors"
        save(paths[part], to_theirs(state, tables.get(part, family.folder.tables[part])), {})
    return paths


def given(paths: Mapping[str, Path]) -> list[Given]:
    """All but the denoiser; where nothing but widths tells CLIP's encoders apart, which are the
    same here, it is said."""
    said = {"text": "clip_l", "text2": "clip_g"}
    return [
        Given(path, said.get(part) if "text2" in paths else None)
        for part, path in paths.items()
        if part != "network"
    ]


def made(path: Path, parts: list[Given], **more: Any) -> Tensor:
    return generate(catalogue.load(str(path), "cpu", given=parts, **more), REQUEST)[0]


@pytest.mark.parity("text to image", "separate files")
def test_the_picture_of_the_folder(
    name: str, folder: Path, known: Callable[[str], Family], tmp_path: Path
) -> None:
    """Bit by bit, whatever lies where."""
    family = known(name)
    paths, expected = written(family, folder, tmp_path / "parts"), made(folder, [])
    beside = given(paths)
    measured.same(made(paths["network"], beside), expected)
    file = convert(folder, tmp_path / "a.safetensors", "file").path
    measured.same(made(file, []), expected)
    # Behind the prefix of whole checkpoints, in the layout of diffusers, and its folder of shards.
    state = {family.file.places["network"] + n: t for n, t in load(paths["network"])[0].items()}
    save(tmp_path / "prefixed.safetensors", state, {})
    place = folder / family.folder.places["network"]
    shards = tmp_path / "shards"
    shards.mkdir()
    shutil.copy(place / "config.json", shards)
    theirs, index = load(place / "diffusion_pytorch_model.safetensors")[0], {}
    for number, inside in enumerate((sorted(theirs)[::2], sorted(theirs)[1::2])):
        shard = f"diffusion_pytorch_model-{number}-of-2.safetensors"
        save(shards / shard, {n: theirs[n] for n in inside}, {})
        index |= dict.fromkeys(inside, shard)
    (shards / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"weight_map": index})
    )
    for path in (
        tmp_path / "prefixed.safetensors",
        place / "diffusion_pytorch_model.safetensors",
        place,
        shards,
    ):
        measured.same(made(path, beside), expected)
    tables = {part: family.folder.places[part] for part in paths if part != "network"}
    said = {g.path.stem: g.part for g in beside}
    parts = [Given(folder / place, said[part]) for part, place in tables.items()]
    measured.same(made(paths["network"], parts), expected)  # the parts of a folder of diffusers


@pytest.mark.parametrize("name", ["sdxl", "flux-dev"], indirect=True, scope="module")
def test_a_weight_is_read_from_its_own_file_when_it_is_used(
    name: str, folder: Path, known: Callable[[str], Family], tmp_path: Path
) -> None:
    family = known(name)
    paths = written(family, folder, tmp_path / "parts")
    path = paths["network"]
    beside = catalogue.located(family, path, describe(path), given(paths))
    assert beside.keys() == paths.keys()
    assert {part: found.path for part, found in beside.items()} == paths
    loader = flow.load if isinstance(family, flow.Family) else ldm.load
    model = loader(family, path, torch.float32, dict.fromkeys(paths, 0), beside)  # type: ignore[arg-type]
    for part in ("network", "autoencoder"):  # the small encoders have no matrix that is worth it
        assert any(isinstance(layer, Streamed) for layer in model.parts[part].modules())
    whole = catalogue.load(str(folder), "cpu", precision="float32")
    assert torch.equal(generate(model, REQUEST)[0], generate(whole, REQUEST)[0])


# --- one part in the place of another ---------------------------------------------------------


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sd1") / "fox"
    stable_diffusion().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sd3") / "fox"
    stable_diffusion_3("sd35-large").save_pretrained(path)
    return path


def other_vae(folder: Path, to: Path) -> Path:
    state = load(folder / "vae/diffusion_pytorch_model.safetensors")[0]
    key = "decoder.conv_out.bias"
    save(to, {**state, key: state[key] + 0.25}, {})
    return to


def test_a_vae_in_the_place_of_the_files_own(
    sd1: Path, known: Callable[[str], Family], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a file and of a folder; it is said, and stands in the picture's metadata."""
    known("sd1")
    vae = other_vae(sd1, tmp_path / "vae-ft.safetensors")
    copy = tmp_path / "copy"
    shutil.copytree(sd1, copy)
    shutil.copy(vae, copy / "vae/diffusion_pytorch_model.safetensors")
    file = convert(sd1, tmp_path / "a.safetensors", "file").path
    expected = made(copy, [])
    assert not torch.equal(expected, made(sd1, []))
    for path in (file, sd1):
        model = catalogue.load(str(path), "cpu", given=[Given(vae)])
        assert model.notes == (f"vae is from {vae}, in place of its own",)
        assert torch.equal(generate(model, REQUEST)[0], expected)
    done = convert(file, tmp_path / "b.safetensors", "file", given=[Given(vae, "vae")])
    assert done.notes == (f"vae is from {vae}, in place of its own",)
    assert torch.equal(made(done.path, []), expected)
    capsys.readouterr()
    words = ["generate", "a fox", "--model", str(file), "--part", f"vae={vae}", "--steps", "1"]
    words += ["--size", "64", "--device", "cpu", "--output", str(tmp_path / "a.png")]
    assert main(words) == 0
    assert f"vae is from {vae}, in place of its own" in capsys.readouterr().err
    with Image.open(tmp_path / "a.png") as image:
        said = json.loads(image.info["parameters"])
        assert said["parts"] == said["options"]["part"] == ["vae=vae-ft.safetensors"]
    pictures = [
        mezzotint.load(str(file), "cpu", parts=parts).generate("a fox", size=(64, 64), steps=1)
        for parts in ([vae], {"vae": vae}, ())
    ]
    first, same, own = (picture.tobytes() for picture in pictures)
    assert first == same != own


def test_a_text_encoder_in_the_place_of_a_folders_own(
    sd3: Path, known: Callable[[str], Family], tmp_path: Path
) -> None:
    """SD3 reads CLIP-L without its projection, whatever a file of its own has there."""
    known("sd35-large")
    state = load(sd3 / "text_encoder/model.safetensors")[0]
    key = "text_projection.weight"
    for number, projection in enumerate((None, state[key], 2 * state[key])):
        found = {n: t for n, t in state.items() if n != key}
        path = tmp_path / f"{number}.safetensors"
        save(path, found if projection is None else {**found, key: projection}, {})
        assert torch.equal(made(sd3, [Given(path, "clip_l")]), made(sd3, []))
    convert(sd3, tmp_path / "b", "folder", given=[Given(path, "clip_l")])
    again = load(tmp_path / "b/text_encoder/model.safetensors")[0][key]
    assert torch.equal(again, torch.eye(8))
    assert torch.equal(made(tmp_path / "b", []), made(sd3, []))


# --- what is lacking, and what does not fit ---------------------------------------------------


def test_what_is_lacking_is_listed(
    sd3: Path, known: Callable[[str], Family], tmp_path: Path
) -> None:
    family = known("sd35-large")
    paths = written(family, sd3, tmp_path / "parts")
    beside = {g.path.stem: g for g in given(paths)}
    network = str(paths["network"])
    rest = [beside["text2"], beside["t5"]]
    with pytest.raises(CheckpointError) as caught:
        catalogue.load(network, given=rest)
    assert str(caught.value) == (
        f"{network}: is not whole, it lacks clip_l, vae: give --part clip_l=FILE --part vae=FILE"
    )
    with pytest.raises(CheckpointError, match="it lacks vae: give --part vae=FILE"):
        convert(paths["network"], tmp_path / "a", "folder", given=[*rest, beside["text"]])
    without = [g for part, g in beside.items() if part != "t5"]
    model = catalogue.load(network, "cpu", given=without)
    assert ["T5" in note for note in model.notes] == [True]
    copy = tmp_path / "copy"
    shutil.copytree(sd3, copy)
    shutil.rmtree(copy / "vae")
    with pytest.raises(CheckpointError, match="is not whole, it lacks vae: give --part vae=FILE"):
        catalogue.load(str(copy), "cpu")
    shutil.rmtree(copy / "text_encoder_3")
    with pytest.raises(CheckpointError, match="has no text_encoder_3.*or give --part t5=FILE"):
        catalogue.load(str(copy), "cpu", given=[beside["autoencoder"]])
    assert torch.equal(made(copy, [beside["autoencoder"], beside["t5"]]), made(sd3, []))


def test_what_does_not_fit_is_named(
    sd1: Path, sd3: Path, known: Callable[[str], Family], tmp_path: Path
) -> None:
    known("sd1")
    deep = sd3 / "vae/diffusion_pytorch_model.safetensors"
    own = sd1 / "vae/diffusion_pytorch_model.safetensors"
    text = sd1 / "text_encoder/model.safetensors"
    odd, wide = tmp_path / "odd.safetensors", tmp_path / "wide.safetensors"
    save(odd, {**load(own)[0], "odd.weight": torch.zeros(1)}, {})
    state = load(text)[0]
    save(wide, {n: torch.cat([t, t], -1) if t.ndim > 1 else t for n, t in state.items()}, {})
    cases: list[tuple[list[Given], str]] = [
        (
            [Given(deep)],
            r"safetensors: is VAE with 16 latent channels.*, and does not fit sd1 \(vae: its "
            r"decoder.conv_in.weight is \[64, 16, 3, 3\], \[64, 4, 3, 3\] is expected\)$",
        ),
        ([Given(wide)], r"does not fit sd1 \(clip_l: its .* is \[.*\], \[.*\] is expected\)$"),
        ([Given(odd)], r"does not fit sd1 \(vae: unknown key 'odd.weight'"),
        ([Given(own, "clip_l")], r"is VAE with 4 .*, and is none of its clip_l \(sd1\)"),
        ([Given(own, "vea")], r"sd1 has no part 'vea' \(nearest: vae\): its parts are clip_l, vae"),
        ([Given(own), Given(own)], "are both vae: give one of them"),
        ([Given(tmp_path / "none")], "none: no such file or folder"),
        ([Given(sd1 / "unet")], r"and is none of its clip_l, vae, taesd \(sd1\)"),
    ]
    for parts, message in cases:
        with pytest.raises(CheckpointError, match=message) as caught:
            catalogue.load(str(sd1), "cpu", given=parts)
        assert "\n" not in str(caught.value)
    known("sd35-large")
    clip_g = sd3 / "text_encoder_2/model.safetensors"
    with pytest.raises(CheckpointError, match="fits clip_l and clip_g: say which, as in --part cl"):
        catalogue.load(str(sd3), "cpu", given=[Given(clip_g)])
    with pytest.raises(CheckpointError, match="own models, which are whole: leave the parts out"):
        catalogue.load("icons", "cpu", given=[Given(own)])


# --- the sizes of the releases ----------------------------------------------------------------


def entries(state: Mapping[str, Tensor], table: Mapping[str, Any]) -> dict[str, Entry]:
    return {n: Entry("F16", tuple(t.shape)) for n, t in to_theirs(state, table).items()}


@pytest.mark.parametrize("family", [SD1, SD2, SDXL, SD35_LARGE, FLUX_DEV], ids=lambda f: f.name)
def test_every_part_is_told_by_its_header(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """In all layouts at full size, each fits one part alone; `inspect` says what it is."""
    bare = family if isinstance(family, ldm.Family) else flow.unprojected(family, family.identity)
    parts = catalogue.parts(bare)
    listings: dict[str, Listing] = {}
    monkeypatch.setattr(separate, "describe", lambda path: listings[path.name])
    monkeypatch.setattr(Path, "exists", lambda path: True)
    called = {part: label for part, label in separate.labels(family).items() if part in parts}
    kinds = {"clip_l": "CLIP-L", "clip_h": "OpenCLIP-H", "clip_g": "OpenCLIP-bigG", "t5": "T5-XXL"}
    for part, label in called.items():
        state = parts[part].state_dict()
        tables = {
            f"{n}": layout.tables[part] for n, layout in enumerate((family.file, family.folder))
        }
        if part in family.texts:
            tables |= {"open": clip.TEXT_OPEN, "text": clip.text(""), "model": clip.text()}
        if part == "t5":
            tables |= {"gguf": GGUF}
        for form, table in tables.items():
            theirs = entries(state, table)
            for prefix in ("", "transformer.") if part in family.texts else ("",):
                named = {prefix + name: entry for name, entry in theirs.items()}
                listing = Listing(Path(form), "safetensors", named, {}, 0)
                listings[form] = listing
                found = separate.locate(bare, parts, Path(), _whole(family), [Given(Path(form))])
                assert [*found] == [part], (label, form, prefix)
                assert isinstance(found[part], Beside)
                kind = recognise(listing).kind
                assert kind is not None and kinds.get(label, "VAE") in kind, (label, form, prefix)


def _whole(family: Family) -> Listing:
    """Of a file that has parts behind prefixes."""
    names = {f"{prefix}x": Entry("F16", (1,)) for prefix in family.file.places.values()}
    return Listing(Path(), "safetensors", names, {}, 0)


@pytest.mark.parametrize("family", [SD1, SDXL, SD35_LARGE, FLUX_DEV], ids=lambda f: f.name)
def test_a_denoiser_alone_is_told_by_its_header(family: Family, tmp_path: Path) -> None:
    """In each layout, of its family; `inspect` says that it is alone."""
    state = catalogue.parts(family)["network"].state_dict()
    prefix = family.file.places["network"]
    for start, layout in (("", family.file), (prefix, family.file), ("", family.folder)):
        named = entries(state, layout.tables["network"])
        listing = Listing(tmp_path, "", {start + n: e for n, e in named.items()}, {}, 0)
        assert catalogue.family_of(tmp_path / "a", listing) == family
        report = recognise(listing)
        assert report.kind == layout.kind
        assert any(line.startswith("parts") and "alone" in line for line in report.lines())


# --- other formats ----------------------------------------------------------------------------


def test_t5_and_a_transformer_in_gguf(known: Callable[[str], Family], tmp_path: Path) -> None:
    """By llama.cpp's names; the picture of the same numbers in safetensors."""
    family = known("flux-dev")
    flux().save_pretrained(tmp_path / "folder")
    paths = written(family, tmp_path / "folder", tmp_path / "parts")
    state = states(family, tmp_path / "folder")
    tables = {"t5": GGUF, "network": family.file.tables["network"]}
    packed = dict(paths)
    for part, table in tables.items():
        packed[part] = tmp_path / f"{part}.gguf"
        writer = gguf.GGUFWriter(packed[part], part)
        for name, tensor in to_theirs(state[part], table).items():
            writer.add_tensor(name, tensor.contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    assert inspect(packed["t5"]).kind == "text encoder T5"
    assert torch.equal(made(packed["network"], given(packed)), made(paths["network"], given(paths)))


def test_parts_become_one_file_and_one_folder(
    name: str, folder: Path, known: Callable[[str], Family], tmp_path: Path
) -> None:
    """The bytes that the folder itself becomes, but for what it says beside its weights."""
    family = known(name)
    paths = written(family, folder, tmp_path / "parts")
    made_of = convert(paths["network"], tmp_path / "a.safetensors", "file", given=given(paths))
    direct = convert(folder, tmp_path / "b.safetensors", "file")
    left = ["left out: 1 tensor (text_projection.weight) of text that is not used"]
    assert list(made_of.notes) == (left if name == "sd35-large" else [])
    assert made_of.tensors == direct.tensors
    ours, theirs = load(made_of.path)[0], load(direct.path)[0]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    convert(paths["network"], tmp_path / "c", "folder", given=given(paths))
    assert torch.equal(made(tmp_path / "c", []), made(folder, []))


def test_a_denoiser_alone_says_what_it_predicts(
    known: Callable[[str], Family], tmp_path: Path
) -> None:
    """Its marks are read, and are in the file that it becomes."""
    family = known("sdxl")
    stable_diffusion("sdxl").save_pretrained(tmp_path / "folder")
    paths = written(family, tmp_path / "folder", tmp_path / "parts")
    state = load(paths["network"])[0]
    save(paths["network"], {**state, "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, {})
    done = convert(paths["network"], tmp_path / "a.safetensors", "file", given=given(paths))
    assert done.notes == ()
    assert {"v_pred", "ztsnr"} < describe(done.path).tensors.keys()
    assert catalogue.identify(paths["network"])[0].prediction == "v"
    assert torch.equal(made(paths["network"], given(paths)), made(done.path, []))


def test_the_command_converts_parts(
    sd1: Path, known: Callable[[str], Family], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known("sd1")
    words = ["convert", str(sd1 / "unet"), str(tmp_path / "a.safetensors")]
    words += ["--part", str(sd1 / "text_encoder"), "--part", str(sd1 / "vae")]
    assert main(words) == 0
    assert "tensors of the family sd1" in capsys.readouterr().err
    words[2] = str(tmp_path / "b.safetensors")
    assert main(words[:5]) == 2
    assert "it lacks vae: give --part vae=FILE" in capsys.readouterr().err
