"""ZeroMQ on Trio: sockets, their connections, and published messages."""
