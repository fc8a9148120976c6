"""Start with `python -m services.ratelimiter`."""

from services.ratelimiter.main import main

main()
