"""Train the tiny FastVLM: `python -m reference.tiny.train --out DIR --seed 0`.

Rendered scenes, many questions per image; loss on the answers only, plus an auxiliary loss that is
dropped at the end. The moving average of the weights is folded, rounded to float16 and saved.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.config import parse_config
from reference.fastvlm import FastVLM
from reference.prompt import load_tokenizer
from reference.tiny.architecture import config_json
from reference.tiny.auxiliary import AuxiliaryHead, auxiliary_loss
from reference.tiny.data import Batch, DataSettings, batches
from reference.tiny.packing import answer_logits, collate
from reference.tiny.save import save_checkpoint
from reference.tiny.tokenizer import IMAGE_TOKEN, SPECIAL_TOKENS, write_tokenizer
from reference.tiny.train_form import fold, to_train_form

_STATE_NAME = "training-state.pt"


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Everything that decides the weights.

    For the first `seeing_steps` the tower learns alone, from the auxiliary head: the language model
    has nothing to ground its words in before. At `compare_from_step` and `both_orders_from_step`
    the mix of questions changes (see `DataSettings`); the latter restarts the learning rate at
    `restart_share` of its peak (arXiv 1608.03983).
    """

    out: Path
    seed: int = 0
    num_steps: int = 2700
    seeing_steps: int = 400
    compare_from_step: int = 1000
    both_orders_from_step: int = 1800
    first_cycle_steps: int = 2500
    restart_share: float = 0.4
    batch_size: int = 32
    vision_learning_rate: float = 2.5e-3
    language_learning_rate: float = 1.5e-3
    warmup_steps: int = 100
    weight_decay: float = 0.02
    ema_decay: float = 0.995
    num_threads: int = 2
    save_every: int = 200


class Trainer:
    """Model, auxiliary head, optimiser and moving average; a step at a time, resumable."""

    def __init__(self, settings: TrainSettings, raw_config: dict[str, object]) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.model = FastVLM(parse_config(raw_config, source="the tiny config"))
        config = self.model.config
        to_train_form(self.model.vision)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        nn.init.normal_(self.model.language.embed_tokens.weight, std=0.2)
        self.head = AuxiliaryHead(
            num_tokens=config.vision.num_tokens, hidden_size=config.text.hidden_size
        )
        self.ema = {name: value.clone() for name, value in self.model.state_dict().items()}
        vision = [self.model.vision, self.model.projector, self.head]
        self.optimizer = torch.optim.AdamW(
            [
                *_groups(vision, settings.vision_learning_rate, settings, first_step=0),
                *_groups(
                    [self.model.language],
                    settings.language_learning_rate,
                    settings,
                    first_step=settings.seeing_steps,
                ),
            ],
            betas=(0.9, 0.98),
        )
        self.step = 0

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One update; what to log."""
        settings = self.settings
        for group in self.optimizer.param_groups:
            share = schedule(settings, self.step, first_step=group["first_step"])
            group["lr"] = group["peak_lr"] * share
        images = torch.from_numpy(batch.images).permute(0, 3, 1, 2)  # channels_last already
        with torch.autocast("cpu", torch.bfloat16):
            projected = self.model.encode_image(images.float() / 255)
            seeing, seen_right = auxiliary_loss(
                self.head(projected), torch.from_numpy(batch.labels)
            )
        report = {"seeing loss": seeing.detach(), "seen right": seen_right}
        loss: Tensor = seeing
        if self.step >= settings.seeing_steps:
            language, hits = self._language_loss(projected, batch)
            seeing_weight = max(0.2, 1.0 - 0.8 * self.step / settings.first_cycle_steps)
            loss = language + seeing_weight * seeing
            report |= {"answer loss": language.detach(), "tokens right": hits}
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        report["gradient"] = nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return {name: float(value) for name, value in report.items()}

    def _language_loss(self, projected: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Weighted cross-entropy of the answer tokens, and the share of them that is right."""
        packed = collate(batch.rows)
        with torch.autocast("cpu", torch.bfloat16):
            features = projected.repeat_interleave(packed.images_per_row, dim=0)
            embeds = self.model.splice(packed.input_ids, features)
            logits = answer_logits(self.model.language, embeds, packed).float()
        losses = F.cross_entropy(logits, packed.answer_ids, reduction="none")
        hits = (logits.argmax(1) == packed.answer_ids).float().mean()
        return (losses * packed.weights).sum() / packed.weights.sum(), hits

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.settings.ema_decay, self.step / (self.step + 10))
        for name, value in self.model.state_dict().items():
            average = self.ema[name]
            if value.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)

    def save_state(self, path: Path) -> None:
        """Write all that resuming needs, by rename."""
        state = {
            "model": self.model.state_dict(),
            "head": self.head.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "num_steps": self.settings.num_steps,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.rename(path)

    def load_state(self, path: Path) -> None:
        """Go on from what `save_state` wrote."""
        state = torch.load(path, weights_only=True)
        if state["num_steps"] != self.settings.num_steps:
            raise SystemExit(
                f"error: {path} belongs to a run of {state['num_steps']} steps\n"
                "hint: give the same --steps, or delete the file to start over"
            )
        self.model.load_state_dict(state["model"])
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema = state["ema"]
        self.step = state["step"]


def _groups(
    modules: Iterable[nn.Module], peak_lr: float, settings: TrainSettings, *, first_step: int
) -> list[dict[str, object]]:
    """Optimiser groups: matrices and kernels decay, scales and biases do not."""
    parameters = [p for module in modules for p in module.parameters()]
    decayed = [p for p in parameters if p.ndim > 1 and p.numel() > p.shape[0]]
    kept = [p for p in parameters if not (p.ndim > 1 and p.numel() > p.shape[0])]
    common = {"peak_lr": peak_lr, "lr": peak_lr, "first_step": first_step}
    return [
        {"params": decayed, "weight_decay": settings.weight_decay, **common},
        {"params": kept, "weight_decay": 0.0, **common},
    ]


def schedule(settings: TrainSettings, step: int, *, first_step: int) -> float:
    """Share of the peak learning rate: a linear warm-up from `first_step`, two cosine cycles."""
    warmup = max(0.0, min(1.0, (step - first_step + 1) / settings.warmup_steps))
    restart = settings.both_orders_from_step
    if step < restart:
        peak, progress = 1.0, step / settings.first_cycle_steps
    else:
        peak, progress = settings.restart_share, (step - restart) / (settings.num_steps - restart)
    return warmup * (0.01 + 0.99 * peak * 0.5 * (1 + math.cos(math.pi * progress)))


def prepare(settings: TrainSettings) -> tuple[dict[str, object], DataSettings]:
    """Write the tokenizer into `settings.out`; the config that fits it, and what to train on."""
    settings.out.mkdir(parents=True, exist_ok=True)
    write_tokenizer(settings.out)
    tokenizer = load_tokenizer(settings.out)
    token_ids = {
        token: index
        for token in (*SPECIAL_TOKENS, IMAGE_TOKEN)
        if (index := tokenizer.token_id(token)) is not None
    }
    raw_config = config_json(num_tokens=tokenizer.vocab_size, token_ids=token_ids)
    vision = parse_config(raw_config, source="the tiny config").vision
    data = DataSettings(
        tokenizer_dir=settings.out,
        eos_id=token_ids["<|im_end|>"],
        image_size=vision.image_size,
        tokens_per_image=vision.num_tokens,
        batch_size=settings.batch_size,
        seed=settings.seed,
        compare_from_step=settings.compare_from_step,
        both_orders_from_step=settings.both_orders_from_step,
    )
    return raw_config, data


def finish(trainer: Trainer, raw_config: dict[str, object]) -> None:
    """Fold the averaged weights and write the checkpoint into the run's directory."""
    model = FastVLM(trainer.model.config)
    to_train_form(model.vision)
    model.load_state_dict(trainer.ema)
    fold(model.vision.eval())
    save_checkpoint(model, raw_config, trainer.settings.out)


def train(settings: TrainSettings) -> None:
    """Train, or go on training, and write the checkpoint into `settings.out`."""
    torch.set_num_threads(settings.num_threads)
    raw_config, data = prepare(settings)
    trainer = Trainer(settings, raw_config)
    state_path = settings.out / _STATE_NAME
    if state_path.is_file():
        trainer.load_state(state_path)
    _run(trainer, data, state_path)
    finish(trainer, raw_config)
    state_path.unlink(missing_ok=True)


def _run(trainer: Trainer, data: DataSettings, state_path: Path) -> None:
    settings = trainer.settings
    started, first_step = time.perf_counter(), trainer.step
    for batch in batches(data, first_step=first_step, num_steps=settings.num_steps):
        report = trainer.train_step(batch)
        if trainer.step % 20 == 0 or trainer.step == settings.num_steps:
            per_step = (time.perf_counter() - started) / (trainer.step - first_step)
            left_min = per_step * (settings.num_steps - trainer.step) / 60
            figures = "  ".join(f"{name} {value:.3f}" for name, value in report.items())
            sys.stderr.write(
                f"step {trainer.step}/{settings.num_steps}  {figures}  "
                f"{per_step:.2f} s/step  {left_min:.1f} min left\n"
            )
            sys.stderr.flush()
        if trainer.step % settings.save_every == 0:
            trainer.save_state(state_path)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description="Train the tiny FastVLM on rendered scenes.")
    parser.add_argument("--out", type=Path, required=True, help="directory of the checkpoint")
    parser.add_argument("--seed", type=int, default=TrainSettings.seed)
    parser.add_argument("--steps", type=int, default=TrainSettings.num_steps)
    parser.add_argument("--threads", type=int, default=TrainSettings.num_threads)
    arguments = parser.parse_args()
    train(
        TrainSettings(
            out=arguments.out,
            seed=arguments.seed,
            num_steps=arguments.steps,
            num_threads=arguments.threads,
        )
    )


if __name__ == "__main__":
    main()
