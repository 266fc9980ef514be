"""`python -m enisle.island DESCRIPTOR` is the island process of the SDK."""

from enisle.island.service import main

if __name__ == "__main__":
    main()
