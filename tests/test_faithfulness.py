import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import ROADLeastRelevantFirst, ROADMostRelevantFirst
from pytorch_grad_cam.utils.model_targets import BinaryClassifierOutputTarget
from toy import tiny_data

from covid_utils import training
from covid_utils.core.settings import Settings
from covid_utils.labs import faithfulness
from covid_utils.models import Net
from covid_utils.runs.load_or_train import new_model
from ct_phantom.patients import draw_patient

IMAGES = torch.from_numpy(np.concatenate([draw_patient(p, image_size=64, n_slices=2).images for p in range(3)]))
MAPS = np.random.default_rng(0).random((6, 64, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return Net("resnet18").eval()


def test_a_missing_pixel_is_the_mean_of_its_neighbours():
    """A sixth of those beside it, a twelfth of those across, known or filled in; known ones stay."""
    image = IMAGES[0].numpy().astype(np.float32)
    block = np.zeros((64, 64), bool)
    block[5:40, 1:30] = True
    for gone in (block, MAPS[0] < 0.5, MAPS[0] < 0.95):
        filled = faithfulness.impute(image, gone)
        assert np.array_equal(filled[~gone], image[~gone])
        up, down, left, right = filled[:-2, 1:-1], filled[2:, 1:-1], filled[1:-1, :-2], filled[1:-1, 2:]
        across = filled[:-2, :-2] + filled[:-2, 2:] + filled[2:, :-2] + filled[2:, 2:]
        mean = (up + down + left + right) / 6 + across / 12
        assert np.abs(mean - filled[1:-1, 1:-1])[gone[1:-1, 1:-1]].max() < 0.01


def test_road_agrees_with_the_librarys(model):
    """Removed on the network's input there, on the slice here: rounding and other noise are all that differs."""
    x = model.preprocess(IMAGES)
    targets = [BinaryClassifierOutputTarget(1)] * len(x)
    with torch.no_grad():
        before = model(x).numpy()
    for order, metric in (("MoRF", ROADMostRelevantFirst(60)), ("LeRF", ROADLeastRelevantFirst(60))):
        theirs = before + metric(x, MAPS, targets, model)
        ours = faithfulness.removal_curves(model, IMAGES, {"a": MAPS}, [0.4], [1] * len(x), order)["a"][0]
        assert np.abs(ours - 1 / (1 + np.exp(-theirs))).max() < 0.02


def test_the_right_pixels_go_and_the_others_stay():
    heat = np.zeros((1, 64, 64), np.float32)
    heat[0, :16] = 1
    bright = torch.full((1, 64, 64), 200, dtype=torch.uint8)
    most = faithfulness.remove(bright, heat, 0.25, "MoRF", "black")[0]
    assert (most[:16] == 0).all() and (most[16:] == 200).all()
    least = faithfulness.remove(bright, heat, 0.75, "LeRF", "black")[0]
    assert (least[:16] == 200).all() and (least[16:] == 0).all()
    assert torch.equal(faithfulness.remove(IMAGES, MAPS, 0.0), IMAGES)
    tied = faithfulness.remove(bright, np.zeros((1, 64, 64), np.float32), 0.25, fill="black")
    assert (tied == 0).float().mean() == 0.25, "ties don't remove the whole slice"
    with pytest.raises(ValueError, match="order='hottest'"):
        faithfulness.remove(IMAGES, MAPS, 0.1, order="hottest")


def test_a_network_that_needs_one_place_shows_in_the_curve():
    class Corner(Net):
        def forward(self, x):
            return 4 * self.preprocess(x)[:, 0, :16, :16].mean((1, 2)) - 2

    image = torch.zeros(1, 64, 64, dtype=torch.uint8)
    image[0, :16, :16] = 255
    corner, rest = image.numpy() / 255, 1 - image.numpy() / 255
    curves = faithfulness.removal_curves(Corner(), image, {"corner": corner, "rest": rest}, [0.0625], [1])
    assert curves["corner"] < 0.2 and curves["rest"] > 0.8


def test_agreement_of_maps():
    assert np.allclose(faithfulness.rank_correlation(MAPS, MAPS**3), 1)
    assert np.allclose(faithfulness.rank_correlation(MAPS, -MAPS), -1)
    assert (faithfulness.rank_correlation(MAPS, np.zeros_like(MAPS)) == 0).all()


def test_cascade_breaks_stage_by_stage_and_spares_the_model(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    names, changed = {"head": {"fc"}, "stem": {"conv1", "bn1"}}, []
    for stage, broken in faithfulness.cascading_randomisation(model, seed=7):
        different = {key.split(".")[1] for key, t in broken.state_dict().items() if not torch.equal(t, before[key])}
        changed.append(stage)
        # a batch norm that never learned is the same before and after
        assert different | {"bn1"} == set().union(*(names.get(each, {each}) for each in changed)) | {"bn1"}
    assert tuple(changed) == faithfulness.CASCADE
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_three_networks_learn_the_same_slices_with_other_labels(monkeypatch):
    seen, data, settings = [], tiny_data(patients=12), Settings(image_size=32, backbone="resnet18", device="cpu")

    def train_one_epoch(head, loader, *rest):
        _, labels = loader.dataset.tensors
        seen.append((labels, head.model.net.fc.weight.clone()))
        return training.train_one_epoch(head, loader, *rest)

    monkeypatch.setattr(faithfulness, "train_one_epoch", train_one_epoch)
    trained = faithfulness.retrain_three_times(data, settings, slices=14, epochs=6)
    assert list(trained) == ["honest", "honest, another seed", "shuffled labels"]
    assert min(accuracy for _, accuracy in trained.values()) > 0.8, "even shuffled labels are learned by heart"
    (honest, one), (same, two), (shuffled, three) = seen[::6]
    assert len(honest) == 14 and torch.equal(honest, same) and not torch.equal(honest, shuffled)
    assert sorted(honest) == sorted(shuffled), "the same labels in another order"
    assert torch.equal(one, three) and not torch.equal(one, two), "a seed makes the head"
    before = new_model(settings).net
    for model, _ in trained.values():
        assert not model.training and torch.equal(model.net.layer3[0].conv1.weight, before.layer3[0].conv1.weight)
        assert not torch.equal(model.net.layer4[0].conv1.weight, before.layer4[0].conv1.weight)
