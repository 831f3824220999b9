import sys

from engine.cli.main import app
from engine.cli.runner import run

if __name__ == "__main__":
    sys.exit(run(app, "python -m engine"))
