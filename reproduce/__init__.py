"""Scripts, one for each artefact of the paper. They are run from the checkout."""
