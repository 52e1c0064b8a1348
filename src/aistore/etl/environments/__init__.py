"""From a runtime's name and a dependency list to an interpreter that has it all (``environment.py``)."""
