"""What runs before and behind the teacher: batches that are ready for it, and rows made of what comes out."""

from collections.abc import Iterator

from teacher_logits.batching import TokenBudgetBatchSampler, collate
from teacher_logits.codec import Contents
from teacher_logits.conversations import ConversationDataset, Unusable
from teacher_logits.errors import NonFiniteLogitsError
from teacher_logits.extraction.batches import DoesNotFit, FiniteGuard, GPUBatchResult, cpu_postprocess_batch
from teacher_logits.extraction.output import RunOutput
from teacher_logits.extraction.prepare import Plan, PreparedRun
from teacher_logits.extraction.summary import RunSummary
from teacher_logits.records import Batch
from teacher_logits.teacher import Teacher, default_batch_tokens

NOT_FINITE = "NaN or infinite logits"
OUT_OF_MEMORY = "too long for the device's memory"


def batch_sampler(run: PreparedRun, plan: Plan, teacher: Teacher) -> TokenBudgetBatchSampler:
    """The plan's batches by the options; by default as many tokens as the device has memory for."""
    config = run.config
    thresholds, budget = None, config.batch_tokens
    if config.batch_thresholds is not None:
        thresholds = {int(length): size for length, size in config.batch_thresholds.items()}
    elif budget is None:
        budget = default_batch_tokens(teacher)
    return TokenBudgetBatchSampler(plan.lengths, budget, thresholds, config.max_batch_size)


def ready_batches(run: PreparedRun, plan: Plan, sampler: TokenBudgetBatchSampler, sink: "RowSink") -> Iterator[Batch]:
    """The batches rendered and padded. Conversations that turn out unusable are left out of them."""
    dataset = ConversationDataset(run.source, plan.rows, run.renderer)
    for places in sampler:
        examples = []
        for place, example in zip(places, dataset.__getitems__(places), strict=True):
            # A length from a column is only believed for making batches.
            if not isinstance(example, Unusable) and len(example.input_ids) > run.longest:
                example = run.too_long
            if isinstance(example, Unusable):
                sink.skip(int(run.source.index[plan.rows[place]]), str(example))
            else:
                examples.append(example)
        if examples:
            yield collate(examples, run.pad_id)


class RowSink:
    """Takes what the teacher and the sampler made, and hands rows to the uploader."""

    def __init__(self, output: RunOutput, contents: Contents, summary: RunSummary) -> None:
        self._output, self._contents, self._summary = output, contents, summary
        self._guard = FiniteGuard(summary.left, len(output.done))

    def take(self, result: GPUBatchResult | DoesNotFit) -> None:
        """Pack a batch's entries into rows. One that doesn't fit in the device's memory is left out.

        Raises NonFiniteLogitsError where too many conversations have logits that can't be used.
        """
        if isinstance(result, DoesNotFit):
            self.skip(result.index, OUT_OF_MEMORY)
            return
        packed = cpu_postprocess_batch(result, self._contents)
        for index in packed.refused:
            self.skip(index, NOT_FINITE)
        self._output.uploader.add_rows(packed.table)
        self._summary.left -= packed.table.num_rows
        self._summary.conversations += packed.table.num_rows
        self._summary.tokens += packed.tokens
        self._summary.nucleus_tokens += packed.nucleus_tokens
        problem = self._guard.count(packed.table.num_rows, len(packed.refused))
        if problem is not None:
            raise NonFiniteLogitsError(
                f"The teacher gave NaN or infinite logits for {problem} (lately {packed.refused[-1:]}). Try another "
                "--dtype (float16 overflows where bfloat16 doesn't) or check the model's weights."
            )

    def skip(self, index: int, reason: str) -> None:
        """Leave a conversation out."""
        self._output.skipped.add(index, reason)
        self._summary.left -= 1
