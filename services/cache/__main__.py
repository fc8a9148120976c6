"""Start with `python -m services.cache`."""

from services.cache.main import main

main()
