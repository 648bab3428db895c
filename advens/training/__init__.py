"""From recipes to trained members."""
