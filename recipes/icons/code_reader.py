"""Train the network that reads codes out of spoiled pictures, and put it into the package.

python recipes/icons/code_reader.py icons-128.zip --minutes 40

Drawings are coded, noised to where the sampler's last steps begin and denoised with its noise, so
that the codes are such as the model makes.  Each is decoded; the picture is laid on white or not,
compressed or not, and the reader learns to give the code back.  The loss is the mean over pictures
of the logarithm of the squared error: easy pictures count as much as hard ones.
"""

from __future__ import annotations

import argparse
import io
import math
import time
import zipfile
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mezzotint.diffusion.guidance import expand_conditioning
from mezzotint.diffusion.samplers import euler_ancestral
from mezzotint.engine.detect import cut_out
from mezzotint.engine.generate import plan, told_of
from mezzotint.engine.request import Guidance, Request
from mezzotint.families.catalogue import load
from mezzotint.families.code_readers import PACKAGED, save_reader
from mezzotint.families.model import Model
from mezzotint.networks.code_reader import CodeReader, CodeReaderConfig

BATCH, LAST_STEPS, FLOOR = 16, 3, 1e-3


def drawing(archive: zipfile.ZipFile, name: str) -> Tensor:
    """Premultiplied RGBA in [−1, 1], ``(4, H, W)``."""
    pixels = np.array(Image.open(io.BytesIO(archive.read(name))).convert("RGBA"), np.float32) / 255
    pixels[..., :3] *= pixels[..., 3:]
    return torch.from_numpy(pixels).permute(2, 0, 1) * 2 - 1


def codes_like_made(model: Model, drawings: Tensor, dice: torch.Generator) -> Tensor:
    """The drawings' codes after the sampler's last steps."""
    planned = plan(model, Request("", (0,), guidance=Guidance(scale=1.0)))
    path = planned.path.at(slice(-LAST_STEPS - 1, None))
    told = expand_conditioning(told_of(model, planned), len(drawings))
    code = model.codec.encode(drawings)

    def noise(index: int) -> Tensor:
        return torch.randn(code.shape, generator=dice)

    x = path.alpha[0] * code + path.sigma[0] * noise(-1)
    for step in euler_ancestral(model.denoise(), x.float(), path, told, noise):
        x = step.x
    return x.float()


def jpeg(flat: Tensor, quality: int) -> Tensor:
    """``(3, H, W)`` in [0, 1], compressed."""
    file = io.BytesIO()
    pixels = (flat * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255


def spoiled(picture: Tensor, dice: Random) -> tuple[Tensor, Tensor]:
    """The picture on white, and as it is or as it is cut out again, both in [−1, 1]."""
    unit = ((picture + 1) / 2).clamp(0, 1)
    flat = (unit[:3] + 1 - unit[3:]).clamp(0, 1)
    if dice.random() < 0.75:
        flat = jpeg(flat, dice.choice((50, dice.randint(25, 95))))
    if dice.random() < 0.75:
        return flat * 2 - 1, cut_out(flat * 2 - 1)
    colour = torch.minimum((flat - 1 + unit[3:]).clamp_min(0), unit[3:])
    return flat * 2 - 1, torch.cat([colour, unit[3:]]) * 2 - 1


def examples(model: Model, corpus: Path, count: int) -> list[Tensor]:
    """Four spoiled pictures of each code: flat, cut, the encoder's code (half), the code (half)."""
    dice, own = Random(1), torch.Generator().manual_seed(1)
    made: list[tuple[Tensor, ...]] = []
    with zipfile.ZipFile(corpus) as archive, torch.inference_mode():
        names = sorted(name for name in archive.namelist() if name.startswith("pictures/"))
        dice.shuffle(names)
        for first in range(0, min(count, len(names)), 8):
            some = torch.stack([drawing(archive, name) for name in names[first : first + 8]])
            codes = codes_like_made(model, some, own)
            for code, picture in zip(codes, model.codec.decode(codes), strict=True):
                for _ in range(4):
                    flat, cut = spoiled(picture, dice)
                    read = model.codec.encode(cut[None])[0]
                    made.append((flat.half(), cut.half(), read.half(), code.half()))
    return [torch.stack(column) for column in zip(*made, strict=True)]


def train(columns: list[Tensor], minutes: float, rate: float) -> CodeReader:
    """AdamW with a cosine of the time; what is kept is the weights' running mean."""
    torch.manual_seed(0)
    reader = CodeReader(CodeReaderConfig()).to(memory_format=torch.channels_last)
    kept = {name: weight.clone() for name, weight in reader.state_dict().items()}
    descent = torch.optim.AdamW(reader.parameters(), lr=rate, betas=(0.9, 0.99))
    begun, step = time.monotonic(), 0
    while (part := (time.monotonic() - begun) / (60 * minutes)) < 1:
        for group in descent.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 100) * (1 + math.cos(math.pi * part)) / 2
        rows = torch.randint(len(columns[0]), (BATCH,))
        flat, cut, read, code = (column[rows].float() for column in columns)
        with torch.autocast("cpu", torch.bfloat16):
            found = reader(flat, cut, read)
        lost = (found.float() - code).square().mean((1, 2, 3)).add(FLOOR).log().mean()
        descent.zero_grad()
        lost.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        descent.step()
        step += 1
        for name, weight in reader.state_dict().items():
            kept[name].lerp_(weight, 1 - min(0.998, step / (step + 9)))
        if step % 100 == 0:
            print(f"step {step}: {math.exp(float(lost) / 2):.3f} root mean square", flush=True)
    reader.load_state_dict(kept)
    return reader


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path, help="the archive that corpus.py wrote")
    parser.add_argument("--drawings", type=int, default=3328)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--out", type=Path, default=PACKAGED)
    args = parser.parse_args()
    model = load("icons", "cpu")
    columns = examples(model, args.corpus, args.drawings)
    save_reader(args.out, train(columns, args.minutes, args.rate), model.codec.units)
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
