"""Training of raters, models that give scores themselves: one loop, one recipe, one file format."""
