"""One page that answers what is in a data set: examples, instruction types, criteria, rejections, costs."""

from pipeline.report.page import write_report

__all__ = ["write_report"]
