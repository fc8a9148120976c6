"""Talk to a gateway from the command line: `send`, `chat`, `watch`.

commands.py   the commands and their options
door.py       which gateways, which key: given, or those of the stack on this machine
show.py       events on a terminal: the answer to standard output, everything about it to standard error
"""
