"""Task databases on a disk or a server, and the store that writes to them in the background."""
