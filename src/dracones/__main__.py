"""`python -m dracones`: the command line where no script was put on the path."""

from dracones.cli import main

if __name__ == "__main__":
    main()
