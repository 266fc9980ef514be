"""`python -m enisle` is `enisle`."""

import sys

from enisle.cli import main

if __name__ == "__main__":
    sys.exit(main())
