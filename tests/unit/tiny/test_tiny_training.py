"""Training: batches depend on their step alone, a killed run goes on, the result loads."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reference.loading import load
from reference.tiny.data import DataSettings, batches, make_batch
from reference.tiny.train import Trainer, TrainSettings, finish, prepare, schedule


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _settings(out: Path) -> TrainSettings:
    return TrainSettings(out=out, num_steps=3, seeing_steps=1, batch_size=2, warmup_steps=1)


def _start(out: Path) -> tuple[Trainer, DataSettings, dict[str, object]]:
    settings = _settings(out)
    raw_config, data = prepare(settings)
    return Trainer(settings, raw_config), data, raw_config


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, data, _ = _start(tmp_path / "whole")
    for step in range(3):
        whole.train_step(make_batch(data, step))
    first, data, _ = _start(tmp_path / "killed")
    first.train_step(make_batch(data, 0))
    first.save_state(tmp_path / "state.pt")
    second, data, raw_config = _start(tmp_path / "killed")
    second.load_state(tmp_path / "state.pt")
    for step in range(second.step, 3):
        second.train_step(make_batch(data, step))
    for name, value in whole.ema.items():
        assert torch.equal(value, second.ema[name]), name

    finish(second, raw_config)
    model = load(tmp_path / "killed")
    with torch.inference_mode():
        assert bool(model.encode_image(torch.rand(1, 3, 256, 256)).isfinite().all())


def test_a_state_of_another_schedule_is_refused(tmp_path: Path) -> None:
    trainer, _, _ = _start(tmp_path)
    trainer.save_state(tmp_path / "state.pt")
    trainer.settings = replace(trainer.settings, num_steps=99)
    with pytest.raises(SystemExit, match="belongs to a run of 3 steps"):
        trainer.load_state(tmp_path / "state.pt")


def test_batches_depend_on_seed_and_step_alone(tmp_path: Path) -> None:
    _, data = prepare(_settings(tmp_path))
    small = replace(data, image_size=64)
    ahead = list(batches(small, first_step=4, num_steps=6))
    assert len(ahead) == 2
    alone = make_batch(small, 5)
    assert np.array_equal(ahead[1].images, alone.images)
    assert all(
        np.array_equal(a.input_ids, b.input_ids)
        for a, b in zip(ahead[1].rows, alone.rows, strict=True)
    )
    assert not np.array_equal(ahead[0].images, alone.images)
    other_seed = make_batch(replace(small, seed=1), 5)
    assert not np.array_equal(other_seed.images, alone.images)


def test_the_learning_rate_warms_up_decays_and_restarts() -> None:
    settings = TrainSettings(out=Path())
    shares = [schedule(settings, step, first_step=0) for step in (0, 1250, 1799, 1800, 2699)]
    assert shares == pytest.approx([0.01, 0.505, 0.19, 0.406, 0.01], abs=5e-3)
    late = [schedule(settings, step, first_step=400) for step in (399, 449, 499)]
    assert late == pytest.approx([0.0, 0.46, 0.90], abs=1e-2)
