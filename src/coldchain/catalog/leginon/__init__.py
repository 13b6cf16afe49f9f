"""Reading a Leginon database, and Appion's beside it: never a write, whatever their schema lacks."""
