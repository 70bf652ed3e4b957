"""The `qwen_2` prompt as a Jinja chat template, for consumers that build prompts from messages."""

from reference.prompt import DEFAULT_SYSTEM, IMAGE_TOKEN, ImagePosition

_TEXTS = "{%- for part in message['content'] if part['type'] == 'text' -%}{{- part['text'] -}}"
_IMAGES = "{%- for part in message['content'] if part['type'] == 'image' -%}"
_END = "{%- endfor -%}"


def chat_template(position: ImagePosition) -> str:
    """A template that renders one image and one text as `reference.prompt.build_prompt` does.

    Content that is a string is taken as it is, with the `<image>` marks it holds; of content that
    is a list of parts, the images come before or after the texts, as `position` says.
    """
    before = f"{_IMAGES}{{{{- '{IMAGE_TOKEN}\\n' -}}}}{_END}{_TEXTS}{_END}"
    after = f"{_TEXTS}{_END}{_IMAGES}{{{{- '{IMAGE_TOKEN}' -}}}}{_END}"
    return (
        "{%- for message in messages -%}"
        "{%- if loop.first and message['role'] != 'system' -%}"
        f"{{{{- '<|im_start|>system\\n{DEFAULT_SYSTEM}<|im_end|>\\n' -}}}}"
        "{%- endif -%}"
        "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
        "{%- if message['content'] is string -%}{{- message['content'] -}}"
        f"{{%- else -%}}{before if position == 'before' else after}{{%- endif -%}}"
        "{{- '<|im_end|>\\n' -}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    )
