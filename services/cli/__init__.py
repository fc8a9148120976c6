"""`millrace`, the command line: for people, and for programs outside of the services.

It owns the stack on one machine (`stack/`), the talk with a gateway (`talk/`), and the two topics that only people look at
(`topics.py`, `dead_letters.py`). It never sits on the path of a request, and no service imports it.
"""
