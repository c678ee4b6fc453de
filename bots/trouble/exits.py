"""Exits at once, before it can serve anybody. Works as a bot file and as a program."""

import sys

sys.stderr.write("trouble: exiting at once\n")
sys.exit(7)
