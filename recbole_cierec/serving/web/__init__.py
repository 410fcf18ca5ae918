"""A page and a JSON API over trained models: ``python -m recbole_cierec serve``."""
