"""A page that shows what a trained model does: :func:`report`."""

from recbole_cierec.report.write import report

__all__ = ["report"]
