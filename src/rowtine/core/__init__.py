"""The pure core: values in, values out. Nothing here knows a row, a session or a clock."""
