"""Image features are spliced where the image tokens stand, and the answer follows from them."""

import pytest
import torch

from reference.config import FastVLMConfig, Qwen2Config, VisionConfig
from reference.decoding import GenerationSettings
from reference.errors import PromptError
from reference.fastvlm import FastVLM

IMAGE_ID = 99
T = 4  # tokens of a 128-pixel image


@pytest.fixture(scope="module")
def model() -> FastVLM:
    torch.manual_seed(0)
    return FastVLM(
        FastVLMConfig(
            layout="apple",
            vision=VisionConfig(image_size=128, depths=(1,) * 5, widths=(8, 16, 32, 64, 64)),
            text=Qwen2Config(
                vocab_size=101,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                rope_theta=1e6,
                rms_norm_eps=1e-6,
                max_position_embeddings=128,
                tie_word_embeddings=False,
            ),
            image_aspect_ratio="pad",
            image_token_id=IMAGE_ID,
            eos_token_ids=(1,),
            context_length=128,
        )
    ).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_features_flatten_the_map_row_by_row(model, images) -> None:
    features = model.vision_tower(images)
    feature_map = model.vision(images)
    assert features.shape == (2, T, 128)
    assert torch.equal(features[:, 1], feature_map[:, :, 0, 1])
    assert torch.equal(features[:, 2], feature_map[:, :, 1, 0])


@torch.no_grad()
@pytest.mark.parametrize("token", [-200, IMAGE_ID])
def test_an_image_token_becomes_the_images_features(model, images, token) -> None:
    features = model.encode_image(images[:1])
    embeds = model.splice(torch.tensor([[5, token, 7, 8]]), features)
    assert embeds.shape == (1, 3 + T, 32)
    assert torch.equal(embeds[:, 1 : 1 + T], features)
    assert torch.equal(embeds[:, [0, -2, -1]], model.embed(torch.tensor([[5, 7, 8]])))


@torch.no_grad()
def test_one_token_per_feature_is_the_same_prompt(model, images) -> None:
    features = model.encode_image(images[:1])
    once = model.splice(torch.tensor([[5, IMAGE_ID, 7]]), features)
    repeated = model.splice(torch.tensor([[5, *[IMAGE_ID] * T, 7]]), features)
    assert torch.equal(once, repeated)


@torch.no_grad()
def test_several_images_take_their_places_in_order(model, images) -> None:
    features = model.encode_image(images)
    embeds = model.splice(torch.tensor([[-200, 5, -200]]), features)
    assert torch.equal(embeds[0, :T], features[0])
    assert torch.equal(embeds[0, -T:], features[1])
    swapped = model.logits(torch.tensor([[-200, 5, -200]]), images.flip(0))
    assert not torch.allclose(swapped, model.logits(torch.tensor([[-200, 5, -200]]), images))


@torch.no_grad()
def test_a_batch_gives_each_prompt_its_own_image(model, images) -> None:
    ids = torch.tensor([[5, -200, 7], [-200, 6, 8]])
    together = model.logits(ids, images)
    for row in range(2):
        alone = model.logits(ids[row : row + 1], images[row : row + 1])
        assert (together[row] - alone[0]).abs().max() < 1e-5


@torch.no_grad()
@pytest.mark.parametrize(
    ("ids", "num_images"), [([[5, 6]], 1), ([[-200, 5]], 0), ([[-200, -200]], 1), ([[-200]], 2)]
)
def test_image_tokens_that_do_not_fit_the_images_are_an_error(model, images, ids, num_images):
    with pytest.raises(PromptError):
        model.logits(torch.tensor(ids), images[:num_images] if num_images else None)


@torch.no_grad()
def test_greedy_generation_follows_the_logits(model, images) -> None:
    ids = torch.tensor([[5, -200, 7, 8]])
    settings = GenerationSettings(max_new_tokens=6)
    answer = model.generate(ids, images[:1], settings=settings).token_ids
    for token in answer:
        logits = model.logits(ids, images[:1])
        assert int(logits[0, -1].argmax()) == token
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)


def test_sampling_repeats_with_its_seed_and_varies_without(model, images) -> None:
    ids = torch.tensor([[5, -200, 7, 8]])

    def sample(seed: int) -> tuple[int, ...]:
        settings = GenerationSettings(max_new_tokens=12, temperature=1.0, top_p=0.95, seed=seed)
        return model.generate(ids, images[:1], settings=settings).token_ids

    assert sample(3) == sample(3)
    assert len({sample(seed) for seed in range(4)}) > 1
