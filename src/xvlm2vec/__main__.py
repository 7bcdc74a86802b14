"""``python -m xvlm2vec`` runs the command line."""

import sys

from xvlm2vec.cli import main

sys.exit(main())
