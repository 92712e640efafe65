"""`python -m flowtrain` is the command `flowtrain`."""

from flowtrain.cli.flowtrain import main

main()
