"""One small file a verb: parse, call one library function, render."""
