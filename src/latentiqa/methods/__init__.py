"""Lightning modules that compose the rooms: LGDM."""
