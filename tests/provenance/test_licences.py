"""The licence that somebody states of weights, and no other; the table of those that are known."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import save_file

from mezzotint.engine.licences import inside, likely, record
from mezzotint.families.catalogue import FAMILIES, locate
from mezzotint.families.released import FAMILIES as RELEASED
from mezzotint.families.released import KINDS
from mezzotint.provenance.licence_table import LICENCES, STRICTNESS, find, of_text, strictest
from mezzotint.provenance.licences import SIDE, UNKNOWN, LicenceError, Record, of_card, stated

WEIGHTS = {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": torch.zeros(2, 4)}
T5 = {
    "shared.weight": torch.zeros(8, 16),
    "encoder.block.0.layer.0.SelfAttention.q.weight": torch.zeros(4, 16),
}


# --- the table --------------------------------------------------------------------------------


@pytest.mark.parametrize("licence", LICENCES, ids=lambda licence: licence.id)
def test_each_row_is_whole(licence: object) -> None:
    row = next(row for row in LICENCES if row is licence)
    assert row.id and row.name and row.source.startswith("https://") and " " not in row.source
    assert {row.use, row.outputs} <= {"yes", "conditional", "no"}
    assert (row.clause != "") == (row.commercial != "yes"), "what is not plain needs its clause"
    assert all(text == text.strip() for text in (row.clause, row.restrictions, row.rules))
    for name in (row.id, row.name, *row.aliases, f"{row.name} Agreement".upper()):
        assert find(name) is row
    assert of_text(f"\n   {row.name}\n\nTerms and conditions") is row


def test_what_the_terms_are() -> None:
    terms = {
        "MIT": "yes",
        "CreativeML Open RAIL-M": "yes",
        "openrail++": "yes",
        "Stability AI Community License": "conditional",
        "flux-1-dev-non-commercial-license": "no",  # its outputs may be sold, its use may not
        "cc-by-nc-4.0": "no",
    }
    found = {name: find(name) for name in terms}
    assert {name: row and row.commercial for name, row in found.items()} == terms
    community, flux = found["Stability AI Community License"], found[list(terms)[4]]
    assert community is not None and "1,000,000 USD" in community.clause
    assert flux is not None and (flux.use, flux.outputs) == ("no", "conditional")
    assert find("other") is find("my own") is find("") is None
    assert (
        strictest(STRICTNESS) == "no" and strictest(("yes", "unknown", "conditional")) == "unknown"
    )


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("                  Apache License\n            Version 2.0, January 2004", "Apache-2.0"),
        ("Copyright (c) 2024 A\n\nPermission is hereby granted, free of charge, to any", "MIT"),
        ("Attribution 4.0 International\n\n=====", "CC-BY-4.0"),
        ("Attribution-NonCommercial 4.0 International\n\n=====", "CC-BY-NC-4.0"),
        ("Creative Commons Legal Code\n\nCC0 1.0 Universal\n", "CC0-1.0"),
        ("STABILITY AI COMMUNITY LICENSE AGREEMENT\nLast Updated", "stabilityai-ai-community"),
        ("CreativeML Open RAIL++-M License\ndated July 26", "CreativeML-OpenRAIL++-M"),
        ("GNU AFFERO GENERAL PUBLIC LICENSE\n  Version 3, 19 November 2007", "AGPL-3.0"),
        ("GNU LESSER GENERAL PUBLIC LICENSE\n  Version 3", None),
        ("All rights reserved.", None),
        (f"{'x ' * 400} MIT License", None),
    ],
)
def test_a_text_is_known_by_its_head(text: str, licence: str | None) -> None:
    found = of_text(text)
    assert (found and found.id) == licence


def test_what_families_were_released_under_is_in_the_table() -> None:
    assert RELEASED.keys() <= {family.name for family in FAMILIES}
    assert {"sd1", "sd2", "sdxl", "sd3", "sd35-large", "flux-dev"} <= RELEASED.keys()
    ids = {row.id for row in LICENCES}
    assert {*RELEASED.values(), *(licence for _, licence in KINDS)} <= ids


# --- what is stated ---------------------------------------------------------------------------


def test_our_own_model_states_those_of_its_drawings() -> None:
    own = "Apache-2.0 AND CC-BY-4.0 AND LicenseRef-Public-Domain AND MIT"
    assert stated(locate("icons")) == Record(own, "file")
    found = record("icons")
    assert (found.said, found.by) == (own, "file") and found == record(locate("icons"))
    assert "noto, noto-v1 by Google Inc, Apache-2.0" in "\n".join(found.attribution)
    assert [(part.what, part.name) for part in inside("icons")] == [("text encoder", "minilm")]
    assert inside("icons")[0].record == Record("Apache-2.0", "file")


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ({"modelspec.license": "CreativeML Open RAIL-M"}, "CreativeML Open RAIL-M"),
        ({"license": "mit"}, "mit"),
        ({"modelspec.license": "a", "license": "b"}, "a"),
        ({"modelspec.license": "other", "license": "b"}, "b"),
        ({"modelspec.license": " \x1b[31m two\nlines "}, "[31m two lines"),
        ({"modelspec.license": "x" * 300}, "x" * 200),
        ({"modelspec.license": ""}, UNKNOWN),
        ({"format": "pt"}, UNKNOWN),
    ],
)
def test_what_a_file_states(tmp_path: Path, metadata: dict[str, str], licence: str) -> None:
    save_file(WEIGHTS, tmp_path / "a.safetensors", metadata)
    by = "" if licence == UNKNOWN else "file"
    assert stated(tmp_path / "a.safetensors") == Record(licence, by)


def test_what_a_gguf_states(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "a.gguf"), "flux")
    writer.add_string("general.license", "other")
    writer.add_string("general.license.name", "flux-1-dev-non-commercial-license")
    writer.add_tensor("a", torch.zeros(4, 32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = stated(tmp_path / "a.gguf")
    assert found == Record("flux-1-dev-non-commercial-license", "file")


def test_what_cannot_be_read_states_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 64)
    assert stated(tmp_path / "bad.safetensors") == stated(tmp_path / "none") == Record()


def folder(path: Path) -> Path:
    (path / "unet").mkdir(parents=True)
    save_file(T5, path / "unet/diffusion_pytorch_model.safetensors")
    (path / "unet/config.json").write_text("{}")
    index = {"_class_name": "MyPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (path / "model_index.json").write_text(json.dumps(index))
    return path


def test_a_folders_card_and_texts(tmp_path: Path) -> None:
    path = folder(tmp_path / "m")
    assert stated(path) == Record()
    (path / "LICENSE.md").write_text("# FLUX.1 [dev] Non-Commercial License v1.1\n")
    assert stated(path) == Record("flux-1-dev-non-commercial-license", "text")
    (path / "LICENSE-vae").write_text("MIT License\n")
    assert stated(path).said == "MIT AND flux-1-dev-non-commercial-license"
    card = "---\nlicense: other\nlicense_name: 'my terms' # mine\n---\nlicense: mit\n"
    (path / "README.md").write_text(card)
    assert stated(path) == Record("my terms", "card")
    (tmp_path / "secret").write_text("---\nlicense: mit\n---\n")
    (path / "README.md").unlink()
    (path / "README.md").symlink_to(tmp_path / "secret")  # out of the folder
    assert stated(path).by == "text"


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: openrail++\n---\n", "openrail++"),
        ('---\nlanguage: en\nlicense: "mit"\n---\n', "mit"),
        ("---\nlicense: other\n---\n", ""),
        ("---\nlicense_link: x\n---\nlicense: mit\n", ""),
        ("# Model\n---\nlicense: mit\n---\n", ""),
        ("license: mit\n", ""),
        ("", ""),
    ],
)
def test_a_cards_head(tmp_path: Path, card: str, licence: str) -> None:
    (tmp_path / "README.md").write_text(card)
    assert of_card(tmp_path / "README.md") == licence
    assert of_card(tmp_path / "none.md") == ""


# --- what the user states, and what is likely -------------------------------------------------


def test_the_user_has_the_last_word(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(WEIGHTS, path, {"license": "CC-BY-NC-4.0"})
    side = tmp_path / f"a.safetensors{SIDE}"
    side.write_text('licence = "CC-BY-4.0"\nattribution = "Foxes by Ada"\n')
    assert stated(path) == Record("CC-BY-4.0", "you", "", ("Foxes by Ada",))
    side.write_text('licence = "bought 2026-03"\ncommercial = true\nattribution = ["A", "B"]')
    assert stated(path) == Record("bought 2026-03", "you", "", ("A", "B"), "yes")
    side.write_text('licence = "for\\nfriends"\ncommercial = "below 10 copies"')
    assert stated(path) == Record("for friends", "you", "", (), "conditional", "below 10 copies")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("licence = ", "cannot be read as TOML"),
        ('attribution = "A"', "does not say which licence"),
        ("licence = 4", "does not say which licence"),
        ('licence = "MIT"\nlicense = "MIT"', "has no use for 'license'"),
        ('licence = "MIT"\nattribution = [4]', "one text or a list of texts"),
        ('licence = "MIT"\ncommercial = 4', "true, false or a condition"),
    ],
)
def test_a_damaged_statement_is_told(tmp_path: Path, text: str, message: str) -> None:
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    side = tmp_path / f"a.safetensors{SIDE}"
    side.write_text(text)
    with pytest.raises(LicenceError, match=message) as error:
        stated(tmp_path / "a.safetensors")
    assert str(error.value).startswith(str(side)) and "\n" not in str(error.value)


def test_what_is_likely_is_not_stated(tmp_path: Path) -> None:
    save_file(T5, tmp_path / "t5.safetensors")
    save_file(WEIGHTS, tmp_path / "lora.safetensors")
    sdxl = {
        "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 4, 1, 1),
        "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (
            torch.zeros(4, 2048)
        ),
    }
    save_file(sdxl, tmp_path / "xl.safetensors")
    assert record(tmp_path / "t5.safetensors") == Record(likely="Apache-2.0")
    assert record(tmp_path / "xl.safetensors") == Record(likely="CreativeML-OpenRAIL++-M")
    assert record(tmp_path / "lora.safetensors") == Record()
    save_file(sdxl, tmp_path / "own.safetensors", {"license": "mine"})
    assert record(tmp_path / "own.safetensors") == Record("mine", "file")
    (tmp_path / "words.txt").write_text("no weights")
    assert likely(tmp_path / "words.txt") == ""


def test_a_note_that_comes_later_is_seen(tmp_path: Path) -> None:
    """Files are read once; what their user writes beside them is read each time."""
    path = tmp_path / "a.safetensors"
    save_file({"layer.weight": torch.zeros(2, 3)}, path)
    assert [record(path).said for _ in range(2)] == [UNKNOWN, UNKNOWN]
    for said in ("MIT", "BSD"):
        path.with_name(path.name + SIDE).write_text(f'licence = "{said}"')
        assert record(path).said == said
