"""Make the bundled weights: pretrain on the findings of imaginary patients of another hospital.

    make weights            or        .venv/bin/python benchmarks/pretrain.py --backbone resnet18

The source task is not the lesson's: which findings does a slice show (several, or none), at which level was it
taken, how much of the lungs is affected, how are its grey values spread, and, from the trunk's features, where is
the disease. Source and target share no patient, no seed and no hospital, and no source patient has one of the findings
of COVID: haze, nets and dense patches lie anywhere in the lungs, and what they mean is for the target to say.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import platform
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, binary_cross_entropy_with_logits, interpolate, mse_loss, normalize

from covid_utils.core.backbones import BACKBONES
from covid_utils.core.device import pick_device, use_amp
from covid_utils.core.files import replace_file, write_json
from covid_utils.core.progress import progress
from covid_utils.io.weights import BUNDLED, save_weights
from covid_utils.models import Net, build_model
from ct_phantom.patients import COVID, SOURCE, draw_patient

SEED = 1_000_000  # far from any seed a learner is likely to give the lesson
SLICES = 4
BINS = 32
STEPS = {"resnet18": 0.0}  # how coarsely kernels are rounded in the file; 0.25 elsewhere: see docs/results.md
SMALL = 64  # pixels in the first two thirds of the steps, which are twice as fast so


class SourceNet(Net):
    """`Net` with the source task's heads: findings, level, area and histogram, and the lesion map from the trunk."""

    def __init__(self, backbone: str, weights: str = "scratch"):
        super().__init__(backbone)
        if weights != "scratch":
            start = build_model(backbone, weights)
            self.net, self.preprocess = start.net, start.preprocess
        with torch.no_grad():
            features = self.eval().forward_features(torch.zeros(1, 3, SMALL, SMALL))
            width = self.embed(features).shape[1]
        self.train()
        self.head = nn.Linear(width, len(SOURCE) + 2 + BINS)
        self.map = nn.Conv2d(features.shape[1], 1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Findings' logits, level, area and histogram, (N, F + 2 + BINS), and the lesion map's logits, (N, h, w)."""
        features = self.forward_features(self.preprocess(images))
        return self.head(self.embed(features)), self.map(features).squeeze(1)


def draw(count: int, first: int, image_size: int) -> dict[str, Tensor]:
    """Source patients `first` to `first + count`, drawn on all cores: images, lesions, findings, level, area."""
    one = partial(draw_patient, seed=SEED, hospital="source", image_size=image_size, n_slices=SLICES)
    with ProcessPoolExecutor() as pool:
        numbers = range(first, first + count)
        drawn = list(progress(pool.map(one, numbers, chunksize=16), desc="drawing source patients", total=count))
    names = ("images", "lesions", "lungs", "findings", "level")
    content = {name: torch.from_numpy(np.concatenate([getattr(p, name) for p in drawn])) for name in names}
    lungs = content.pop("lungs").sum((1, 2)).clamp_min(1)
    content["findings"] = content["findings"][:, len(COVID) :]  # the source has none of COVID's
    content["area"] = content["lesions"].sum((1, 2)) / lungs
    return content


def source_loss(model: SourceNet, images: Tensor, lesions: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The source task's loss (a sum of four) and the findings' logits, float32 (N, F)."""
    outputs, maps = (each.float() for each in model(images))
    target = {name: tensor.float().to(maps.device) for name, tensor in batch.items()}
    share = adaptive_avg_pool2d(lesions.float().to(maps.device), maps.shape[-2:])
    logits, numbers, greys = outputs.split((len(SOURCE), 2, BINS), 1)
    findings = binary_cross_entropy_with_logits(logits, target["findings"])
    numbers = mse_loss(numbers, torch.stack((target["level"], target["area"]), 1))
    greys = mse_loss(greys, grey_values(images).to(maps.device))
    return findings + numbers + greys + 2 * binary_cross_entropy_with_logits(maps, share), logits


def grey_values(images: Tensor) -> Tensor:
    """The grey histogram's square roots, float32 (N, BINS) of length 4: a network asked for greys keeps them."""
    counts = torch.stack([torch.histc(image.float(), BINS, 0, 256) for image in images])
    return 4 * normalize(counts.sqrt())


def smaller(images: Tensor, image_size: int) -> Tensor:
    """Slices, uint8 (N, H, W), at another size."""
    return interpolate(images[:, None].float(), (image_size, image_size), mode="area")[:, 0].to(torch.uint8)


def flip_pair(images: Tensor, lesions: Tensor) -> tuple[Tensor, Tensor]:
    """Flip half of the images left to right, and their masks with them. Their greys stay: they mean something."""
    flip = (torch.rand(len(images)) < 0.5)[:, None, None]
    return torch.where(flip, images.flip(-1), images), torch.where(flip, lesions.flip(-1), lesions)


def pretrain(
    backbone: str, patients: int, epochs: int, image_size: int, weights: str = "scratch", device: str = "auto"
) -> dict:
    """Pretrain, write `data/weights/<backbone>[_imagenet].safetensors` with checksum and notes; returns the notes."""
    started = time.perf_counter()
    held_out = draw(max(patients // 20, 50), 0, image_size)
    content = draw(patients, 10_000, image_size)
    device, batch_size = pick_device(device), 64
    torch.manual_seed(SEED)
    model = SourceNet(backbone, weights).to(device, memory_format=torch.channels_last)
    steps = epochs * (len(content["images"]) // batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for epoch in range(1, epochs + 1):
        model.train()
        losses, size = [], SMALL if 3 * epoch <= 2 * epochs else image_size
        order = torch.randperm(len(content["images"]))[: steps // epochs * batch_size].view(-1, batch_size)
        for chosen in progress(order, desc=f"epoch {epoch} of {epochs}"):
            batch = {name: tensor[chosen] for name, tensor in content.items()}
            images, lesions = flip_pair(batch.pop("images"), batch.pop("lesions"))
            images = smaller(images, size) if size < image_size else images
            with torch.autocast(device.type, torch.bfloat16, enabled=use_amp(model, device)):
                loss, _ = source_loss(model, images.to(device), lesions, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        print(f"epoch {epoch}: loss {np.mean(losses):.3f}, {time.perf_counter() - started:.0f} s", flush=True)
    notes = {
        "backbone": backbone,
        "task": "findings, level, affected area, grey histogram and lesion map of phantom slices, hospital 'source'",
        "findings": list(SOURCE),
        "slices": len(content["images"]),
        "views": steps * batch_size,
        "image_size": f"{SMALL}, then {image_size}",
        "start": weights,
        "preprocessing": dataclasses.asdict(model.preprocess),
        "seed": SEED,
        "seconds": round(time.perf_counter() - started),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {model.head.weight.device.type}",
        "held_out_auc": finding_scores(model, held_out),
    }
    output = f"net.{BACKBONES[backbone].output}."
    trunk = {n: t for n, t in model.state_dict().items() if n.startswith("net.") and not n.startswith(output)}
    name = backbone if weights == "scratch" else f"{backbone}_{weights}"
    save_weights(BUNDLED / f"{name}.safetensors", pack_kernels(trunk, STEPS.get(backbone, 0.25)), notes)
    files = sorted(BUNDLED.glob("*.safetensors"))
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    replace_file(BUNDLED / "SHA256SUMS", lambda path: path.write_text(sums))
    write_json(BUNDLED / f"{name}.json", notes)
    return notes


def pack_kernels(state: dict[str, Tensor], step: float) -> dict[str, Tensor]:
    """Tensors with their kernels rounded to 8 bits and packed with zlib: a quarter to a seventh of the size.

    Args:
        step: each output channel becomes multiples of this share of its standard deviation (or of a 127th of its
            largest number, if that is more); 0 to 0.25.
    """
    packed = {name: tensor.detach().cpu() for name, tensor in state.items()}
    for name in [name for name, tensor in packed.items() if tensor.dim() > 1]:
        channels = packed[name].flatten(1)
        scale = torch.maximum(step * channels.std(1, correction=0), channels.abs().amax(1) / 127).clamp_min(1e-12)
        whole = (channels / scale[:, None]).round().to(torch.int8)
        packed[f"{name}.scale"], packed[f"{name}.shape"] = scale, torch.tensor(packed[name].shape)
        packed[name] = torch.frombuffer(bytearray(zlib.compress(whole.numpy(), 9)), dtype=torch.uint8)
    return packed


@torch.inference_mode()
def finding_scores(model: SourceNet, held_out: dict[str, Tensor]) -> dict[str, float]:
    """AUC of each finding on source patients that were not trained on."""
    device = next(model.eval().parameters()).device
    logits = torch.cat([model(images.to(device))[0].cpu() for images in held_out["images"].split(64)])
    truth = held_out["findings"].numpy()
    return {name: round(roc_auc_score(truth[:, i], logits[:, i]), 3) for i, name in enumerate(SOURCE)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet18", choices=BACKBONES)
    parser.add_argument("--patients", type=int, default=4000, help="source patients, four slices each")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--weights", default="scratch", choices=("scratch", "imagenet"), help="where it starts")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    print(pretrain(**vars(options)))


if __name__ == "__main__":
    main()
