"""``trio-hub top``: show a hub in a terminal, updated continuously."""
