"""`python -m openproto.cli`."""

import sys

from openproto.cli import main

sys.exit(main())
