"""`python -m echojepa.cli` is the console command."""

from echojepa.cli.main import main

if __name__ == "__main__":
    main()
