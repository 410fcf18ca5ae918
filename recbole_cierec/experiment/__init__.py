"""Experiments, behind ``python -m recbole_cierec experiment``: models, data sets, protocols, seeds.

``spec`` reads the file, ``plan`` lists its runs and searches, ``estimate`` predicts their time,
``work`` performs one of them, ``runner`` hands them out, ``rows`` keeps the results, and
``summary`` and ``tables`` report them.
"""

from recbole_cierec.experiment.runner import run_experiment

__all__ = ["run_experiment"]
