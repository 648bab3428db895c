"""Keras models: ensembles, logits, networks."""
