import sys

from engine.cli import app
from engine.console import run

if __name__ == "__main__":
    sys.exit(run(app, "python -m engine"))
