"""``python -m quantpress``."""

from quantpress.cli import main

if __name__ == "__main__":
    main()
