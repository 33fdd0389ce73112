"""Stage map: the classes of a scene's ground, by words."""
