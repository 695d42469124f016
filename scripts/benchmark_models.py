"""The benchmark's old name: `python scripts/benchmark_models.py …` is `loadgen bench …`.

Knows nothing but that; it keeps the command lines of the original documentation working.
"""

import sys

from loadgen.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
