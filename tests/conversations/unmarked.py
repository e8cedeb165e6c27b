"""Chat templates of many kinds, each with marks and without: what is derived is held against the marks."""

import re

PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
USER = "{% if m.role != 'assistant' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{{ '\\n' }}{% else %}"
FOR, DONE = "{% for m in messages %}", "{% endif %}{% endfor %}"


def turn(header: str, marked: str, after: str = "{{ '\\n' }}", prompt: str = PROMPT) -> str:
    """A template whose assistant turns are `header`, what is `marked`, and `after`."""
    return f"{FOR}{USER}{header}{{% generation %}}{marked}{{% endgeneration %}}{after}{DONE}{prompt}"


HEADER = "{{ '<|im_start|>assistant\\n' }}"
KINDS = {
    "prefix": turn(HEADER, "{{ m.content }}<|im_end|>"),
    "no prompt": turn(HEADER, "{{ m.content }}<|im_end|>", prompt=""),
    "stripped": turn(HEADER, "{{ m.content | trim }}<|im_end|>"),
    "space before the end": turn(HEADER, "{{ m.content }}\n\n<|im_end|>"),
    "prompt opens thoughts": turn(HEADER, "{{ m.content }}<|im_end|>", prompt=PROMPT.replace("nt\n", "nt\n<think>\n")),
    "another end at the end": turn(
        HEADER, "{{ m.content }}{% if loop.last %}<|endoftext|>{% else %}<|im_end|>{% endif %}"
    ),
    "text end behind the end": turn(HEADER, "{{ m.content }}<|im_end|>", "{{ '\\n<|endoftext|>' if loop.last }}"),
    "end of text": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|endoftext|>"
    "{% endgeneration %}{% else %}{{ m.content }}<|endoftext|>" + DONE,
    "channel": turn(HEADER + "final: ", "{{ m.content }}<|im_end|>"),
    "no end": "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}" + DONE,
    "end when more follows": turn(HEADER, "{{ m.content }}{% if not loop.last %}<|endoftext|>{% endif %}", ""),
    "parts": turn(HEADER, "{{ m.content[0]['text'] }}<|im_end|>").replace("{{ m.content }}", "{{ m.content[0].text }}"),
}
"""With marks round the text and the end token of the assistant's turns."""

CALLING = turn(
    HEADER,
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool>{{ call.function.name }}{{ call.function.arguments | tojson }}</tool>"
    "{% endfor %}<|im_end|>",
)
"""With thoughts and tool calls."""


def without_marks(template: str) -> str:
    return re.sub(r"{% (end)?generation %}", "", template)
