"""Shell completion: scripts that ask `wherry __complete WORD…`, which answers out of the table of commands.

The protocol is cobra's, which Docker's CLI speaks too: a candidate a line, perhaps with a tab and a description, and
at the end ":" with a number that says what the shell may do (see complete.py).
"""
