"""The report as HTML."""

from pathlib import Path
from typing import Any

from teacher_logits.exploring.fidelity import CONVERSATIONS
from teacher_logits.exploring.page.frame import framed, source
from teacher_logits.exploring.plots.style import theme_of
from teacher_logits.exploring.report.content import Report, report_content
from teacher_logits.exploring.sources import Source, open_source
from teacher_logits.version import __version__

_PACKAGE = "teacher_logits.exploring.report"


def dataset_report(
    dataset: str | Path | Source,
    split: str | None = None,
    *,
    revision: str | None = None,
    verify: bool = True,
    look_at_source: bool = True,
    model: str | Path | None = None,
    conversations: int = CONVERSATIONS,
    device: str = "auto",
    source_dataset: str | None = None,
    tokenizer: Any = None,
) -> str:
    """A dataset on one HTML page: figures, soundness, plots, the most surprising tokens, conversations.

    It holds all it needs: it can be mailed, and opens without a network.
    dataset: a folder, a Hub dataset id, or what `open_source` gives.   split: by default the only one.
    verify: whether to check it, for which every shard is read (and of a Hub dataset fetched).   look_at_source: and
    whether to open the run's source dataset to see if conversations are missing.
    model: the teacher, to be run again on `device` over at most so many conversations, as `compare_with_teacher` does;
    by default it isn't.   source_dataset: where the run's source is now, for that of a dataset without its tokens.
    tokenizer: by default that of the run's model; where it can't be had the page says so, and shows no text.
    Without matplotlib it says so in place of the plots. Raises FormatError where the dataset can't be read,
    TeacherError where the model is another or can't be loaded.
    """
    opened = dataset if isinstance(dataset, Source) else open_source(dataset, revision)
    content = report_content(
        opened,
        split,
        verify=verify,
        look_at_source=look_at_source,
        model=model,
        conversations=conversations,
        device=device,
        source_dataset=source_dataset,
        tokenizer=tokenizer,
    )
    return report_html(content)


def report_html(report: Report) -> str:
    """The whole page as HTML5 text, ready to be written as UTF-8."""
    teacher = dict(report.facts)["Teacher"]
    title = f"{report.name} · logits of {teacher}"
    return framed("report.html.jinja", _PACKAGE, _style(), title=title, report=report, version=__version__)


def _style() -> str:
    """The report's own rules; what is around a picture has the colour of the picture's ground."""
    light, dark = (theme_of(name).background for name in ("light", "dark"))
    return source("report.css", _PACKAGE) + f".picture {{ background: light-dark({light}, {dark}); }}\n"
