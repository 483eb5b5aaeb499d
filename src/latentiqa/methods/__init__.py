"""Lightning modules that compose the rooms: feature extractors (LGDM, psis) and their scorer."""
