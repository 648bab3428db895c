"""`python -m advens.auditing` is `advens-audit`."""

from advens.auditing.command import main

main()
