"""How values, arguments and errors become text in a row, and come back.

The text is JSON that a person can read and a query can filter. What goes in comes out equal and of
the same type, or the call site gets a TypeError that names the path of the offending value. Only
registered classes are rebuilt: nothing is imported, and no code runs, because a row says so.
"""

from rowtine.codec.jsoncodec import JsonCodec
from rowtine.core.names import class_name

__all__ = ["JsonCodec", "class_name"]
