"""The verbs of the command line, one file each: `run(arguments) -> exit status`.

A command reads its options and puts the rooms' nouns together; it measures nothing and formats nothing itself.
"""
