"""Default values of every key, as yaml: overall.yaml, model/NAME.yaml, dataset/NAME.yaml."""
