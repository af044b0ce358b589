"""Task databases on a disk or a server, and the store that writes to them without keeping the hub waiting."""
