"""`python -m firmware_py`: the same as the command `wattbroker`."""

from firmware_py.cli import main

main()
