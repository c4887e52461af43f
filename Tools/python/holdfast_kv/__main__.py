"""``python -m holdfast_kv``."""

import sys

from .cli import main

sys.exit(main())
