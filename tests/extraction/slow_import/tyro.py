"""Stands for a package that takes long to import: says so, and waits to be interrupted."""

import sys
import time

sys.stderr.write("importing\n")
sys.stderr.flush()
time.sleep(60)
