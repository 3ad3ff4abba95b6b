"""What differs from one kind of database to another: one module each, and one entry in the table of `known.py`.

`database.py` names what is asked of a kind of database; reading and source.on_sent share it. A new kind derives from
`generic.Generic` and overrides what it knows better.
"""
