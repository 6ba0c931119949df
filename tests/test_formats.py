"""The number format is measured, kept, and never the reason for other bits."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from toy import tiny_data

from covid_utils import models, training
from covid_utils.core import device
from covid_utils.core.settings import Settings
from covid_utils.runs import formats
from covid_utils.runs.checkpoints import read_last
from covid_utils.runs.load_or_train import load_model

QUICK = Settings(image_size=64, epochs=2, batch_size=8)


@pytest.fixture(autouse=True)
def as_if_fast(monkeypatch, tmp_path):
    """Any processor can compute in bfloat16; here it is told that it does so in hardware, and nothing was measured."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.setenv("COVID_UTILS_HOME", str(tmp_path))


def used(model, learning: bool) -> torch.dtype:
    """What the first convolution computes in."""
    seen = []
    hook = model.parts("stem")[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.set_grad_enabled(learning):
        models.ask(model.eval(), torch.zeros(2, 64, 64, dtype=torch.uint8))
    hook.remove()
    return seen[0]


def test_each_direction_has_its_own_format():
    model = models.Net()
    assert used(model, True) == used(model, False) == torch.bfloat16  # as long as nothing was measured
    model.bfloat16 |= {"learning": False}
    assert used(model, True) == torch.float32 and used(model, False) == torch.bfloat16
    model.bfloat16 |= {"learning": True, "answering": False}
    assert used(model, True) == torch.bfloat16 and used(model, False) == torch.float32


@pytest.mark.parametrize("slow", [False, True])
def test_the_faster_one_is_chosen(monkeypatch, slow):
    """One of the formats is made slow, on a clock that a busy machine does not disturb."""
    real, clock = formats.ask, SimpleNamespace(now=0.0)

    def ask(model, images):
        direction = "learning" if torch.is_grad_enabled() else "answering"
        if model.bfloat16[direction] == slow:
            clock.now += 0.2
        return real(model, images)

    monkeypatch.setattr(formats, "ask", ask)
    monkeypatch.setattr(formats, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    model = models.Net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    formats.choose_formats(model, torch.zeros(3, 64, 64, dtype=torch.uint8), kept=False)
    assert model.bfloat16 == {"answering": not slow, "learning": not slow}
    assert torch.equal(torch.random.get_rng_state(), state) and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_nothing_is_measured_where_bfloat16_is_off(monkeypatch):
    monkeypatch.setattr(device, "BFLOAT16", False)
    monkeypatch.setattr(formats, "_faster", lambda *_: pytest.fail("measured"))
    model = models.Net()
    formats.choose_formats(model, torch.zeros(3, 64, 64, dtype=torch.uint8), kept=True)
    assert model.bfloat16 == {} and used(model, True) == torch.float32


def test_it_is_kept_in_the_checkpoints_and_a_run_that_goes_on_takes_it_from_there(tmp_path, monkeypatch):
    """The machine changes its mind between the two halves of a run: the bits are those of a run in one piece."""
    data, answer = tiny_data(size=64), {"answering": True, "learning": False}

    def fitted(folder, stop: bool = False):
        model = training.new_model(QUICK)

        def after(history):
            if stop:
                raise KeyboardInterrupt

        training.fit(model, data, QUICK, folder, after)
        return model

    monkeypatch.setattr(formats, "_faster", lambda *arguments: answer[arguments[-1]])
    whole = fitted(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "half", stop=True)
    (tmp_path / formats.MEASURED).unlink()
    answer |= {"answering": False, "learning": True}
    again = fitted(tmp_path / "half")
    assert again.bfloat16 == whole.bfloat16 == {"answering": True, "learning": False}
    assert all(map(torch.equal, again.state_dict().values(), whole.state_dict().values()))
    checkpoints = tmp_path / "half" / "checkpoints"
    assert read_last(checkpoints / "last.pt")["bfloat16"] == whole.bfloat16
    loaded, _ = load_model(checkpoints / "best.safetensors")
    assert loaded.bfloat16 == whole.bfloat16
    assert fitted(tmp_path / "anew").bfloat16 == answer


def test_with_kept_features_it_is_the_tail_that_is_timed(monkeypatch):
    seen, real = [], formats.ask
    monkeypatch.setattr(formats, "ask", lambda model, images: seen.append(type(model)) or real(model, images))
    formats.choose_formats(models.freeze(models.Net()), torch.zeros(3, 64, 64, dtype=torch.uint8), kept=True)
    assert seen == [models.Net] * 4 + [models.Tail] * 4


def test_it_is_measured_once_on_a_machine(monkeypatch):
    """Timing depends on chance; the same settings must not."""
    images, answers = torch.zeros(3, 64, 64, dtype=torch.uint8), iter([True, False])
    monkeypatch.setattr(formats, "_faster", lambda *_: next(answers))
    for _ in range(2):
        model = models.Net()
        formats.choose_formats(model, images, kept=False)
        assert model.bfloat16 == {"answering": True, "learning": False}
    with pytest.raises(StopIteration):  # another size is another measurement
        formats.choose_formats(model, images[:, :32, :32], kept=False)
