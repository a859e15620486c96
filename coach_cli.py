"""The command line: parse, hand over to runners, say clearly what went wrong."""
