"""What the dispatcher decides: no I/O, no clock, no asyncio."""
