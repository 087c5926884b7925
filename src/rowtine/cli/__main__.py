"""`python -m rowtine.cli`, which is how a process starts workers of the same installation."""

from rowtine.cli import main

main()
