"""Search of hyper-parameters, behind ``python -m recbole_cierec tune``.

``ranges`` says what is drawn from, ``board`` what the processes of a study share, ``trial`` what
one trial is, ``report`` what is left of it all.
"""
