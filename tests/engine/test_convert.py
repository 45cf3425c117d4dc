"""`convert`: every layout of a family into every other, back bit by bit, and read by diffusers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from mezzotint.apps import cli
from mezzotint.checkpoints import marks
from mezzotint.checkpoints.files import CheckpointError, load, read_header, save
from mezzotint.checkpoints.inspect import Report
from mezzotint.checkpoints.source import Listing, describe
from mezzotint.engine.convert import convert
from mezzotint.families import catalogue
from mezzotint.families.flow import Family
from mezzotint.files import WriteError
from pipelines import (
    FLOWS,
    FlowPipeline,
    Pipeline,
    flux,
    small,
    small_flow,
    stable_diffusion,
    stable_diffusion_3,
)

NAMES = ("sd1", "sd2", "sdxl", *FLOWS)


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def theirs(name: str) -> Pipeline | FlowPipeline:
    if name in FLOWS:
        return flux(name) if name.startswith("flux") else stable_diffusion_3(name)
    return stable_diffusion(name)


@pytest.fixture(scope="module")
def folder(
    name: str, theirs: Pipeline | FlowPipeline, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp(name) / "theirs"
    theirs.save_pretrained(path)
    return path


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets the small networks of a family be recognised, whose sizes no signature has."""

    def make(name: str) -> None:
        family = small_flow(name) if name in FLOWS else small(name)
        prefix = family.file.places["network"]

        def recognise(listing: Listing) -> Report:
            whole = any(key.startswith(prefix) for key in listing.tensors)
            return Report(Path(), 0, "", (family.file if whole else family.folder).kind)

        monkeypatch.setattr(catalogue, "FAMILIES", (family,))
        monkeypatch.setattr(catalogue, "recognise", recognise)

    return make


def tree(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder; the text encoders' by the names of newer releases."""
    found: dict[str, Tensor] = {}
    for path in folder.glob("*/*.safetensors"):
        state = load(path)[0]
        found |= {
            f"{path.parent.name}/{k.removeprefix('text_model.')}": v for k, v in state.items()
        }
    return found


def test_round_trips(name: str, folder: Path, known: Callable[[str], None], tmp_path: Path) -> None:
    """Folder → file → folder → file → folder: the same weights, and then the same bytes."""
    known(name)
    file, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    convert(folder, file, "file")
    convert(file, tmp_path / "a", "folder")
    convert(tmp_path / "a", other, "file")
    convert(other, tmp_path / "b", "folder")
    assert file.read_bytes() == other.read_bytes()
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    before, after = weights(folder), weights(tmp_path / "a")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(before[key].dtype == after[key].dtype for key in before)
    said, own = ("scheduler/scheduler_config.json", (tmp_path / "a", folder))
    assert json.loads((own[0] / said).read_text()) == json.loads((own[1] / said).read_text())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_diffusers_loads_the_folder(
    name: str,
    theirs: Pipeline | FlowPipeline,
    folder: Path,
    known: Callable[[str], None],
    tmp_path: Path,
) -> None:
    known(name)
    shape = (1, 4, 8, 8)
    if name in FLOWS:
        shape = (1, 16, 64) if name.startswith("flux") else (1, 16, 8, 8)
    convert(folder, tmp_path / "a.safetensors", "file")
    convert(tmp_path / "a.safetensors", tmp_path / "a", "folder")
    found = DiffusionPipeline.from_pretrained(tmp_path / "a", local_files_only=True)
    assert type(found) is type(theirs)
    images = []
    for pipe in (theirs, found):
        pipe.set_progress_bar_config(disable=True)
        images.append(
            pipe(
                "a red fox, flat style",
                height=64,
                width=64,
                num_inference_steps=2,
                latents=torch.randn(shape, generator=torch.Generator().manual_seed(0)),
                output_type="pt",
            ).images[0]
        )
    # The last bits depend on where weights lie in memory: in a file, at any multiple of 8 bytes.
    torch.testing.assert_close(*images, rtol=0, atol=1e-5)


# --- the families of flow transformers --------------------------------------------------------


def test_without_t5(known: Callable[[str], None], tmp_path: Path) -> None:
    """Stays without it, there and back; the index of diffusers says so."""
    known("sd3")
    stable_diffusion_3(t5=False, shift=2.5).save_pretrained(tmp_path / "theirs")
    file = convert(tmp_path / "theirs", tmp_path / "a.safetensors", "file").path
    assert not any(name.startswith("text_encoders.t5xxl") for name in load(file)[0])
    convert(file, tmp_path / "a", "folder")
    index = json.loads((tmp_path / "a/model_index.json").read_text())
    assert index["text_encoder_3"] == index["tokenizer_3"] == [None, None]
    assert not (tmp_path / "a/text_encoder_3").exists()
    absent = {"text_encoder_3": None, "tokenizer_3": None}  # which diffusers wants said again
    DiffusionPipeline.from_pretrained(tmp_path / "a", local_files_only=True, **absent)
    family, _ = catalogue.identify(tmp_path / "a")
    assert isinstance(family, Family) and family.shift == 2.5


@pytest.mark.parametrize("name", FLOWS, indirect=True, scope="module")
def test_a_bare_file_gets_its_familys_scheduler(
    name: str, folder: Path, known: Callable[[str], None], tmp_path: Path
) -> None:
    known(name)
    file = convert(folder, tmp_path / "a.safetensors", "file").path
    save(tmp_path / "bare.safetensors", load(file)[0], {})
    convert(tmp_path / "bare.safetensors", tmp_path / "a", "folder")
    made = DiffusionPipeline.from_pretrained(tmp_path / "a", local_files_only=True)
    own = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    made.scheduler.set_timesteps(4, mu=0.8)
    own.scheduler.set_timesteps(4, mu=0.8)
    assert torch.equal(made.scheduler.sigmas, own.scheduler.sigmas)
    assert catalogue.identify(tmp_path / "a")[0] == small_flow(name)


def test_what_a_file_has_no_place_for(known: Callable[[str], None], tmp_path: Path) -> None:
    """A projection that changes something, and another tokenizer, are not dropped."""
    known("sd3")
    source, file = tmp_path / "theirs", tmp_path / "a.safetensors"
    stable_diffusion_3().save_pretrained(source)
    part = source / "text_encoder/model.safetensors"
    state, metadata = load(part)
    key = "text_projection.weight"
    save(part, {**state, key: 2 * state[key]}, metadata)
    with pytest.raises(CheckpointError, match="not the identity, and a file has no place for it"):
        convert(source, file, "file")
    convert(source, tmp_path / "a", "folder")
    assert torch.equal(load(tmp_path / "a/text_encoder/model.safetensors")[0][key], 2 * state[key])
    save(part, state, metadata)
    words = source / "tokenizer_3/tokenizer.json"
    document = json.loads(words.read_text("utf-8"))
    document["model"]["vocab"][500][1] -= 0.1
    words.write_text(json.dumps(document), "utf-8")
    with pytest.raises(CheckpointError, match="its tokenizer_3 is another than T5's"):
        convert(source, file, "file")
    assert not file.exists()
    convert(source, tmp_path / "b", "folder")
    assert (tmp_path / "b/tokenizer_3/tokenizer.json").read_bytes() == words.read_bytes()


# --- one family is enough for the rest --------------------------------------------------------


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sd1") / "theirs"
    stable_diffusion().save_pretrained(path)
    return path


@pytest.fixture
def file(sd1: Path, known: Callable[[str], None], tmp_path: Path) -> Path:
    known("sd1")
    return convert(sd1, tmp_path / "a.safetensors", "file").path


def test_a_precision_may_be_chosen(file: Path, tmp_path: Path) -> None:
    convert(file, tmp_path / "half.safetensors", "file", torch.float16)
    convert(tmp_path / "half.safetensors", tmp_path / "half", "folder")
    before, after = load(file)[0], load(tmp_path / "half.safetensors")[0]
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key].half(), after[key]) for key in before)
    assert {tensor.dtype for tensor in weights(tmp_path / "half").values()} == {torch.float16}
    with pytest.raises(ValueError, match="numbers beyond float16"):
        key = "first_stage_model.quant_conv.bias"
        save(tmp_path / "big.safetensors", {**before, key: before[key] + 1e6}, {})
        convert(tmp_path / "big.safetensors", tmp_path / "small.safetensors", "file", torch.half)
    assert not (tmp_path / "small.safetensors").exists()


def test_what_is_left_out_is_said(file: Path, tmp_path: Path) -> None:
    extra = {
        "model_ema.decay": torch.zeros(()),
        "model_ema.num_updates": torch.zeros((), dtype=torch.int64),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
    }
    said = {"modelspec.hash_sha256": "0x1", "modelspec.title": "Mine", "modelspec.license": "CC0"}
    save(tmp_path / "b.safetensors", {**load(file)[0], **extra}, said)
    done = convert(tmp_path / "b.safetensors", tmp_path / "b", "folder")
    assert done.notes == (
        "left out: 1 tensor (text_model.embeddings.position_ids) of text that is not used",
        "left out: 2 tensors (model_ema.num_updates, model_ema.decay) beside the networks",
        "left out: metadata that no longer holds: modelspec.hash_sha256",
    )
    metadata = read_header(tmp_path / "b/unet/diffusion_pytorch_model.safetensors").metadata
    assert metadata == {
        "format": "pt",
        "modelspec.license": "CC0",
        "modelspec.prediction_type": "epsilon",
        "modelspec.title": "Mine",
    }
    back = convert(tmp_path / "b", tmp_path / "c.safetensors", "file")
    assert back.notes == ()
    found = read_header(back.path).metadata
    assert {found[key] for key in ("modelspec.title", "modelspec.license")} == {"Mine", "CC0"}


def test_a_folders_other_parts_and_its_papers(
    sd1: Path, known: Callable[[str], None], tmp_path: Path
) -> None:
    known("sd1")
    source = tmp_path / "source"
    shutil.copytree(sd1, source)
    (source / "README.md").write_text("---\ntags: [x]\nlicense: openrail++\n---\n# A model\n")
    index = json.loads((source / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (source / "model_index.json").write_text(json.dumps(index))
    (source / "safety_checker").mkdir()
    (source / "safety_checker/config.json").write_text("{}")
    config = json.loads((source / "text_encoder/config.json").read_text())
    (source / "text_encoder/config.json").write_text(json.dumps({**config, "dtype": "float32"}))
    done = convert(source, tmp_path / "a", "folder", torch.bfloat16)
    assert done.notes == ("left out: parts that the family does not use: safety_checker",)
    assert (tmp_path / "a/README.md").read_bytes() == (source / "README.md").read_bytes()
    assert "dtype" not in json.loads((tmp_path / "a/text_encoder/config.json").read_text())
    for name in ("unet/config.json", "tokenizer/tokenizer_config.json"):
        theirs, ours = (
            json.loads((place / name).read_text()) for place in (source, tmp_path / "a")
        )
        assert ours == theirs
    convert(source, tmp_path / "a.safetensors", "file")
    metadata = read_header(tmp_path / "a.safetensors").metadata
    assert metadata["modelspec.license"] == "openrail++"


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
@pytest.mark.parametrize("zero", [False, True])
def test_a_file_says_what_it_predicts(
    name: str, zero: bool, known: Callable[[str], None], tmp_path: Path
) -> None:
    """By the marks that others read too, by ModelSpec, and by the scheduler it came with."""
    known(name)
    noise = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": zero}
    stable_diffusion(name, **noise).save_pretrained(tmp_path / "a")
    path = convert(tmp_path / "a", tmp_path / "a.safetensors", "file").path
    found = describe(path)
    marked = {n for n in (marks.V_PRED, marks.ZERO_SNR) if n in found.tensors}
    expected = {marks.V_PRED, marks.ZERO_SNR} if zero else {marks.V_PRED}
    assert marked == (expected if name == "sdxl" else set())
    assert found.metadata["modelspec.prediction_type"] == "v"
    family, _ = catalogue.identify(path)
    assert family.prediction == "v"
    assert (float(family.schedule.alphas_cumprod[-1]) == 0) is zero
    bare = {key: text for key, text in found.metadata.items() if key == marks.PREDICTION}
    save(tmp_path / "bare.safetensors", load(path)[0], bare)
    convert(tmp_path / "bare.safetensors", tmp_path / "b", "folder")
    scheduler = json.loads((tmp_path / "b/scheduler/scheduler_config.json").read_text())
    assert scheduler["prediction_type"] == "v_prediction"
    assert scheduler["rescale_betas_zero_snr"] is (zero and name == "sdxl")


def test_other_formats_are_read(file: Path, tmp_path: Path) -> None:
    state, metadata = load(file)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.ckpt")
    names = sorted(state)
    shards = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for shard, inside in shards.items():
        save(tmp_path / shard, {name: state[name] for name in inside}, metadata)
    places = {name: shard for shard, inside in shards.items() for name in inside}
    index = tmp_path / "a.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    for source in (tmp_path / "a.ckpt", index):
        found = load(convert(source, tmp_path / f"{source.stem}.out.safetensors", "file").path)[0]
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)


def test_nothing_is_written_over_unless_asked(file: Path, sd1: Path, tmp_path: Path) -> None:
    there = file.read_bytes()
    with pytest.raises(WriteError, match="is there already: --force replaces it"):
        convert(sd1, file, "file")
    convert(sd1, file, "file", torch.float16, force=True)
    assert len(file.read_bytes()) < len(there)
    target = tmp_path / "out"
    target.mkdir()  # an empty one is no loss
    convert(sd1, target, "folder")
    with pytest.raises(WriteError, match="there are files in it: --force replaces it"):
        convert(sd1, target, "folder")
    (target / "stray").write_text("")
    convert(sd1, target, "folder", force=True)
    assert not (target / "stray").exists()
    (target / "model_index.json").unlink()
    with pytest.raises(WriteError, match="no folder of diffusers, which alone is replaced"):
        convert(sd1, target, "folder", force=True)
    for same in (sd1, sd1.parent):
        with pytest.raises(WriteError, match="it is the source"):
            convert(sd1, same, "folder", force=True)
    with pytest.raises(CheckpointError, match="no such file"):
        convert(tmp_path / "nothing", target, "folder")


def test_a_failure_leaves_nothing_behind(
    sd1: Path, known: Callable[[str], None], tmp_path: Path
) -> None:
    """The last part fails; what stood there stays."""
    known("sd1")
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(sd1, source)
    convert(sd1, target, "folder")
    before = tree(target)
    part = source / "vae/diffusion_pytorch_model.safetensors"
    state = load(part)[0]
    key = "quant_conv.bias"
    save(part, {**state, key: state[key] + 1e6}, {})
    with pytest.raises(CheckpointError, match="beyond float16"):
        convert(source, target, "folder", torch.float16, force=True)
    with pytest.raises(CheckpointError, match="beyond float16"):
        convert(source, tmp_path / "fresh", "folder", torch.float16)
    assert tree(target) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_our_own_models_have_one_layout(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="own models, which have one layout"):
        convert(catalogue.PACKAGED["icons"], tmp_path / "a", "folder")


def test_a_strangers_class_is_not_passed_on(file: Path, tmp_path: Path) -> None:
    state = load(file)[0]
    for name in ("os.system", "", 3, "__import__"):
        said = {marks.SCHEDULER: json.dumps({"_class_name": name})}
        save(tmp_path / "odd.safetensors", state, said)
        with pytest.raises(CheckpointError, match="its scheduler is of the odd class"):
            convert(tmp_path / "odd.safetensors", tmp_path / "odd", "folder")
    assert not (tmp_path / "odd").exists()


def test_the_command(
    sd1: Path, known: Callable[[str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known("sd1")
    path = tmp_path / "a.safetensors"
    assert cli.main(["convert", str(sd1), str(path), "--dtype", "bfloat16"]) == 0
    printed, told = capsys.readouterr()
    assert printed == f"{path}\n" and told == f"{len(load(path)[0])} tensors of the family sd1\n"
    assert {tensor.dtype for tensor in load(path)[0].values()} == {torch.bfloat16}
    for arguments, message in (
        ([str(sd1), str(path)], "is there already: --force replaces it"),
        ([str(sd1), str(tmp_path / "b"), "--to", "file"], "is no name for a file: a file's name"),
        ([str(sd1), "b.safetensors", "--to", "folder"], "is no name for a folder"),
        ([str(path), str(tmp_path / "b"), "--family", "sdxl"], "not of the family 'sdxl'"),
        ([str(path), str(tmp_path / "b"), "--dtype", "int8"], "invalid choice: 'int8'"),
    ):
        assert cli.main(["convert", *arguments]) == 2
        assert message in (told := capsys.readouterr().err) and told.count("\n") == 1
    assert cli.main(["convert", str(path), str(tmp_path / "b")]) == 0
    assert (tmp_path / "b/model_index.json").is_file()
    assert cli.main(["convert", str(path), str(tmp_path / "b"), "--force"]) == 0
