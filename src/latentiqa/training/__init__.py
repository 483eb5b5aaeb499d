"""Training of raters, models that give scores themselves: one loop, one recipe, one file format."""

RATERS = {"dpiqa": "teacher", "genziqa": "rater", "student": "student"}
"""Methods that give scores themselves, and what they call the model that does: the key of its
design, and its folder in that of a run."""
