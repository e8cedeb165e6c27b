"""A whole dataset on one HTML page, to be sent to somebody.

content    what is shown, as plain data     tables    the figures       comparison  with the teacher
passages   tokens in their context          page      the HTML of it    pictures    the plots, light and dark
files      template, style
"""

from teacher_logits.exploring.report.page import dataset_report

__all__ = ["dataset_report"]
