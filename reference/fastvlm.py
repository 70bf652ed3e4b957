"""FastVLM: an image and a prompt in, logits or an answer out.

Source: FastVLM (arXiv 2412.13303); the splicing of image features is LLaVA's.

Shape letters: B prompts, N images, S the image size, T tokens per image, C the tower's channels,
H the hidden size, L positions, V the vocabulary.
"""

import torch
from torch import Tensor, nn

from reference.config import FastVLMConfig
from reference.decoding import Generation, GenerationSettings, OnToken
from reference.errors import PromptError
from reference.fastvithd import FastViTHD
from reference.generation import generate
from reference.projector import Projector
from reference.prompt import IMAGE_SENTINEL
from reference.qwen2 import Qwen2
from reference.session import TorchSession


class FastVLM(nn.Module):
    """The whole model; `reference.loading.load` makes one from a checkpoint."""

    def __init__(self, config: FastVLMConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = FastViTHD(config.vision)
        self.projector = Projector(config.vision.out_channels, config.text.hidden_size)
        self.language = Qwen2(config.text)

    def vision_tower(self, pixel_values: Tensor) -> Tensor:
        """Features before the projector: [B, 3, S, S] in 0..1 -> [B, T, C], row by row."""
        feature_map: Tensor = self.vision(pixel_values)
        return feature_map.flatten(2).transpose(1, 2)

    def project(self, features: Tensor) -> Tensor:
        """[B, T, C] -> [B, T, H], in the language model's embedding space."""
        projected: Tensor = self.projector(features)
        return projected

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """[B, 3, S, S] in 0..1 -> [B, T, H]."""
        return self.project(self.vision_tower(pixel_values))

    def embed(self, input_ids: Tensor) -> Tensor:
        """Text only: [B, L] -> [B, L, H]."""
        embeds: Tensor = self.language.embed_tokens(input_ids)
        return embeds

    def splice(self, input_ids: Tensor, image_features: Tensor | None) -> Tensor:
        """Embed a prompt, its image tokens replaced by image features.

        Args:
            input_ids: [B, L]; an image is one token (-200 or the config's id), or T of them.
            image_features: [N, T, H] for the batch's N images in reading order; None for none.

        Returns:
            [B, L', H], where each image takes T positions.

        Raises:
            PromptError: the image tokens do not fit the images, or rows differ in their number.
        """
        is_image = input_ids == IMAGE_SENTINEL
        if self.config.image_token_id is not None:
            is_image = is_image | (input_ids == self.config.image_token_id)
        num_tokens = int(is_image.sum())
        if image_features is None or image_features.shape[0] == 0:
            if num_tokens:
                raise PromptError(f"the prompt has {num_tokens} image tokens and no image is given")
            return self.embed(input_ids)
        num_images, tokens_per_image, hidden = image_features.shape
        text = self.embed(input_ids.masked_fill(is_image, 0))
        if num_tokens == num_images * tokens_per_image:
            return text.masked_scatter(is_image[..., None], image_features.to(text.dtype))
        if num_tokens != num_images:
            raise PromptError(
                f"the prompt has {num_tokens} image tokens for {num_images} images",
                hint="give one image token per image",
            )
        repeats = torch.where(is_image, tokens_per_image, 1)
        lengths = repeats.sum(1)
        if not bool((lengths == lengths[0]).all()):
            raise PromptError("the prompts of one batch hold different numbers of images")
        rows = text.flatten(0, 1).repeat_interleave(repeats.flatten(), dim=0)
        spliced = is_image.flatten().repeat_interleave(repeats.flatten())
        rows = rows.masked_scatter(spliced[:, None], image_features.to(text.dtype))
        return rows.view(input_ids.shape[0], -1, hidden)

    def prompt_embeds(self, input_ids: Tensor, pixel_values: Tensor | None = None) -> Tensor:
        """[B, L] and images [N, 3, S, S] -> [B, L', H]; see `splice`."""
        features = None if pixel_values is None else self.encode_image(pixel_values)
        return self.splice(input_ids, features)

    def logits(self, input_ids: Tensor, pixel_values: Tensor | None = None) -> Tensor:
        """[B, L] and images [N, 3, S, S] -> [B, L', V], L' counting T positions per image."""
        logits, _ = self.language(self.prompt_embeds(input_ids, pixel_values))
        return logits  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped

    @torch.inference_mode()
    def generate(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        *,
        settings: GenerationSettings | None = None,
        on_token: OnToken | None = None,
    ) -> Generation:
        """Answer one prompt: greedy, beam search or sampling, as `settings` say.

        Args:
            input_ids: [1, L].
            pixel_values: the prompt's images [N, 3, S, S], None for a text-only prompt.
            settings: by default greedy, ended by the config's end-of-turn token.
            on_token: called with each token as soon as it is certain.
        """
        if settings is None:
            settings = GenerationSettings(eos_token_ids=self.config.eos_token_ids)
        embeds = self.prompt_embeds(input_ids, pixel_values)
        return generate(TorchSession(self.language, embeds), settings, on_token=on_token)
