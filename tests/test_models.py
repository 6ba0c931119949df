import socket

import numpy as np
import pytest
import torch
import torchvision

from covid_utils import models
from covid_utils.models import Net, build_model, freeze, read_weights, save_weights, train_mode

SLICES = torch.randint(0, 256, (4, 64, 64), dtype=torch.uint8)


def test_one_logit_a_slice():
    model = Net("resnet18").eval()
    assert model(model.preprocess(SLICES)).shape == (4,)
    assert model(model.preprocess(SLICES[:1])).shape == (1,)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50"])
def test_frozen_but_layer4_and_head(backbone):
    table = models.parameter_table(freeze(Net(backbone)))
    assert set(table[table.trainable].parameter.str.split(".").str[1]) == {"layer4", "fc"}
    blocks = models.block_table(freeze(Net(backbone), "all"))
    assert (blocks.numbers == blocks.learning).all()


def test_frozen_batch_norm_does_not_drift_and_a_plain_train_does():
    model = freeze(Net("resnet18"))
    norms = {"layer1": model.net.layer1[0].bn1, "layer4": model.net.layer4[0].bn1}
    before = {name: norm.running_mean.clone() for name, norm in norms.items()}
    train_mode(model)
    model(model.preprocess(SLICES))
    assert torch.equal(norms["layer1"].running_mean, before["layer1"])
    assert not torch.equal(norms["layer4"].running_mean, before["layer4"])
    model.train()
    model(model.preprocess(SLICES))
    assert not torch.equal(norms["layer1"].running_mean, before["layer1"])


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
    save_weights(tmp_path / "w.safetensors", state, {"note": 1}, step)
    back, notes = read_weights(tmp_path / "w.safetensors")
    assert notes == {"note": 1} and back.keys() == state.keys()
    kernel, restored = state["net.layer4.0.conv1.weight"], back["net.layer4.0.conv1.weight"]
    largest, spread = kernel.flatten(1).abs().amax(1) / 127, step * kernel.flatten(1).std(1)
    assert restored.shape == kernel.shape
    assert ((kernel - restored).flatten(1).abs().amax(1) <= torch.maximum(largest, spread) / 2 + 1e-7).all()
    assert torch.equal(back["net.bn1.running_var"], state["net.bn1.running_var"])
    assert (tmp_path / "w.safetensors").stat().st_size < size * 4 * sum(t.numel() for t in state.values())


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_bundled_weights_load_and_are_not_random(backbone):
    model = build_model(backbone, "bundled")
    assert model.origin == "bundled"
    # the running statistics of a network that never saw data are exactly 0 and 1
    assert model.net.layer1[0].bn1.running_mean.abs().max() > 0.01


def test_damaged_bundled_weights_are_found(tmp_path, monkeypatch):
    content = (models.BUNDLED / "resnet18.safetensors").read_bytes()
    (tmp_path / "resnet18.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (tmp_path / "SHA256SUMS").write_text((models.BUNDLED / "SHA256SUMS").read_text())
    monkeypatch.setattr(models, "BUNDLED", tmp_path)
    with pytest.raises(ValueError, match="resnet18.safetensors is damaged .*git checkout"):
        build_model("resnet18", "bundled")
    with pytest.raises(ValueError, match="No bundled weights for 'resnet34'.*use backbone resnet18"):
        build_model("resnet34", "bundled")


# --------------------------------------------------------------------- ImageNet weights, without a network


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


def test_imagenet_from_the_local_cache(hub):
    torchvision_net = torchvision.models.resnet50()
    torch.save(torchvision_net.state_dict(), hub / "resnet50-11ad3fa6.pth")  # ResNet50_Weights.DEFAULT's file
    model = build_model("resnet50", "imagenet", image_size=224)
    assert torch.equal(model.net.layer2[0].conv1.weight, torchvision_net.layer2[0].conv1.weight)
    published = torchvision.models.ResNet50_Weights.DEFAULT.transforms()
    grey = torch.randint(0, 256, (2, 224, 224), dtype=torch.uint8)
    expected = published(grey.unsqueeze(1).expand(-1, 3, -1, -1))
    assert torch.equal(model.preprocess(grey), expected)
    assert model.field == pytest.approx(224 / 232)


def test_imagenet_without_network_says_how_to_go_on(hub):
    with pytest.raises(ConnectionError, match="without a network use weights='bundled' with backbone resnet18"):
        build_model("resnet18", "imagenet")


def test_a_damaged_cache_is_named(hub):
    (hub / "resnet18-f37072fd.pth").write_bytes(b"half")
    with pytest.raises(ValueError, match="resnet18-f37072fd.pth is damaged .*delete it"):
        build_model("resnet18", "imagenet")


# ------------------------------------------------------------------------------------------------ checkpoints


def test_checkpoints_that_are_none(tmp_path):
    path = tmp_path / "best.safetensors"
    with pytest.raises(FileNotFoundError, match="No checkpoint .*best.safetensors: train the model first"):
        models.load_model(path)
    save_weights(path, Net().state_dict(), {})
    with pytest.raises(ValueError, match="best.safetensors holds weights but no checkpoint of this course"):
        models.load_model(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="best.safetensors is damaged"):
        models.load_model(path)


@pytest.mark.parametrize(("backbone", "least"), [("resnet18", 0.75), ("resnet50", 0.7)])
def test_the_bundled_weights_have_learned_their_task(backbone, least):
    notes = read_weights(models.BUNDLED / f"{backbone}.safetensors")[1]
    assert notes["backbone"] == backbone and all(auc > least for auc in notes["held_out_auc"].values())


def test_the_bundled_weights_are_small():
    assert sum(path.stat().st_size for path in models.BUNDLED.glob("*.safetensors")) <= 25_000_000


def test_normalise_gives_three_equal_channels():
    x = models.normalise(SLICES)
    assert x.dtype == torch.float32 and x.shape == (4, 3, 64, 64)
    assert torch.equal(x[:, 0], x[:, 2])
    assert np.isclose(x[0, 0, 0, 0].item(), (SLICES[0, 0, 0].item() / 255 - models.CT_MEAN) / models.CT_STD)
