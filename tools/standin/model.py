"""SmolLM2 and DINOv2 as one LLaVA-OneVision model."""

import torch
from transformers import Dinov2Model, LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from clip import FEATURE_DIM, projection_basis
from language import LanguageModel
from standin.processor import IMAGE_TOKEN, VIDEO_TOKEN, standin_processor
from standin.vision import vision_model


def standin(pixels: torch.Tensor, dtype: torch.dtype):
    """The model and its processor.

    Args:
        pixels: frames as the processor makes them, `[frames, 3, 224, 224]`; features are standardised over them.
        dtype: of the weights, and so of the cache.
    """
    language, vision = LanguageModel(), vision_model()
    processor = standin_processor(language.tokenizer)
    language.model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    # The weights came from a quantized file, and are plain by now.
    if hasattr(language.model.config, "quantization_config"):
        del language.model.config.quantization_config
    config = LlavaOnevisionConfig(
        vision_config=vision.config,
        text_config=language.model.config,
        image_token_index=processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        video_token_index=processor.tokenizer.convert_tokens_to_ids(VIDEO_TOKEN),
        vision_feature_select_strategy="default",  # without the class token
        projector_hidden_act="linear",
    )
    model = LlavaOnevisionForConditionalGeneration(config).eval()
    model.model.vision_tower.load_state_dict(vision.state_dict())
    model.model.language_model.load_state_dict(language.model.model.state_dict())
    with torch.no_grad():
        _set_placeholders(model)
        _set_projection(model, vision, pixels)
    model.generation_config = language.model.generation_config
    return model.to(dtype), processor


def _set_placeholders(model: LlavaOnevisionForConditionalGeneration) -> None:
    """Tokens that no text has: the placeholders, and what ends a video."""
    embedding = model.get_input_embeddings().weight
    for token in (model.config.image_token_index, model.config.video_token_index):
        embedding[token] = 0
    model.model.image_newline.copy_(embedding.mean(0))


def _set_projection(
    model: LlavaOnevisionForConditionalGeneration, vision: Dinov2Model, pixels: torch.Tensor
) -> None:
    """Standardises features over `pixels`, and gives them the mean length of the language model's own embeddings."""
    features = torch.cat([vision(frame[None], output_hidden_states=True).hidden_states[-1] for frame in pixels])
    features = features[:, 1:].reshape(-1, FEATURE_DIM)
    mean, deviation = features.mean(0), features.std(0) + 1e-6
    embedding = model.get_input_embeddings().weight
    projector = model.model.multi_modal_projector
    projector.linear_1.weight.copy_(projection_basis(embedding.shape[1]) / deviation)
    projector.linear_1.bias.copy_(-(projector.linear_1.weight @ mean))
    # A standardised feature is about as long as it has channels; the map that follows keeps lengths.
    scale = embedding.norm(dim=-1).mean() / FEATURE_DIM**0.5
    projector.linear_2.weight.copy_(scale * torch.eye(embedding.shape[1]))
    projector.linear_2.bias.zero_()
