"""Search of hyper-parameters, behind ``python -m recbole_cierec tune``.

``ranges`` reads what is searched, ``search`` defines a search, ``study`` keeps its trials,
``trial`` trains one, ``runner`` hands them out, ``report`` writes the results.
"""

from recbole_cierec.tuning.runner import tune

__all__ = ["tune"]
