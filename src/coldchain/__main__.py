"""`python -m coldchain`."""

from coldchain.cli.main import main

if __name__ == "__main__":
    main()
