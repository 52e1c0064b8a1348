"""Storage engines behind one contract (engine.py); what every engine must pass is in conformance.py."""
