"""The command line: one module a command. ``main`` lists them; a new command is a module and an entry there."""
