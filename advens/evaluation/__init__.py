"""From attacks to outcomes, and statistics of outcomes."""
