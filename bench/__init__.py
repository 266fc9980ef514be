"""The figures that Enisle promises, measured as ratios in one run; `python -m bench --help`."""
