"""`python -m loadgen`: the command, where the script is not on the path."""

import sys

from loadgen.cli import main

sys.exit(main())
