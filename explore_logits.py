"""Look into a logits dataset.

In a notebook:

    from explore_logits import *
    dataset = load_logit_dataset("./logits")
    visualize_conversation_probabilities(dataset, 0)

In a terminal: python explore_logits.py ./logits [show 0], python explore_logits.py verify ./logits
"""

from teacher_logits.exploring import (
    analyze_token_probabilities,
    decode_top_tokens,
    dequantize_all_logits,
    dequantize_logits,
    dequantize_sampled_logits,
    dequantize_top_logits,
    get_nucleus_probability_mass,
    get_sample,
    load_extraction_config,
    load_logit_dataset,
    logits_to_probs,
    print_sample_info,
    print_top_tokens,
    unpack_indices,
    visualize_conversation_probabilities,
)

__all__ = [
    "analyze_token_probabilities",
    "decode_top_tokens",
    "dequantize_all_logits",
    "dequantize_logits",
    "dequantize_sampled_logits",
    "dequantize_top_logits",
    "get_nucleus_probability_mass",
    "get_sample",
    "load_extraction_config",
    "load_logit_dataset",
    "logits_to_probs",
    "print_sample_info",
    "print_top_tokens",
    "unpack_indices",
    "visualize_conversation_probabilities",
]

if __name__ == "__main__":
    from teacher_logits.command_line.explore import run

    run()
