"""``python -m quantpress``."""

from quantpress.cli.app import main

if __name__ == "__main__":
    main()
