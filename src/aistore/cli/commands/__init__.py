"""One module per group of commands, loaded when it is used."""
