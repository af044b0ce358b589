"""``python -m trio_hub`` is ``trio-hub``."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="trio-hub")
