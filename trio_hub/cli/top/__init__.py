"""``trio-hub top``: a hub at work, watched from a terminal."""
