"""Tables, figures and pages from stored outcomes. Nothing here needs Keras."""
