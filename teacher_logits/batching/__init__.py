"""Token lengths of conversations, and batches of like length within a budget."""

from teacher_logits.batching.budget import TokenBudgetBatchSampler, collate
from teacher_logits.batching.lengths import LengthTable, count_lengths, lengths_from_column, lengths_from_dataset

__all__ = [
    "LengthTable",
    "TokenBudgetBatchSampler",
    "collate",
    "count_lengths",
    "lengths_from_column",
    "lengths_from_dataset",
]
