"""What turns chats and frames into the stand-in's inputs."""

from transformers import LlavaOnevisionImageProcessor, LlavaOnevisionProcessor, LlavaOnevisionVideoProcessor

from clip import GRID_SIDE, IMAGENET_MEAN, IMAGENET_STD, SIDE_PIXELS

IMAGE_TOKEN = "<image>"
VIDEO_TOKEN = "<video>"

# SmolLM2's own template, for messages whose content is a list of parts.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['content'] is string -%}{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{{ '<video>' if part['type'] == 'video' else '<image>' if part['type'] == 'image' else part['text'] }}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""


def standin_processor(tokenizer) -> LlavaOnevisionProcessor:
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN, VIDEO_TOKEN]})
    pictures = {
        "size": {"height": SIDE_PIXELS, "width": SIDE_PIXELS},
        "image_mean": IMAGENET_MEAN.tolist(),
        "image_std": IMAGENET_STD.tolist(),
    }
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(image_grid_pinpoints=[[SIDE_PIXELS, SIDE_PIXELS]], **pictures),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(**pictures),
        num_image_tokens=GRID_SIDE**2,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE_TOKEN,
        video_token=VIDEO_TOKEN,
    )
