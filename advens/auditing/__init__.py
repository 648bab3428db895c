"""The audit of an ensemble: how robust it is, why, and how far this can be trusted."""
