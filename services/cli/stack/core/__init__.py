"""What the stack decides: no processes, files or clocks here."""
