from engine.cli import app
from engine.console import run

if __name__ == "__main__":
    run(app, "python -m engine")
