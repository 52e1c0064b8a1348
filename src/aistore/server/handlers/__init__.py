"""One module per noun: parse the request, call the engine, a transform or the controller, return a reply."""
