"""What quantpress needs to talk to a Hub: a client, the patience to repeat failed requests, and the Hub's limits."""
