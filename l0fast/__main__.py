"""``python -m l0fast``: the ``l0fast`` command."""

import sys

from .cli import main

sys.exit(main())
