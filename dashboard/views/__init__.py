"""One page each: read, summarise, draw. No arithmetic on results."""
