"""`python -m mezzotint`: the command line (`torchrun -m mezzotint train …`)."""

import sys

from mezzotint.apps.cli import main

sys.exit(main())
