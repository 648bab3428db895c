"""Defences of a single classifier: adversarial training, distillation."""
