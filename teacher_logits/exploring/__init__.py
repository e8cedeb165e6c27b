"""Reading a logits dataset back: samples, probabilities, the text they belong to. Imports torch nowhere.

sources      a folder or a Hub dataset, file by file     runs      the run behind it
loading      as a datasets.Dataset                       samples   one conversation's entries
decoding     16-bit numbers to probabilities             tokens    ids to text
analysis     what the teacher thought of each token      summary   the whole dataset in numbers
text, conversation   views as text                       printing  the same, printed
page         a conversation as an HTML page              entropy   of distributions stored in part
statistics   figures of whole datasets                   plots     matplotlib figures
writing      both as files                               notebook  the names of explore_logits
retokenizing the tokens of datasets written without      verifying whether the dataset is sound
fidelity     whether it is what the teacher says
report       all of it on one HTML page
"""

from teacher_logits.codec import unpack_indices
from teacher_logits.exploring.analysis import (
    TokenChoice,
    TokenProbability,
    analyze_token_probabilities,
    decode_top_tokens,
    most_surprising,
)
from teacher_logits.exploring.conversation import conversation_text
from teacher_logits.exploring.decoding import (
    dequantize_all_logits,
    dequantize_logits,
    dequantize_sampled_logits,
    dequantize_top_logits,
    get_nucleus_probability_mass,
    logits_to_probs,
)
from teacher_logits.exploring.entropy import entropy_bounds, entropy_estimate
from teacher_logits.exploring.fidelity import CONVERSATIONS, FidelityReport, compare_with_teacher, fidelity_text
from teacher_logits.exploring.loading import load_logit_dataset
from teacher_logits.exploring.optional import MissingLibraryError
from teacher_logits.exploring.page import (
    ConversationView,
    conversation_page,
    conversation_view,
    save_page,
    writable_page,
)
from teacher_logits.exploring.plots import (
    plot_entropy_along_position,
    plot_logit_distribution,
    plot_nucleus_size_analysis,
    plot_nucleus_sizes,
    plot_nucleus_vs_sampled,
)
from teacher_logits.exploring.printing import (
    print_dataset_stats,
    print_sample_info,
    print_top_tokens,
    quick_explore,
    visualize_conversation_probabilities,
)
from teacher_logits.exploring.report import dataset_report
from teacher_logits.exploring.retokenizing import retokenized
from teacher_logits.exploring.runs import load_extraction_config, load_tokenizer, tokenizer_if_any, tokenizer_of
from teacher_logits.exploring.samples import NoSuchSampleError, get_sample, read_sample
from teacher_logits.exploring.sources import Source, open_source
from teacher_logits.exploring.statistics import (
    BytesPerToken,
    DatasetStats,
    NucleusSizeStats,
    analyze_nucleus_sizes,
    bytes_per_token_text,
    compute_bytes_per_token_stats,
    compute_dataset_stats,
    dataset_stats_text,
)
from teacher_logits.exploring.summary import DatasetSummary, summarize, summary_text
from teacher_logits.exploring.text import surprises_text
from teacher_logits.exploring.verifying import Verification, verification_text, verify_dataset
from teacher_logits.exploring.writing import execute_analysis, write_plots

__all__ = [
    "CONVERSATIONS",
    "BytesPerToken",
    "ConversationView",
    "DatasetStats",
    "DatasetSummary",
    "FidelityReport",
    "MissingLibraryError",
    "NoSuchSampleError",
    "NucleusSizeStats",
    "Source",
    "TokenChoice",
    "TokenProbability",
    "Verification",
    "analyze_nucleus_sizes",
    "analyze_token_probabilities",
    "bytes_per_token_text",
    "compare_with_teacher",
    "compute_bytes_per_token_stats",
    "compute_dataset_stats",
    "conversation_page",
    "conversation_text",
    "conversation_view",
    "dataset_report",
    "dataset_stats_text",
    "decode_top_tokens",
    "dequantize_all_logits",
    "dequantize_logits",
    "dequantize_sampled_logits",
    "dequantize_top_logits",
    "entropy_bounds",
    "entropy_estimate",
    "execute_analysis",
    "fidelity_text",
    "get_nucleus_probability_mass",
    "get_sample",
    "load_extraction_config",
    "load_logit_dataset",
    "load_tokenizer",
    "logits_to_probs",
    "most_surprising",
    "open_source",
    "plot_entropy_along_position",
    "plot_logit_distribution",
    "plot_nucleus_size_analysis",
    "plot_nucleus_sizes",
    "plot_nucleus_vs_sampled",
    "print_dataset_stats",
    "print_sample_info",
    "print_top_tokens",
    "quick_explore",
    "read_sample",
    "retokenized",
    "save_page",
    "summarize",
    "summary_text",
    "surprises_text",
    "tokenizer_if_any",
    "tokenizer_of",
    "unpack_indices",
    "verification_text",
    "verify_dataset",
    "visualize_conversation_probabilities",
    "writable_page",
    "write_plots",
]
