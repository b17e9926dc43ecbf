"""Words of files, made fit for a terminal."""


def printable(text: str) -> str:
    """`text` with U+FFFD for every character that prints nothing or steers the terminal: escape
    sequences, line breaks, halves of surrogate pairs."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
