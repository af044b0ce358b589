"""ZeroMQ on Trio: sockets, their connections, and what is published on them."""
