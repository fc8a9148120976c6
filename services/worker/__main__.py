"""Start with `python -m services.worker`."""

from services.worker.main import main

main()
