"""Pictures of a logits dataset. Each function returns a matplotlib figure, and needs no display and no pyplot.

distributions   one token's choices and draws     sizes    nucleus sizes, of a conversation or a dataset
uncertainty     entropy along a text              turns    horizontal axes     style   colours, fonts, labels
lengths         of the source's conversations     card     the picture of a dataset's card
"""

from teacher_logits.exploring.plots.card import plot_size_classes
from teacher_logits.exploring.plots.distributions import plot_logit_distribution, plot_nucleus_vs_sampled
from teacher_logits.exploring.plots.lengths import plot_lengths
from teacher_logits.exploring.plots.sizes import plot_nucleus_size_analysis, plot_nucleus_sizes
from teacher_logits.exploring.plots.style import png_of
from teacher_logits.exploring.plots.uncertainty import plot_entropy_along_position

__all__ = [
    "plot_entropy_along_position",
    "plot_lengths",
    "plot_logit_distribution",
    "plot_nucleus_size_analysis",
    "plot_nucleus_sizes",
    "plot_nucleus_vs_sampled",
    "plot_size_classes",
    "png_of",
]
