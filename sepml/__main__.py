"""`python -m sepml`."""

import sys

from sepml.cli import main

sys.exit(main())
