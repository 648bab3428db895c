"""Attacks on ensembles: gradients, FGSM and BIM."""
