"""Commands that ask a running hub (trio-hub or ipcontroller) and print its answers."""
